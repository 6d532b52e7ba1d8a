# SPDX-License-Identifier: BSD-2-Clause-Patent
"""For tests: the real MigTD as a task of this process, on any channel and with any part of its guest replaced."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from migtd import failures
from migtd.choices import StartAttestation, attestation_choice
from migtd.deadlines import Deadlines
from migtd.errors import OutOfResource
from migtd.guest.channel import Channel
from migtd.guest.configuration import FileConfiguration
from migtd.guest.emulated import emulated_guest
from migtd.guest.interfaces import Guest, SharedBuffer, SharedMemory
from migtd.guest.shared_memory import SharedPages
from migtd.migration.logging import LogEntry, LogLevel
from migtd.migration.session import SessionFactory
from migtd.observer import Observer
from migtd.ratls.session import RaTls
from migtd.td import serve
from migtd.testing import RecordingObserver

TURNS = 10_000
"""Turns of the event loop within which `until` wants its condition to hold."""


async def until(condition: Callable[[], object]) -> None:
    """Let the other tasks of this loop go on until `condition` holds. For what needs no waiting but theirs."""
    for _ in range(TURNS):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError(f"{condition} does not hold after {TURNS} turns of the event loop")


@dataclass(slots=True)
class RunningMigTd:
    """A MigTD that serves. `pages` is its allocator of shared memory, `logged` all it wrote into its log."""

    task: asyncio.Task[None]
    guest: Guest
    pages: SharedPages
    logged: list[LogEntry]

    @property
    def alive(self) -> bool:
        """Whether it still serves."""
        return not self.task.done()


@contextlib.asynccontextmanager
async def running_migtd(
    channel: Channel,
    *,
    attestation: StartAttestation | None = None,
    session: SessionFactory | None = None,
    deadlines: Deadlines | None = None,
    observer: Observer | None = None,
    ceiling: LogLevel = LogLevel.INFO,
    platform: Callable[[Guest], Guest] = lambda guest: guest,
) -> AsyncIterator[RunningMigTd]:
    """Start a MigTD on `channel` and end it with the block. `platform` may replace parts of its guest.

    The start runs as a task: an error that ends the MigTD is the task's.
    """
    guest = emulated_guest(channel, FileConfiguration())
    pages = guest.memory
    assert isinstance(pages, SharedPages)  # noqa: S101 - what emulated_guest makes
    guest = platform(guest)
    logged: list[LogEntry] = []
    task = asyncio.create_task(
        serve(
            guest,
            attestation or attestation_choice("accept-all"),
            session or RaTls(),
            deadlines or Deadlines(),
            observer or RecordingObserver(),
            ceiling=ceiling,
            mirror=logged.append,
        ),
        name="migtd",
    )
    try:
        yield RunningMigTd(task, guest, pages, logged)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        channel.close()


class ShortMemory:
    """Shared memory (`migtd.guest.interfaces.SharedMemory`) whose allocations `fails` refuses by their index."""

    def __init__(self, inner: SharedMemory, fails: Callable[[int], bool]) -> None:
        self.allocations = 0
        self._inner = inner
        self._fails = fails

    def allocate(self, size: int) -> SharedBuffer:
        """Allocate, or refuse."""
        self.allocations += 1
        if self._fails(self.allocations - 1):
            raise OutOfResource(failures.SHARED_MEMORY_EXHAUSTED, "scripted")
        return self._inner.allocate(size)
