# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A wire that cuts, joins, changes, repeats and adds between two honest sides, over TCP (ghci-ratls.md 4).

In every case each side makes one report, has a key only if it reported Success, and leaves nothing behind.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import pytest

from migtd.deadlines import Deadlines
from vmm_stub.testing_relay import TO_DESTINATION, TO_SOURCE, Tamper, WireCut, migrated_over
from vmm_stub.vmm.wire import MAX_FRAME, FrameDecoder, push_frame

BOTH_WAYS = pytest.mark.parametrize("way", [TO_DESTINATION, TO_SOURCE], ids=["to-destination", "to-source"])
SUCCESS, NETWORK, SECURE = "Success", "NetworkError", "SecureSessionError"
SHORT = Deadlines().with_all(0.4)
SPREAD = 8
"""Bytes by which two runs may differ: the encodings of two signatures."""


def untouched(_way: int, data: bytes) -> bytes:
    return data


async def length_of(way: int) -> int:
    """Bytes of one direction of a migration, of the shortest there may be."""
    async with migrated_over(untouched) as migration:
        assert migration.results == (SUCCESS, SUCCESS)
        return migration.relay.passed[way] - SPREAD


# --- cut ------------------------------------------------------------------------------------------------------------
def cut_behind(direction: int, limit: int) -> Tamper:
    left = limit

    def tamper(way: int, data: bytes) -> bytes:
        nonlocal left
        if way == direction:
            if len(data) >= left:
                raise WireCut(data[:left])
            left -= len(data)
        return data

    return tamper


@BOTH_WAYS
async def test_a_wire_that_is_cut_anywhere_leaves_a_key_only_where_success_was_said(way: int) -> None:
    total = await length_of(way)
    seen = set()
    # The last bytes carry the keys.
    for limit in [1, 3, 4, 5, *range(50, total - 120, 211), *range(total - 120, total + 1, 10)]:
        async with migrated_over(cut_behind(way, limit)) as migration:
            assert set(migration.results) <= {SUCCESS, NETWORK}
            migration.expect_keys_where_success_was_said()
            seen.add(migration.results)
    assert (NETWORK, NETWORK) in seen
    assert (SUCCESS, SUCCESS) not in seen


# --- cut and joined anew --------------------------------------------------------------------------------------------
def reframed(sizes: Iterable[int]) -> Tamper:
    """Payloads of these sizes, in turn, whatever the frames were; the rest of what came at once is one frame."""
    decoders = FrameDecoder(), FrameDecoder()
    endless = [list(sizes), list(sizes)]

    def tamper(way: int, data: bytes) -> bytes:
        decoders[way].receive_data(data)
        payload = b""
        while (frame := decoders[way].next_frame()) is not None:
            payload += frame
        frames = []
        while payload:
            size = endless[way].pop(0) if endless[way] else MAX_FRAME
            frames.append(push_frame(payload[:size]))
            payload = payload[size:]
        return b"".join(frames)

    return tamper


@pytest.mark.parametrize(
    "sizes", [[1] * 4000, [5, 1, 7] * 500, [500, 1, 1, 1], [], [MAX_FRAME]], ids=["1", "5-1-7", "500-1", "all", "most"]
)
async def test_frames_of_any_size_carry_a_migration(sizes: list[int]) -> None:
    async with migrated_over(reframed(sizes)) as migration:
        assert migration.results == (SUCCESS, SUCCESS)
        migration.expect_keys_where_success_was_said()


# --- added ----------------------------------------------------------------------------------------------------------
def first(direction: int, extra: bytes) -> Tamper:
    """Bytes before all others of a direction."""
    said = False

    def tamper(way: int, data: bytes) -> bytes:
        nonlocal said
        if way == direction and not said:
            said = True
            return extra + data
        return data

    return tamper


@BOTH_WAYS
@pytest.mark.parametrize("length", [0, MAX_FRAME + 1, (1 << 32) - 1])
async def test_a_frame_of_impossible_length_is_a_network_error_on_both_sides(way: int, length: int) -> None:
    async with migrated_over(first(way, struct.pack("<I", length))) as migration:
        assert migration.results == (NETWORK, NETWORK)
        migration.expect_keys_where_success_was_said()
        receiver = migration.there if way == TO_DESTINATION else migration.here
        assert any("VMM-WIRE-FRAME-LENGTH" in line for line in receiver.trace)


@BOTH_WAYS
@pytest.mark.parametrize("garbage", [b"\0", b"GET / HTTP/1.1\r\n\r\n"])
async def test_garbage_in_front_is_refused_by_who_gets_it_without_an_alert(way: int, garbage: bytes) -> None:
    """What speaks no TLS is told nothing in TLS, so the other side only sees the end of the stream."""
    async with migrated_over(first(way, push_frame(garbage))) as migration:
        assert migration.results == ((NETWORK, SECURE) if way == TO_DESTINATION else (SECURE, NETWORK))
        migration.expect_keys_where_success_was_said()


@pytest.mark.parametrize(
    ("way", "results"), [(TO_DESTINATION, (SECURE, SECURE)), (TO_SOURCE, (SECURE, NETWORK))],
    ids=["to-destination", "to-source"],
)  # fmt: skip
async def test_an_alert_that_somebody_on_the_wire_made_up_ends_both_sides(way: int, results: tuple[str, str]) -> None:
    """A server that waits for a hello answers it with an alert of its own, a client believes it."""
    async with migrated_over(first(way, push_frame(b"\x15\x03\x03\0\x02\x02\x28"))) as migration:
        assert migration.results == results
        migration.expect_keys_where_success_was_said()


# --- repeated, left out, changed ------------------------------------------------------------------------------------
def records(direction: int, index: int, times: int) -> Tamper:
    """Let the TLS record with this index pass so many times."""
    decoder = FrameDecoder()
    held = b""
    count = 0

    def tamper(way: int, data: bytes) -> bytes:
        nonlocal held, count
        if way != direction:
            return data
        decoder.receive_data(data)
        while (frame := decoder.next_frame()) is not None:
            held += frame
        out = b""
        while len(held) >= 5 and len(held) >= (size := 5 + int.from_bytes(held[3:5])):
            out += held[:size] * (times if count == index else 1)
            held = held[size:]
            count += 1
        return push_frame(out) if out else b""

    return tamper


@BOTH_WAYS
@pytest.mark.parametrize("index", [0, 2, 3])
@pytest.mark.parametrize("times", [0, 2], ids=["left-out", "twice"])
async def test_a_record_left_out_or_repeated_is_refused_on_both_sides(way: int, index: int, times: int) -> None:
    """Records of the handshake: 0 is a hello, 1 the ChangeCipherSpec that means nothing in TLS 1.3."""
    unanswered = (way, index, times) == (TO_DESTINATION, 0, 0)
    limits = Deadlines().with_all(0.3 if unanswered else 2)
    async with migrated_over(records(way, index, times), limits) as migration:
        assert migration.results == ((NETWORK, NETWORK) if unanswered else (SECURE, SECURE))
        migration.expect_keys_where_success_was_said()


@BOTH_WAYS
@pytest.mark.parametrize("times", [0, 2], ids=["left-out", "twice"])
async def test_a_change_cipher_spec_may_be_left_out_or_repeated(way: int, times: int) -> None:
    async with migrated_over(records(way, 1, times)) as migration:
        assert migration.results == (SUCCESS, SUCCESS)
        migration.expect_keys_where_success_was_said()


def flipped(direction: int, position: int) -> Tamper:
    at = 0

    def tamper(way: int, data: bytes) -> bytes:
        nonlocal at
        if way != direction:
            return data
        start, at = at, at + len(data)
        if not start <= position < at:
            return data
        changed = bytearray(data)
        changed[position - start] ^= 0x10
        return bytes(changed)

    return tamper


@BOTH_WAYS
async def test_a_bit_that_changes_anywhere_leaves_a_key_only_where_success_was_said(way: int) -> None:
    total = await length_of(way)
    # 0 to 3 are the length of a frame; the versions in the headers of plain records, which nobody looks at, are left.
    for position in [0, 2, 3, 4, 9, *range(20, total - 100, 251), *range(total - 100, total, 23)]:
        async with migrated_over(flipped(way, position), SHORT) as migration:
            assert set(migration.results) <= {SUCCESS, NETWORK, SECURE}
            assert migration.results != (SUCCESS, SUCCESS)
            migration.expect_keys_where_success_was_said()
