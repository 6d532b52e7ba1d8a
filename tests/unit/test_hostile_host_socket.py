# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Hostile hosts on the real channel: a SOCK_SEQPACKET socket, with the host in a thread of its own (channel.py)."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import socket
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from migtd import failures
from migtd.deadlines import Deadlines
from migtd.errors import MigrationResult, VmmInternalError
from migtd.guest.channel import MAX_MESSAGE, Kind, Message, Registers, pull_message, push_message
from migtd.guest.ghci import GetTdReport, StartMigration
from migtd.guest.socket_channel import SocketChannel
from vmm_stub.testing_hostile import MEMORY, GuestCall, ReportCall, ScriptedHost
from vmm_stub.testing_pair import N
from vmm_stub.testing_td import RunningMigTd, running_migtd

CALL_DEADLINE = 0.3
SUCCESS = MigrationResult.Success


@dataclass
class SocketHost:
    """Serves a ScriptedHost on a socket. `answer` sends the RETURN of a call, or something else, or nothing."""

    connection: socket.socket
    host: ScriptedHost
    answer: Callable[[SocketHost, Message, Registers, bytes], None]
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    reported: asyncio.Event = field(default_factory=asyncio.Event)
    calls: int = 0

    def __post_init__(self) -> None:
        self.host.fire = self.interrupt
        self.host.on_reported = self.tell

    def tell(self, _: ReportCall) -> None:
        self.loop.call_soon_threadsafe(self.reported.set)

    def interrupt(self, vector: int) -> None:
        self.connection.send(push_message(Message(Kind.INTERRUPT, registers=Registers(rax=vector))))

    def send(self, message: Message) -> None:
        self.send_raw(push_message(message))

    def send_raw(self, datagram: bytes) -> None:
        self.connection.send(datagram)

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while datagram := self.connection.recv(MAX_MESSAGE):
                message = pull_message(datagram)
                if message.kind is Kind.CALL:
                    self.calls += 1
                    self.answer(self, message, *self.host.call(message.registers, message.data))

    async def reports(self, request_id: int) -> list[ReportCall]:
        """The reports of a request once there is one."""
        while not self.host.reports_of(request_id):
            self.reported.clear()
            await self.reported.wait()
        return self.host.reports_of(request_id)


def honest(server: SocketHost, call: Message, registers: Registers, data: bytes) -> None:
    server.send(Message(Kind.RETURN, call.sequence, registers, data))


@contextlib.asynccontextmanager
async def on_socket(
    prepare: Callable[[ScriptedHost], None],
    answer: Callable[[SocketHost, Message, Registers, bytes], None] = honest,
) -> AsyncIterator[tuple[SocketHost, RunningMigTd]]:
    """A MigTD whose host does what `prepare` put into its script, each RETURN by `answer`."""
    guest_end, host_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    memory = mmap.mmap(-1, MEMORY)
    host = ScriptedHost(memory=memoryview(memory))
    prepare(host)
    server = SocketHost(host_end, host, answer)
    thread = threading.Thread(target=server.run)
    thread.start()
    channel = SocketChannel(guest_end, memoryview(memory), CALL_DEADLINE)
    limits = Deadlines().with_all(1.0)
    try:
        async with asyncio.timeout(10), running_migtd(channel, deadlines=limits) as td:
            yield server, td
    finally:
        channel.close()
        with contextlib.suppress(OSError):
            host_end.shutdown(socket.SHUT_RDWR)
        thread.join()
        host_end.close()


def put_migration(host: ScriptedHost) -> None:
    host.put(GetTdReport(1))
    host.put(StartMigration(N, is_source=True, target=host.target))


async def test_a_host_that_floods_its_guest_with_interrupts_is_served_all_the_same() -> None:
    def flood(server: SocketHost, call: Message, registers: Registers, data: bytes) -> None:
        for vector in range(256):
            server.interrupt(vector)
        honest(server, call, registers, data)

    async with on_socket(put_migration, flood) as (server, td):
        assert [report.result for report in await server.reports(1)] == [SUCCESS]
        # The peer never says a word.
        assert [report.result for report in await server.reports(N)] == [MigrationResult.NetworkError]
        assert td.alive


async def test_a_host_that_spoils_all_it_answered_is_served_all_the_same() -> None:
    """Only what belongs to the guest again is spoilt: the answered buffer, right behind the interrupt."""

    def prepare(host: ScriptedHost) -> None:
        host.put(GetTdReport(1))
        answered: list[GuestCall] = []
        host.on_answered = answered.append

        def spoil(_: Registers) -> None:
            while answered:
                call = answered.pop()
                host.raw[call.offset : call.offset + call.size] = b"\xee" * call.size

        host.on_call = spoil

    async with on_socket(prepare) as (server, td):
        (report,) = await server.reports(1)
        assert (report.result, len(report.data)) == (SUCCESS, 1024)
        assert td.alive


BREAKS: dict[str, tuple[Callable[[SocketHost, Message], None], bool]] = {
    "closes": (lambda server, _: server.connection.shutdown(socket.SHUT_RDWR), True),
    "is silent": (lambda _server, _call: None, True),
    "answers another call": (lambda server, call: server.send(Message(Kind.RETURN, call.sequence + 1)), False),
    "calls its guest": (lambda server, call: server.send(Message(Kind.CALL, call.sequence)), False),
    "sends half a message": (lambda server, _: server.send_raw(b"\x02"), False),
    "interrupts with vector 256": (lambda server, _: server.interrupt(256), False),
}


@pytest.mark.parametrize("at", [0, 1, 3, 5, 8, 12])
@pytest.mark.parametrize(("breaks", "is_loss"), BREAKS.values(), ids=BREAKS)
async def test_a_host_that_breaks_the_channel_ends_its_guest_and_no_key_is_written(
    breaks: Callable[[SocketHost, Message], None], at: int, *, is_loss: bool
) -> None:
    """`at` counts the calls behind the start; a loss is an ordinary end, a broken message is an error."""

    def answer(server: SocketHost, call: Message, registers: Registers, data: bytes) -> None:
        if server.calls - STARTS > at:
            breaks(server, call)
        else:
            honest(server, call, registers, data)

    async with on_socket(put_migration, answer) as (server, td):
        await asyncio.wait({td.task})
        error = td.task.exception()
        if is_loss:
            assert error is None
        else:
            assert isinstance(error, VmmInternalError)
            assert error.kind is failures.CHANNEL_MALFORMED
        assert server.host.dec_key_writes == 0
        assert len(server.host.reports_of(N)) <= 1


STARTS = 4
"""TDCALLs of a start: two of the firmware, the marker event, TDG.VP.INFO."""


@pytest.mark.parametrize("message", [Message(Kind.RETURN, 1), Message(Kind.CALL), Message(Kind.EVENT, data=b"{}")])
async def test_a_message_that_no_host_sends_between_calls_ends_the_guest(message: Message) -> None:
    async with on_socket(lambda host: host.put(GetTdReport(1))) as (server, td):
        await server.reports(1)
        server.send(message)
        await asyncio.wait({td.task})
        assert server.host.dec_key_writes == 0
