# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The recorded history of a host: one JSON object a line, from its start (docs: control API, events).

    {"seq": 1.., "time": seconds since 1970, "host": NAME, "migtd": NAME|null, "request_id": N|null, "kind": K,
     "data": {}}

A bounded tail stays in memory. Where a file is given it gets every line, and readers who start earlier than the tail
are served from it. Nothing secret is ever recorded: keys are left out where calls are described (call_record.py).
"""

from __future__ import annotations

import asyncio
import enum
import json
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic_core import PydanticSerializationError, to_json

from migtd.errors import LabFailure
from vmm_stub import failures
from vmm_stub.vmm.tail import Tail

TAIL_BYTES: Final = 8 << 20
TAIL_LINES: Final = 50_000
_BATCH: Final = 256
_INDEX_STEP: Final = 256
"""One line in so many has its offset in the file remembered."""
_FILE_BUFFER: Final = 256 << 10
_FLUSH_AFTER: Final = 0.5
"""Seconds after which a buffered line is in the file at the latest."""

_encode: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, default=str).encode


class HistoryKind(enum.StrEnum):
    """Closed list of what is recorded."""

    CALL = "call"
    INTERRUPT = "interrupt"
    FRAME = "frame"
    STATE = "state"
    PHASE = "phase"
    CHECK = "check"
    RESULT = "result"
    LOG = "log"
    NOTE = "note"
    FAULT = "fault"


class HistoryFileError(LabFailure):
    """The history file cannot be opened (VMM-HISTORY-FILE)."""


class History:
    """Records events and gives them back as encoded lines, each with its newline.

    `clock` gives seconds since 1970. `path` is truncated; a host's history starts with the host. `log` is told, once,
    if the file can no longer be written: the host goes on without it. Raises HistoryFileError.
    """

    def __init__(self, host: str, clock: Callable[[], float], path: Path | None = None) -> None:
        self._host = _encode(host)
        self._names: dict[str | None, str] = {None: _encode(None)}
        """Of MigTDs, as they are encoded: there are few."""
        self._clock = clock
        self._tail = Tail(max_bytes=TAIL_BYTES, max_lines=TAIL_LINES)
        self._file = _HistoryFile(path, self._give_up_file) if path else None

    def record(
        self,
        kind: HistoryKind,
        data: Mapping[str, Any],
        *,
        migtd: str | None = None,
        request_id: int | None = None,
    ) -> None:
        """Add one event. Costs some microseconds: file writes are buffered."""
        name = self._names.get(migtd) or self._names.setdefault(migtd, _encode(migtd))
        identity = "null" if request_id is None else request_id
        head = (
            f'{{"seq":{self._tail.next},"time":{self._clock():.6f},"host":{self._host},'
            f'"migtd":{name},"request_id":{identity},"kind":"{kind}","data":'
        )
        line = head.encode("utf-8", "backslashreplace") + _encode_data(data) + b"}\n"
        if self._file is not None:
            self._file.write(line)
        self._tail.append(line)

    def read(self, after: int = 0, limit: int = _BATCH) -> list[bytes]:
        """At most `limit` lines with a sequence number above `after`, oldest first; empty if there are none.

        Lines that are no longer held are replaced by one note that carries the last missing sequence number.
        """
        if after + 1 >= self._tail.first:
            return self._tail.read(after, limit)
        lines = self._file.read(after, limit) if self._file is not None else []
        if lines:
            return lines
        return [self._gap(after), *self._tail.read(after, limit)]

    async def follow(self, after: int = 0, *, forever: bool) -> AsyncGenerator[bytes, None]:
        """Batches of whole lines above `after`; with `forever`, goes on with what comes until cancelled."""
        while True:
            lines = self.read(after)
            if lines:
                after = _sequence(lines[-1])
                yield b"".join(lines)
            elif forever:
                await self._tail.grown()
            else:
                return

    def close(self) -> None:
        """Write out what is buffered. Recording may go on; then only the tail holds it."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def _give_up_file(self, error: OSError) -> None:
        self._file = None
        kind = failures.HISTORY_FILE
        structlog.get_logger().error(kind.summary, id=kind.id, detail=str(error), advice=kind.advice)
        self.record(HistoryKind.NOTE, {"id": kind.id, "text": f"{kind.summary}: {error}"})

    def _gap(self, after: int) -> bytes:
        last = self._tail.first - 1
        data = {"text": f"events {after + 1} to {last} are no longer held; give the host a history file to keep all"}
        return (
            f'{{"seq":{last},"time":{self._clock():.6f},"host":{self._host},"migtd":null,"request_id":null,'
            f'"kind":"{HistoryKind.NOTE.value}","data":{_encode(data)}}}\n'
        ).encode()


class MigTdHistory:
    """The history as seen from one MigTD: every event carries its name."""

    def __init__(self, history: History, migtd: str) -> None:
        self._history = history
        self._migtd = migtd

    def record(self, kind: HistoryKind, data: Mapping[str, Any], request_id: int | None = None) -> None:
        """Add one event of this MigTD."""
        self._history.record(kind, data, migtd=self._migtd, request_id=request_id)


class _HistoryFile:
    """The file: written through a buffer, read by line number with the help of a sparse index.

    `failed` is told of the first error, after which nothing is written or read.
    """

    def __init__(self, path: Path, failed: Callable[[OSError], None]) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HistoryFileError(failures.HISTORY_FILE, str(error)) from error
        self._failed = failed
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._lines = 0
        self._offset = 0
        self._index: list[int] = []
        self._flush_planned: asyncio.TimerHandle | None = None

    def write(self, line: bytes) -> None:
        if self._lines % _INDEX_STEP == 0:
            self._index.append(self._offset)
        self._pending.append(line)
        self._pending_bytes += len(line)
        self._lines += 1
        self._offset += len(line)
        if self._pending_bytes >= _FILE_BUFFER:
            self.flush()
        elif self._flush_planned is None:
            self._plan_flush()

    def read(self, after: int, limit: int) -> list[bytes]:
        """At most `limit` lines behind line `after`; empty if the file failed."""
        self.flush()
        if after >= self._lines or self._descriptor < 0:
            return []
        # A descriptor of its own would miss nothing, but the path may have been unlinked or moved meanwhile.
        with os.fdopen(os.dup(self._descriptor), "rb") as reader:
            reader.seek(self._index[after // _INDEX_STEP])
            for _ in range(after % _INDEX_STEP):
                reader.readline()
            lines = [reader.readline() for _ in range(min(limit, self._lines - after))]
        os.lseek(self._descriptor, self._offset, os.SEEK_SET)
        return lines

    def flush(self) -> None:
        """Write out what is buffered."""
        if self._flush_planned is not None:
            self._flush_planned.cancel()
            self._flush_planned = None
        data = memoryview(b"".join(self._pending))
        self._pending.clear()
        self._pending_bytes = 0
        try:
            while data and self._descriptor >= 0:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            self._close_descriptor()
            self._failed(error)

    def close(self) -> None:
        self.flush()
        self._close_descriptor()

    def _close_descriptor(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _plan_flush(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # no loop, so nobody waits either: the buffer goes out when it is full, read or closed
        self._flush_planned = loop.call_later(_FLUSH_AFTER, self.flush)


def _encode_data(data: Mapping[str, Any]) -> bytes:
    """As `_encode`, four times as fast; what that encoder cannot take, surrogates for example, is left to the other."""
    try:
        return to_json(data, fallback=str)
    except PydanticSerializationError:
        return _encode(data).encode("utf-8", "backslashreplace")


def _sequence(line: bytes) -> int:
    """The sequence number of a line made by History: the digits behind `{"seq":`."""
    return int(line[7 : line.index(b",", 7)])
