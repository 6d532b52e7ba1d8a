# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Between frames and guests bytes may be cut and joined anywhere: nobody sees a difference (design.md, I5)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import chain, cycle

from hypothesis import given, settings
from hypothesis import strategies as st

from migtd.checks import Check
from migtd.errors import InvalidParameter, MigrationResult
from migtd.guest.abi import PAGE_SIZE
from migtd.guest.ghci import HEADER, MAX_SEND
from migtd.migration.data import EXCHANGE_SIZE, pull_exchange_information, push_exchange_information
from migtd.observer import Phase
from migtd.testing_loop import run_in_virtual_time
from vmm_stub.testing_hostile import GuestCall, ScriptedHost
from vmm_stub.testing_pair import N, migrate, scripted_pair
from vmm_stub.vmm.delivery import RECEIVE_BOUND, Delivery
from vmm_stub.vmm.guest_buffer import STATUS_PEER_GONE, GuestBuffer, GuestMemory
from vmm_stub.vmm.wire import FrameDecoder, push_frame

SUCCESS = MigrationResult.Success
SIZES = st.builds(
    lambda sizes, large: [*sizes, large],
    st.lists(st.one_of(st.integers(1, 6), st.integers(1, 3000)), max_size=12),
    st.one_of(st.integers(200, 3000), st.just(MAX_SEND)),
)


# --- from a guest to its peer ---------------------------------------------------------------------------------------
def cutting(host: ScriptedHost, sizes: list[int]) -> None:
    """Let what the guest sends reach its peer in portions of these sizes, again and again."""
    turn: Iterator[int] = cycle(sizes)
    waiting = b""

    def deliver(call: GuestCall) -> int:
        nonlocal waiting
        payload = call.payload()
        host.sent[call.request_id] += payload
        waiting += payload
        assert host.peer is not None
        while waiting:
            size = next(turn)
            host.peer.feed(call.request_id, waiting[:size])
            waiting = waiting[size:]
        call.answer()
        return 0

    host.on_send = deliver


History = tuple[list[Phase], list[Check], list[str]]


async def histories(to_destination: list[int], to_source: list[int]) -> tuple[History, History]:
    async with scripted_pair() as (here, there):
        cutting(here.host, to_destination)
        cutting(there.host, to_source)
        assert await migrate(here, there) == (SUCCESS, SUCCESS)
        for side, other in ((here, there), (there, here)):
            assert side.host.tdcs().dec_key_fingerprint == other.host.tdcs().enc_key_fingerprint
            side.expect_one_report_for_each_accepted_request()
            await side.at_rest()
        first, second = (
            (side.observer.phases[N], side.observer.checks[N], side.observer.notes[N]) for side in (here, there)
        )
        return first, second


UNCUT = run_in_virtual_time(histories([MAX_SEND], [MAX_SEND]))


@settings(max_examples=30, deadline=None)
@given(SIZES, SIZES)
def test_a_migration_gives_the_same_events_however_its_hosts_cut_the_stream(
    to_destination: list[int], to_source: list[int]
) -> None:
    assert run_in_virtual_time(histories(to_destination, to_source)) == UNCUT


# --- from the wire to a guest ---------------------------------------------------------------------------------------
class Wire:
    """An outlet; `paused` as the link sees it."""

    paused = False

    def send(self, payload: bytes) -> bool:
        return bool(payload)

    def resume_reading(self) -> None:
        self.paused = False


PAGES = 18


@settings(deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=5000), max_size=8),
    st.lists(st.integers(1, 400), max_size=10),
    st.lists(st.one_of(st.integers(1, 100), st.integers(1, MAX_SEND)), min_size=1, max_size=6),
    st.integers(0, 3),
)
def test_a_guest_gets_the_bytes_of_the_frames_in_order_then_the_end(
    payloads: list[bytes], cuts: list[int], capacities: list[int], held: int
) -> None:
    """The stream comes in portions of any size, the guest asks with buffers of any size, before or after."""
    stream = b"".join(map(push_frame, payloads))
    memory = GuestMemory(memoryview(bytearray(PAGES * PAGE_SIZE)))
    decoder, delivery, wire = FrameDecoder(), Delivery(), Wire()
    delivery.open(wire)
    got, ends, room = b"", 0, cycle(capacities)

    def ask() -> None:
        nonlocal got, ends
        buffer = GuestBuffer(memory, 0, HEADER.size + next(room), 0, lambda _: None)
        memory.write(0, bytes(HEADER.size))
        delivery.post_receive(buffer)
        pending.append(buffer)
        look()

    def look() -> None:
        nonlocal got, ends
        status, length = HEADER.unpack(memory.read(0, HEADER.size))
        if pending and status:
            pending.clear()
            got += memory.read(HEADER.size, length)
            ends += status == STATUS_PEER_GONE
            assert (status == STATUS_PEER_GONE) is (length == 0)

    pending: list[GuestBuffer] = []
    for number, size in enumerate(chain(cuts, cycle([1000]))):
        if not stream:
            break
        decoder.receive_data(stream[:size])
        stream = stream[size:]
        while (frame := decoder.next_frame()) is not None:
            delivery.received(frame)
            look()
        if number >= held and not pending:
            ask()
    decoder.end()
    delivery.peer_gone()
    look()
    while not ends:
        ask()
    assert got == b"".join(payloads)
    ask()
    assert ends == 2


@given(st.lists(st.integers(1, MAX_SEND), max_size=30))
def test_a_delivery_is_full_from_its_bound_on_and_takes_more_once_it_was_emptied(sizes: list[int]) -> None:
    memory = GuestMemory(memoryview(bytearray(PAGES * PAGE_SIZE)))
    delivery, wire = Delivery(), Wire()
    delivery.open(wire)
    held = 0
    for size in sizes:
        delivery.received(bytes(size))
        held += size
        assert delivery.full is (held >= RECEIVE_BOUND)
    wire.paused = delivery.full
    while held:
        delivery.post_receive(GuestBuffer(memory, 0, HEADER.size + MAX_SEND, 0, lambda _: None))
        held -= min(held, MAX_SEND)
        assert delivery.full is wire.paused is (held >= RECEIVE_BOUND)


# --- the 40 bytes ---------------------------------------------------------------------------------------------------
@given(st.one_of(st.binary(min_size=40, max_size=40), st.binary(min_size=36, max_size=36).map(lambda b: b + bytes(4))))
def test_any_forty_bytes_are_exchange_information_or_the_typed_error(data: bytes) -> None:
    assert len(data) == EXCHANGE_SIZE
    try:
        information = pull_exchange_information(data)
    except InvalidParameter as error:
        assert error.kind.id == "MIGTD-EXCHANGE-RESERVED"  # noqa: PT017 - information is as good as an error here
        assert data[36:] != bytes(4)
    else:
        assert push_exchange_information(information) == data
        assert struct.unpack("<HH", data[32:36]) == (information.min_version, information.max_version)
        assert data[:32].hex() not in repr(information)
