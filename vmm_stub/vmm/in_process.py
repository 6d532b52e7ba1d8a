# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The vmcall channel without a socket: guest and host in one process and one event loop (stand-alone mode, tests)."""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Callable

from migtd import failures as migtd_failures
from migtd.errors import VmmInternalError
from migtd.guest.channel import Registers
from vmm_stub import failures
from vmm_stub.vmm.errors import MigTdLost
from vmm_stub.vmm.managed_migtd import ManagedMigTd


class InProcessChannel:
    """Implements `migtd.guest.channel.Channel`: making one starts a new TD of that MigTD, `close` ends it.

    Raises VMM-SERVICE-TD-EXISTS if a TD of that MigTD runs.
    """

    def __init__(self, migtd: ManagedMigTd) -> None:
        # Anonymous pages: zeroed, and taken only once touched.
        self._memory = mmap.mmap(-1, migtd.config.shared_memory)
        self._view = memoryview(self._memory)
        self._migtd = migtd
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_interrupt: Callable[[int], None] = lambda _: None
        self._on_lost: Callable[[], None] = lambda: None
        self._early: dict[int, None] = {}
        """Vectors that fired before anybody listened, in order."""
        self._ended = False
        self._td = migtd.attach(self._view, self._interrupt, self._end)

    @property
    def shared_memory(self) -> memoryview:
        """The TD's shared memory, mapped by both ends."""
        return self._view

    def call(self, registers: Registers, data: bytes = b"") -> tuple[Registers, bytes]:
        """A direct call into the VMM. Raises VmmInternalError (MIGTD-CHANNEL-LOST) once the TD was ended."""
        self._require_alive()
        return self._td.handle_call(registers, data)

    def event(self, data: bytes) -> None:
        """Hand over one EVENT. Raises VmmInternalError (MIGTD-CHANNEL-LOST, MIGTD-CHANNEL-MALFORMED)."""
        self._require_alive()
        self._td.handle_event(data)

    def listen(self, on_interrupt: Callable[[int], None], on_lost: Callable[[], None]) -> None:
        """Deliver interrupts from the running event loop; say once if the host ended the TD."""
        self._loop = asyncio.get_running_loop()
        self._on_interrupt, self._on_lost = on_interrupt, on_lost
        for vector in self._early:
            self._loop.call_soon(on_interrupt, vector)
        self._early.clear()
        if self._ended:
            self._loop.call_soon(on_lost)

    def close(self) -> None:
        """End the TD."""
        self._ended = True
        self._migtd.detach(MigTdLost(failures.MIGTD_GONE))

    def _interrupt(self, vector: int) -> None:
        if self._loop is None:
            self._early[vector] = None
        else:
            self._loop.call_soon(self._on_interrupt, vector)

    def _end(self) -> None:
        """The VMM ends the TD: in the middle of its own call, so the rest happens behind it."""
        self._ended = True
        loop = self._loop or asyncio.get_running_loop()
        loop.call_soon(self._migtd.detach, MigTdLost(failures.MIGTD_GONE))
        loop.call_soon(self._on_lost)

    def _require_alive(self) -> None:
        if self._ended:
            raise VmmInternalError(migtd_failures.CHANNEL_LOST, "the TD was ended")
