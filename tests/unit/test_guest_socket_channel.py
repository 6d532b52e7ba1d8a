# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The guest's end of a real SOCK_SEQPACKET channel; the host's end is scripted."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

import pytest

from migtd import failures
from migtd.deadlines import Deadlines
from migtd.errors import VmmInternalError
from migtd.guest.abi import TdCallLeaf
from migtd.guest.channel import MAX_DATA, MAX_MESSAGE, Kind, Message, Registers, pull_message, push_message
from migtd.guest.socket_channel import SocketChannel, connect_channel


@pytest.fixture
def ends():
    guest, host = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    host.settimeout(10)
    channel = SocketChannel(guest, memoryview(bytearray(4096)), 10.0)
    with host, contextlib.closing(channel):
        yield channel, host


def answer(sequence, data=b"", **registers):
    return push_message(Message(Kind.RETURN, sequence, Registers(**registers), data))


def interrupt(vector):
    return push_message(Message(Kind.INTERRUPT, registers=Registers(rax=vector)))


class Listener:
    def __init__(self, channel):
        self.vectors: list[int] = []
        self.lost = 0
        self.changed = asyncio.Event()
        channel.listen(self.on_interrupt, self.on_lost)

    def on_interrupt(self, vector):
        self.vectors.append(vector)
        self.changed.set()

    def on_lost(self):
        self.lost += 1
        self.changed.set()

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition(self):
                self.changed.clear()
                await self.changed.wait()


# --- calls ---------------------------------------------------------------------------------------------------------
def test_a_call_carries_registers_and_data_out_and_brings_both_back(ends):
    channel, host = ends
    host.send(answer(1, b"back", r8=5))
    registers, data = channel.call(Registers(rax=4, r13=(1 << 64) - 1), b"out")
    assert (registers, data) == (Registers(r8=5), b"back")
    assert pull_message(host.recv(MAX_MESSAGE)) == Message(Kind.CALL, 1, Registers(rax=4, r13=(1 << 64) - 1), b"out")


def test_each_call_has_its_own_sequence_number(ends):
    channel, host = ends
    for sequence in (1, 2, 3):
        host.send(answer(sequence, r8=sequence))
        assert channel.call(Registers())[0].r8 == sequence


@pytest.mark.parametrize(
    ("datagram", "detail"),
    [
        (answer(2), "RETURN of call 2"),
        (push_message(Message(Kind.CALL, 1)), "CALL"),
        (push_message(Message(Kind.EVENT)), "EVENT"),
        (b"x", "1 bytes"),
        (answer(1) + b"x", "present"),
        (b"\x09" + answer(1)[1:], "unknown kind"),
        (bytes(MAX_MESSAGE + 100), "unknown kind"),
        (interrupt(0x100), "INTERRUPT"),
        (push_message(Message(Kind.INTERRUPT, registers=Registers(rax=0x50), data=b"x")), "INTERRUPT"),
    ],
)
def test_a_malformed_answer_ends_the_channel_with_a_typed_error(ends, datagram, detail):
    channel, host = ends
    host.send(datagram)
    for _ in range(2):
        with pytest.raises(VmmInternalError) as caught:
            channel.call(Registers())
        assert caught.value.kind is failures.CHANNEL_MALFORMED
        assert detail in caught.value.detail


def test_a_host_that_closes_is_a_lost_channel(ends):
    channel, host = ends
    host.close()
    for _ in range(2):
        with pytest.raises(VmmInternalError) as caught:
            channel.call(Registers())
        assert caught.value.kind is failures.CHANNEL_LOST


def test_a_host_that_does_not_answer_is_a_lost_channel():
    guest, host = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with host, contextlib.closing(SocketChannel(guest, memoryview(b""), 0.02)) as channel:
        with pytest.raises(VmmInternalError) as caught:
            channel.call(Registers())
        assert caught.value.kind is failures.CHANNEL_LOST


def test_a_host_that_only_interrupts_is_a_lost_channel():
    guest, host = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    times = iter([0.0, 4.0, 11.0])
    channel = SocketChannel(guest, memoryview(b""), 10.0, monotonic=lambda: next(times))
    with host, contextlib.closing(channel):
        for _ in range(2):
            host.send(interrupt(0x50))
        with pytest.raises(VmmInternalError) as caught:
            channel.call(Registers())
        assert caught.value.kind is failures.CHANNEL_LOST


def test_a_closed_channel_refuses_calls_and_events(ends):
    channel, _ = ends
    channel.close()
    for leave in (lambda: channel.call(Registers()), lambda: channel.event(b"{}")):
        with pytest.raises(VmmInternalError) as caught:
            leave()
        assert caught.value.kind is failures.CHANNEL_LOST


def test_data_that_does_not_fit_is_the_callers_mistake_and_leaves_the_channel_usable(ends):
    channel, host = ends
    with pytest.raises(ValueError, match="do not fit"):
        channel.call(Registers(), bytes(20000))
    host.send(answer(2))
    channel.call(Registers())


def test_an_event_crosses_to_the_host(ends):
    channel, host = ends
    channel.event(b'{"event":"note"}')
    assert pull_message(host.recv(MAX_MESSAGE)) == Message(Kind.EVENT, data=b'{"event":"note"}')


async def test_events_of_one_turn_cross_together_in_their_order(ends):
    channel, host = ends
    Listener(channel)
    for text in (b"1", b"2", b"3"):
        channel.event(text)
    await asyncio.sleep(0)
    assert pull_message(host.recv(MAX_MESSAGE)) == Message(Kind.EVENT, data=b"1\n2\n3")


async def test_events_reach_the_host_before_the_call_that_follows_them(ends):
    channel, host = ends
    Listener(channel)
    host.send(answer(1))
    channel.event(b"1")
    channel.event(b"2")
    channel.call(Registers(rax=4))
    assert pull_message(host.recv(MAX_MESSAGE)) == Message(Kind.EVENT, data=b"1\n2")
    assert pull_message(host.recv(MAX_MESSAGE)).kind is Kind.CALL


async def test_events_that_do_not_fit_into_one_message_cross_in_several(ends):
    channel, host = ends
    Listener(channel)
    half = b"1" * (MAX_DATA // 2)
    for event in (half, half, b"2", bytes(MAX_DATA), b"3"):
        channel.event(event)
    await asyncio.sleep(0)
    messages = [pull_message(host.recv(MAX_MESSAGE)).data for _ in range(4)]
    assert messages == [half, half + b"\n2", bytes(MAX_DATA), b"3"]
    with pytest.raises(ValueError, match="does not fit"):
        channel.event(bytes(MAX_DATA + 1))


async def test_the_last_events_of_a_td_that_ends_still_reach_the_host(ends):
    channel, host = ends
    Listener(channel)
    channel.event(b"1")
    channel.close()
    assert pull_message(host.recv(MAX_MESSAGE)).data == b"1"
    assert host.recv(MAX_MESSAGE) == b""


async def test_a_host_that_is_gone_when_events_go_out_is_told_to_the_listener(ends):
    channel, host = ends
    listener = Listener(channel)
    channel.event(b"1")
    host.close()
    await listener.until(lambda it: it.lost)
    assert listener.lost == 1


# --- interrupts ----------------------------------------------------------------------------------------------------
async def test_interrupts_reach_the_listener(ends):
    channel, host = ends
    listener = Listener(channel)
    host.send(interrupt(0x50))
    host.send(interrupt(0x52))
    await listener.until(lambda it: len(it.vectors) == 2)
    assert listener.vectors == [0x50, 0x52]


async def test_an_interrupt_during_a_call_is_delivered_after_it(ends):
    channel, host = ends
    listener = Listener(channel)
    host.send(interrupt(0x52))
    host.send(answer(1, r8=1))
    assert channel.call(Registers())[0].r8 == 1
    assert listener.vectors == []
    await listener.until(lambda it: it.vectors)
    assert listener.vectors == [0x52]


async def test_an_interrupt_before_anybody_listens_is_kept(ends):
    channel, host = ends
    host.send(interrupt(0x50))
    host.send(answer(1))
    channel.call(Registers())
    listener = Listener(channel)
    await listener.until(lambda it: it.vectors)
    assert listener.vectors == [0x50]


async def test_interrupts_that_came_before_the_loss_are_delivered_first(ends):
    channel, host = ends
    listener = Listener(channel)
    host.send(interrupt(0x52))
    host.close()
    await listener.until(lambda it: it.lost)
    assert listener.vectors == [0x52]


async def test_a_loss_during_a_call_is_told_to_the_listener_once(ends):
    channel, host = ends
    listener = Listener(channel)
    host.close()
    for _ in range(2):
        with pytest.raises(VmmInternalError):
            channel.call(Registers())
    assert listener.lost == 0
    await listener.until(lambda it: it.lost)
    await asyncio.sleep(0)
    assert listener.lost == 1


@pytest.mark.parametrize("datagram", [answer(1), b"x", interrupt(0x1000)])
async def test_anything_but_an_interrupt_between_calls_ends_the_channel(ends, datagram):
    channel, host = ends
    listener = Listener(channel)
    host.send(datagram)
    await listener.until(lambda it: it.lost)
    with pytest.raises(VmmInternalError) as caught:
        channel.call(Registers())
    assert caught.value.kind is failures.CHANNEL_MALFORMED


async def test_a_listener_that_comes_after_the_loss_is_told_too(ends):
    channel, host = ends
    host.close()
    with pytest.raises(VmmInternalError):
        channel.call(Registers())
    listener = Listener(channel)
    await listener.until(lambda it: it.lost)


async def test_a_channel_closed_on_purpose_tells_nobody(ends):
    channel, host = ends
    listener = Listener(channel)
    channel.close()
    host.close()
    await asyncio.sleep(0)
    assert (listener.lost, listener.vectors) == (0, [])


# --- connecting ----------------------------------------------------------------------------------------------------
class Host(threading.Thread):
    """Listens in `directory`, accepts one TD, makes its shared memory, and echoes registers until the guest leaves."""

    def __init__(self, directory, *, memory_size=8192):
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.settimeout(10)
        self.listener.bind(str(directory / "vmcall.sock"))
        self.listener.listen()
        self.memory = directory / "shared-memory"
        self.memory_size = memory_size
        self.start()

    def run(self):
        with self.listener, self.listener.accept()[0] as connection:
            connection.settimeout(10)
            self.memory.write_bytes(bytes(self.memory_size))
            while datagram := connection.recv(MAX_MESSAGE):
                message = pull_message(datagram)
                connection.send(push_message(Message(Kind.RETURN, message.sequence, message.registers)))


def test_connecting_maps_the_shared_memory_that_the_host_made(tmp_path):
    host = Host(tmp_path)
    with contextlib.closing(connect_channel(tmp_path, Deadlines())) as channel:
        assert channel.call(Registers(rax=TdCallLeaf.SYS_RD, r15=7))[0].r15 == 7
        assert len(channel.shared_memory) == 8192
        channel.shared_memory[4096:4100] = b"seen"
        assert host.memory.read_bytes()[4096:4100] == b"seen"
    host.join()


def test_connecting_waits_for_a_host_that_is_not_there_yet(tmp_path):
    directory = tmp_path / "channel"
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 1:
            directory.mkdir()
        if len(pauses) == 2:
            Host(directory)

    with contextlib.closing(connect_channel(directory, Deadlines(), pause=pause)):
        assert len(pauses) == 2


def test_connecting_survives_the_socket_of_a_host_that_has_gone(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
        stale.bind(str(tmp_path / "vmcall.sock"))

    def pause(_):
        (tmp_path / "vmcall.sock").unlink()
        Host(tmp_path)

    connect_channel(tmp_path, Deadlines(), pause=pause).close()


def test_connecting_gives_up_at_the_deadline(tmp_path):
    clock = [0.0]

    def pause(_):
        clock[0] += 1

    with pytest.raises(VmmInternalError) as caught:
        connect_channel(tmp_path, Deadlines(call=3), monotonic=lambda: clock[0], pause=pause)
    assert caught.value.kind is failures.CHANNEL_LOST
    assert clock[0] == 3


def test_connecting_may_be_given_more_patience_than_a_call(tmp_path):
    clock = [0.0]

    def pause(_):
        clock[0] += 1
        if clock[0] == 5:
            Host(tmp_path)

    deadlines = Deadlines(call=3)
    connect_channel(tmp_path, deadlines, connect_timeout=9, monotonic=lambda: clock[0], pause=pause).close()
    assert clock[0] == 5


def test_a_path_that_is_too_long_is_a_typed_error(tmp_path):
    with pytest.raises(VmmInternalError) as caught:
        connect_channel(tmp_path / ("x" * 120), Deadlines())
    assert caught.value.kind is failures.CHANNEL_LOST


@pytest.mark.parametrize("size", [0, 4097])
def test_shared_memory_of_an_impossible_size_is_refused(tmp_path, size):
    host = Host(tmp_path, memory_size=size)
    with pytest.raises(VmmInternalError) as caught:
        connect_channel(tmp_path, Deadlines())
    assert caught.value.kind is failures.CHANNEL_MALFORMED
    host.join()


def test_a_host_without_shared_memory_is_refused(tmp_path):
    host = Host(tmp_path)
    host.memory = tmp_path / "elsewhere"
    with pytest.raises(VmmInternalError) as caught:
        connect_channel(tmp_path, Deadlines())
    assert caught.value.kind is failures.CHANNEL_LOST
    host.join()
