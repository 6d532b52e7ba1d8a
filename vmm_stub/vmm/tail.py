# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The last lines of something that goes on: numbered from 1, bounded in memory, followed by any number of readers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator


class Tail:
    """Keeps the youngest lines, at most `max_bytes` and `max_lines` (half of them go at once when one is reached)."""

    def __init__(self, *, max_bytes: int, max_lines: int) -> None:
        self._max_bytes = max_bytes
        self._max_lines = max_lines
        self._lines: list[bytes] = []
        self._bytes = 0
        self._first = 1
        self._wake: asyncio.Event | None = None

    @property
    def first(self) -> int:
        """Number of the oldest line still held (that of the next line, if none is)."""
        return self._first

    @property
    def next(self) -> int:
        """Number that the next line will get."""
        return self._first + len(self._lines)

    def append(self, line: bytes) -> None:
        """Add one line and wake the followers."""
        self._lines.append(line)
        self._bytes += len(line)
        if self._bytes > self._max_bytes or len(self._lines) > self._max_lines:
            self._drop()
        if self._wake is not None:
            self._wake.set()
            self._wake = None

    def read(self, after: int, limit: int) -> list[bytes]:
        """At most `limit` lines with numbers above `after`, of those still held."""
        start = max(after + 1 - self._first, 0)
        return self._lines[start : start + limit]

    async def follow(self, after: int = 0, *, forever: bool, limit: int = 256) -> AsyncGenerator[bytes, None]:
        """Batches of whole lines above `after`; with `forever`, goes on with what comes until cancelled."""
        while True:
            after = max(after, self._first - 1)
            lines = self.read(after, limit)
            if lines:
                after += len(lines)
                yield b"".join(lines)
            elif forever:
                await self.grown()
            else:
                return

    async def grown(self) -> None:
        """Return once the next line was added."""
        if self._wake is None:
            self._wake = asyncio.Event()
        await self._wake.wait()

    def _drop(self) -> None:
        # In halves, so that a line costs constant time on average; one line longer than everything is held alone.
        count = max(len(self._lines) // 2, 1) if len(self._lines) > 1 else 0
        self._bytes -= sum(map(len, self._lines[:count]))
        self._first += count
        del self._lines[:count]
