# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Interrupts of an emulated TD: from vectors that fire to the tasks that wait for them."""

from __future__ import annotations

import asyncio

from migtd import failures
from migtd.errors import VmmInternalError


class InterruptController:
    """Implements `migtd.guest.interfaces.Interrupts`.

    A channel calls `fire` and `lose` from the event loop in which the waiters run. A waiter compares counts, so it
    misses nothing and needs no registration; firing costs one step for each waiter of the vector.
    """

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._waiters: dict[int, set[asyncio.Future[None]]] = {}
        self._lost = False

    def fire(self, vector: int) -> None:
        """`vector` fired: count it and wake all who wait for it."""
        self._counts[vector] = self.count(vector) + 1
        _wake(self._waiters.pop(vector, set()))

    def lose(self) -> None:
        """The host is gone: every present and later wait raises."""
        self._lost = True
        while self._waiters:
            _wake(self._waiters.popitem()[1])

    def count(self, vector: int) -> int:
        """How often `vector` fired so far."""
        return self._counts.get(vector, 0)

    async def wait(self, vector: int, seen: int) -> int:
        """Return the count of `vector` once it is above `seen`; at once if it already is.

        What fired before the host was lost still counts. Raises VmmInternalError (MIGTD-CHANNEL-LOST) when the host is
        gone and nothing more can come.
        """
        while self.count(vector) <= seen:
            if self._lost:
                raise VmmInternalError(failures.CHANNEL_LOST, f"while waiting for interrupt {vector:#x}")
            await self._next(vector)
        return self.count(vector)

    async def _next(self, vector: int) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(vector, set()).add(waiter)
        try:
            await waiter
        finally:
            # A cancelled waiter leaves; one that was woken is no longer in the table.
            self._waiters.get(vector, set()).discard(waiter)


def _wake(waiters: set[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
