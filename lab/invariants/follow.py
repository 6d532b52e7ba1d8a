# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The history checker beside a lab that runs: it reads events as they come, so that hosts need not remember them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from lab.history import EventSource
from lab.invariants.checker import MOST, Checker
from lab.invariants.event import Violation


class Follower:
    """Reads the histories of hosts from their start. `violations` are those so far, the first MOST of them."""

    def __init__(self, hosts: Mapping[str, EventSource]) -> None:
        self.checker = Checker()
        self.violations: list[Violation] = []
        self._hosts = hosts
        self._last = dict.fromkeys(hosts, 0)

    async def follow(self, name: str) -> None:
        """Read one host's events as they come, until cancelled. Raises LabFailure if the host is lost."""
        await self._read(name, follow=True)

    async def finish(self) -> None:
        """Read what is there and not read yet, while nobody follows any more; what should have ended has ended."""
        for name in self._hosts:
            await self._read(name, follow=False)
        self._keep(list(self.checker.finish()))

    async def _read(self, name: str, *, follow: bool) -> None:
        events: Any = self._hosts[name].events(self._last[name], follow=follow)
        async with contextlib.aclosing(events):
            async for event in events:
                self._last[name] = event["seq"]
                self._keep(list(self.checker.feed(event)))

    def _keep(self, violations: Sequence[Violation]) -> None:
        self.violations += violations[: MOST - len(self.violations)]


@contextlib.asynccontextmanager
async def following(hosts: Mapping[str, EventSource]) -> AsyncGenerator[Follower, None]:
    """Follow the hosts, by name, while the block runs, and read the rest at its end.

    All migrations must have ended by then. Raises LabFailure if a host is lost.
    """
    follower = Follower(hosts)
    tasks = [asyncio.create_task(follower.follow(name)) for name in hosts]
    try:
        yield follower
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for each in ended:
        if isinstance(each, Exception):
            raise each
    await follower.finish()
