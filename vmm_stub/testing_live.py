# SPDX-License-Identifier: BSD-2-Clause-Patent
"""For tests: one real host with the real MigTD on it in this process, against a peer that a test plays over TCP."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from migtd.deadlines import Deadlines
from migtd.errors import MigrationResult
from migtd.guest.abi import Field, MigTdLeaf, TdCallLeaf, VmCallLeaf
from migtd.guest.channel import Registers
from migtd.guest.emulated import ChannelObserver
from migtd.guest.ghci import pull_report_status
from vmm_stub.testing import FAST, MIGTD, migration_request, quiet_vmm, target_td
from vmm_stub.testing_peer import WirePeer
from vmm_stub.testing_td import RunningMigTd, running_migtd, until
from vmm_stub.vmm.control.models import DeadlinesModel, Role, SideOutcome, TargetTdModel
from vmm_stub.vmm.in_process import InProcessChannel
from vmm_stub.vmm.managed_migtd import ManagedMigTd
from vmm_stub.vmm.migration import HostMigration
from vmm_stub.vmm.vmm import Vmm

N: Final = 1
"""Request id of the migration of a test."""
LOOPBACK: Final = "127.0.0.1"
_KEY_FIELDS: Final = range(Field.MIG_DEC_KEY, Field.MIG_DEC_KEY + 4)

Play = Callable[[WirePeer], Awaitable[None]]
"""What a peer does on its connection, from connect to close."""


class WatchedChannel(InProcessChannel):
    """The in-process channel, which remembers what matters of the calls. `before` sees each call first."""

    def __init__(self, migtd: ManagedMigTd) -> None:
        self.before: Callable[[Registers], None] = lambda _: None
        self.reports: list[tuple[int, MigrationResult]] = []
        """Every ReportStatus call: request id and result."""
        self.dec_key_writes = 0
        """TDG.SERVTD.WR calls for elements of MIG_DEC_KEY."""
        super().__init__(migtd)

    def call(self, registers: Registers, data: bytes = b"") -> tuple[Registers, bytes]:
        """A direct call into the VMM."""
        self.before(registers)
        if registers.rax == TdCallLeaf.SERVTD_WR and registers.rdx in _KEY_FIELDS:
            self.dec_key_writes += 1
        if migtd_leaf(registers) is MigTdLeaf.REPORT_STATUS:
            self.reports.append((registers.r13, pull_report_status(registers.r14)))
        return super().call(registers, data)


def migtd_leaf(registers: Registers) -> MigTdLeaf | None:
    """Which Service.MigTD call it is, if it is one."""
    if registers.rax != TdCallLeaf.VP_VMCALL or registers.r11 != VmCallLeaf.MIGTD:
        return None
    return MigTdLeaf(registers.r12 & 0xFFFF)


@dataclass(slots=True)
class LiveSide:
    """One side. `rest` is the number of free pages while the MigTD only waits for requests."""

    role: Role
    vmm: Vmm
    channel: WatchedChannel
    td: RunningMigTd
    target: TargetTdModel
    rest: int
    migrations: list[HostMigration] = field(default_factory=list)

    async def begin(self, peer: str | None = None, request_id: int = N) -> HostMigration:
        """Start a migration: to `peer` as the source, else listening on a free port."""
        migration = await self.vmm.start_migration(migration_request(self.target, request_id, peer))
        self.migrations.append(migration)
        return migration

    async def meet(self, play: Play, request_id: int = N, *, receive_buffer: int | None = None) -> SideOutcome:
        """Run one migration against a peer that acts as `play` says; the outcome of this side.

        The connection is closed when `play` returns. A peer that still plays when this side has ended is stopped; one
        that fails because this side ended the connection has ended too. `receive_buffer` is SO_RCVBUF of the peer.
        """
        if self.role is Role.DESTINATION:
            migration = await self.begin(request_id=request_id)
            connection = _socket(receive_buffer)
            await asyncio.get_running_loop().sock_connect(connection, (LOOPBACK, _port(migration)))
        else:
            with _socket(receive_buffer) as listening:
                listening.bind((LOOPBACK, 0))
                listening.listen(1)
                migration = await self.begin(f"{LOOPBACK}:{listening.getsockname()[1]}", request_id)
                connection, _ = await asyncio.get_running_loop().sock_accept(listening)
        connection.settimeout(0)
        playing = asyncio.create_task(_play(play, WirePeer(connection)))
        ended = asyncio.create_task(migration.ended.wait())
        await asyncio.wait({playing, ended}, return_when=asyncio.FIRST_COMPLETED)
        if playing.done():
            playing.result()
        await ended
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        return outcome_of(migration)

    def expect_one_report(self, request_id: int = N) -> None:
        """Exactly one ReportStatus was made for the migration, and for each of the requests around it."""
        ids = [each for each, _ in self.channel.reports]
        assert ids.count(request_id) == 1  # noqa: S101 - an assertion of tests
        assert len(ids) == len(set(ids))  # noqa: S101 - as above

    def expect_key(self, *, written: bool) -> None:
        """MIG_DEC_KEY was written completely and once, or not touched at all."""
        assert self.channel.dec_key_writes == (4 if written else 0)  # noqa: S101 - an assertion of tests
        (target,) = self.vmm.target_tds()
        assert (target.dec_key_fingerprint is not None) is written  # noqa: S101 - as above

    async def expect_nothing_left(self) -> None:
        """Shared memory is back, the connection is closed, and nobody listens any more."""
        await until(lambda: self.td.pages.free_pages == self.rest)
        for migration in self.migrations:
            await migration.closed()
            if self.role is Role.DESTINATION:
                with _socket(None) as probe:
                    try:
                        await asyncio.get_running_loop().sock_connect(probe, (LOOPBACK, _port(migration)))
                    except ConnectionRefusedError:
                        continue
                raise AssertionError("the listener is still open")

    async def still_serves(self) -> None:
        """A migration of another id still reaches the MigTD, and its end is reported."""
        migration = await self.begin(f"{LOOPBACK}:1" if self.role is Role.SOURCE else None, N + 1)
        migration.cancel()
        await migration.ended.wait()
        assert outcome_of(migration).code == MigrationResult.VmmCanceled  # noqa: S101 - an assertion of tests


def outcome_of(migration: HostMigration) -> SideOutcome:
    """The outcome of a migration that has ended."""
    outcome = migration.model().outcome
    assert outcome is not None  # noqa: S101 - the caller waited for it
    return outcome


@contextlib.asynccontextmanager
async def live_side(
    role: Role, deadlines: Deadlines = FAST, *, host: dict[str, Any] | None = None, **migtd: Any
) -> AsyncIterator[LiveSide]:
    """A host with a MigTD that waits for requests. `host` goes to its configuration, `migtd` to `running_migtd`.

    When the block ends, no task of this loop may be left that was not there before.
    """
    before = asyncio.all_tasks()
    vmm = quiet_vmm(role.value, deadlines=DeadlinesModel(**asdict(deadlines)), **(host or {}))
    channel = WatchedChannel(vmm.migtd(MIGTD))
    async with running_migtd(channel, deadlines=deadlines, observer=ChannelObserver(channel), **migtd) as td:
        assert (await vmm.ready(deadlines.session)).status == "ready"  # noqa: S101 - an assertion of tests
        try:
            yield LiveSide(role, vmm, channel, td, target_td(vmm), td.pages.free_pages)
        finally:
            await vmm.stop()
            vmm.history.close()
    await until(lambda: asyncio.all_tasks() == before)


async def _play(play: Play, peer: WirePeer) -> None:
    try:
        await play(peer)
    except ConnectionError:
        # This side ended the connection, as it may; what that means is in its outcome.
        pass
    finally:
        peer.close()


def _socket(receive_buffer: int | None) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if receive_buffer is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    made.settimeout(0)
    return made


def _port(migration: HostMigration) -> int:
    address = migration.model().address
    assert address is not None  # noqa: S101 - a destination that listens has one
    return int(address.rpartition(":")[2])
