# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The wire over real TCP: set-up, bounds, and how a stream ends."""

import asyncio
import socket
import tracemalloc

import pytest

from vmm_stub.vmm.delivery import RECEIVE_BOUND, Delivery
from vmm_stub.vmm.link import READ_PER_TURN, Link
from vmm_stub.vmm.wire import MAX_FRAME, WireError, push_frame
from vmm_stub.vmm.wire_setup import connect, listen


class Seen:
    """A link observer."""

    def __init__(self):
        self.sent, self.received, self.ends = [], [], []
        self.over = asyncio.Event()

    def frame_sent(self, payload):
        self.sent.append(payload)

    def frame_received(self, payload):
        self.received.append(payload)

    def wire_ended(self, error):
        self.ends.append(error and error.kind.id)
        self.over.set()


@pytest.fixture
async def end():
    """A link and the plain peer of its connection: (link, delivery, seen, reader, writer)."""
    listener = await listen("127.0.0.1", 0)
    delivery, seen = Delivery(), Seen()
    accepting = asyncio.create_task(listener.accept(lambda: Link(delivery, seen), 5))
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    link = await accepting
    yield link, delivery, seen, reader, writer
    writer.close()
    link.close()
    await link.closed()


async def test_nagle_is_off():
    listener = await listen("127.0.0.1", 0)
    links = []

    def make_link():
        links.append(Link(Delivery(), Seen()))
        return links[-1]

    await asyncio.gather(listener.accept(make_link, 5), connect(("127.0.0.1", listener.port), make_link, 5))
    for link in links:
        assert link._transport is not None
        found = link._transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert found == 1
        link.close()
        await link.closed()


async def test_what_was_sent_before_the_end_arrives_then_the_stream_ends(end):
    link, _, _, reader, writer = end
    for number in range(50):
        link.send(bytes([number]) * MAX_FRAME)
    link.finish()
    data = await reader.read()
    assert data == b"".join(push_frame(bytes([number]) * MAX_FRAME) for number in range(50))
    writer.close()
    await link.closed()


async def test_a_finished_link_reads_on_so_that_the_peer_loses_nothing(end):
    link, _, seen, reader, writer = end
    link.send(b"alert")
    link.finish()
    writer.write(push_frame(b"crossed on the way"))
    assert await reader.read() == push_frame(b"alert")
    writer.close()
    await link.closed()
    assert seen.received == []
    assert seen.ends == []


async def test_the_end_of_the_peer_is_seen_once(end):
    _, _, seen, _, writer = end
    writer.write(push_frame(b"x"))
    writer.close()
    await seen.over.wait()
    assert seen.received == [b"x"]
    assert seen.ends == [None]


async def test_a_reset_is_told_apart_from_an_end(end):
    _, _, seen, _, writer = end
    plain = writer.get_extra_info("socket")
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()
    await seen.over.wait()
    assert seen.ends == ["VMM-WIRE-LOST"]


async def test_a_truncated_stream_is_told_apart_from_an_end(end):
    _, _, seen, _, writer = end
    writer.write(b"\5\0\0\0ab")
    writer.write_eof()
    await seen.over.wait()
    assert seen.ends == ["VMM-WIRE-TRUNCATED"]


async def test_memory_for_a_guest_that_does_not_receive_is_bounded(end):
    _, delivery, seen, _, writer = end
    frame = push_frame(bytes(MAX_FRAME))

    async def flood():
        for _ in range(400):
            writer.write(frame)
            await writer.drain()

    flooding = asyncio.create_task(flood())
    await asyncio.wait({flooding}, timeout=0.2)
    assert not flooding.done()
    assert delivery.full
    # one turn of the event loop may bring 256 KiB more
    assert len(seen.received) * MAX_FRAME <= RECEIVE_BOUND + (256 << 10) + MAX_FRAME
    flooding.cancel()


async def test_a_port_in_use_has_an_id_of_its_own():
    first = await listen("127.0.0.1", 0)
    with pytest.raises(WireError) as refused:
        await listen("127.0.0.1", first.port)
    assert refused.value.kind.id == "VMM-WIRE-PORT-IN-USE"
    first.close()


@pytest.mark.parametrize("address", ["192.0.2.1", "no such name"])
async def test_an_address_that_is_not_ours_has_an_id_of_its_own(address):
    with pytest.raises(WireError) as refused:
        await listen(address, 0)
    assert refused.value.kind.id == "VMM-WIRE-LISTEN"


async def test_a_destination_gives_up_after_its_deadline_and_frees_the_port():
    listener = await listen("127.0.0.1", 0)
    with pytest.raises(WireError) as gave_up:
        await listener.accept(lambda: Link(Delivery(), Seen()), 0.01)
    assert gave_up.value.kind.id == "VMM-WIRE-CONNECT"
    (await listen("127.0.0.1", listener.port)).close()


async def test_a_source_gives_up_after_its_deadline():
    with pytest.raises(WireError) as gave_up:
        await connect(("127.0.0.1", 1), lambda: Link(Delivery(), Seen()), 0.05)
    assert gave_up.value.kind.id == "VMM-WIRE-CONNECT"
    assert "127.0.0.1:1" in gave_up.value.detail


async def test_what_came_before_a_reset_is_delivered_though_a_send_found_out_first():
    listener = await listen("127.0.0.1", 0)
    delivery, seen = Delivery(), Seen()
    accepting = asyncio.create_task(listener.accept(lambda: Link(delivery, seen), 5))
    with socket.socket() as peer:
        peer.settimeout(0)
        await asyncio.get_running_loop().sock_connect(peer, ("127.0.0.1", listener.port))
        link = await accepting
        peer.send(push_frame(b"alert"))
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    # The link has had no turn to read since.
    link.send(b"x")
    link.send(b"y")
    await seen.over.wait()
    await link.closed()
    assert (seen.received, seen.ends) == ([b"alert"], ["VMM-WIRE-LOST"])


@pytest.mark.parametrize("name", ["x" * 64, "a..b"])
async def test_a_name_that_can_be_none_is_a_typed_error(name):
    with pytest.raises(WireError) as refused:
        await listen(name, 0)
    assert refused.value.kind.id == "VMM-WIRE-LISTEN"
    with pytest.raises(WireError) as gave_up:
        await connect((name, 1), lambda: Link(Delivery(), Seen()), 0.02)
    assert gave_up.value.kind.id == "VMM-WIRE-CONNECT"


async def test_a_flood_of_the_smallest_frames_leaves_others_their_turn(end):
    _, _, seen, _, writer = end
    count = 20_000
    writer.write(push_frame(b"x") * count)
    before, most = 0, 0
    while len(seen.received) < count:
        await asyncio.sleep(0)
        most = max(most, len(seen.received) - before)
        before = len(seen.received)
    assert most <= READ_PER_TURN // len(push_frame(b"x")) + 1


async def test_a_break_behind_a_flood_brings_no_more_than_the_bound_at_once():
    """Where a Send finds out that the connection broke, what the kernel still has is taken in one go."""
    listener = await listen("127.0.0.1", 0)
    seen = Seen()
    accepting = asyncio.create_task(listener.accept(lambda: Link(Delivery(), seen), 5))
    with socket.socket() as peer:
        peer.settimeout(0)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        await asyncio.get_running_loop().sock_connect(peer, ("127.0.0.1", listener.port))
        link = await accepting
        assert link._transport is not None
        link._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        flood = push_frame(bytes(1000)) * 2000
        while flood:
            try:
                flood = flood[peer.send(flood) :]
            except BlockingIOError:
                break
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    link.send(b"x")
    link.send(b"y")
    await seen.over.wait()
    await link.closed()
    assert seen.ends == ["VMM-WIRE-LOST"]
    assert sum(map(len, seen.received)) <= RECEIVE_BOUND + READ_PER_TURN


async def broken_off_inside_a_frame():
    """A link whose peer left so."""
    listener = await listen("127.0.0.1", 0)
    seen = Seen()
    accepting = asyncio.create_task(listener.accept(lambda: Link(Delivery(), seen), 5))
    _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    link = await accepting
    writer.write(push_frame(bytes(MAX_FRAME))[:-1])
    writer.close()
    await seen.over.wait()
    link.close()
    await link.closed()
    return link


async def test_links_that_ended_inside_a_frame_hold_no_memory():
    """A host remembers many ended migrations."""
    count = 40
    tracemalloc.start()
    try:
        links = [await broken_off_inside_a_frame() for _ in range(count)]
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(links) == count
    assert held < count * 8192
