# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Peers that break the wire, over TCP against a real host and MigTD, in both roles (ghci-ratls.md 4 and 5).

Whatever they do, this side ends within its deadline in exactly one report, with neither a key nor anything else left.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest

from migtd.attestation.accept_all import AcceptAll
from migtd.choices import StartAttestation
from migtd.deadlines import Deadlines
from migtd.errors import MigrationResult
from migtd.guest.interfaces import Guest
from migtd.migration.measurement import measure_without_attestation
from vmm_stub.testing_live import LiveSide, N, Play, live_side
from vmm_stub.testing_peer import TlsPeer, WirePeer
from vmm_stub.vmm import link
from vmm_stub.vmm.control.models import Role
from vmm_stub.vmm.wire import MAX_FRAME, push_frame

BOTH_ROLES = pytest.mark.parametrize("role", list(Role), ids=lambda role: f"our-{role.value}")
NETWORK, SECURE = MigrationResult.NetworkError, MigrationResult.SecureSessionError
SHORT = Deadlines(pre_session=0.3, session=0.3, read=0.15, write=0.15, report=1, connect=1)
"""For peers of whom nothing is expected to come."""
PATIENT = Deadlines(pre_session=2, session=2, read=2, write=2, report=2, connect=2)


async def expect_end(
    role: Role,
    play: Play,
    result: MigrationResult,
    identities: set[str],
    *,
    deadlines: Deadlines = PATIENT,
    **meeting: Any,
) -> None:
    async with live_side(role, deadlines) as side:
        outcome = await side.meet(play, **meeting)
        assert (outcome.result, outcome.code) == (result.name, result)
        assert outcome.error is not None
        assert outcome.error.id in identities
        await expect_clean_refusal(side)


async def expect_clean_refusal(side: LiveSide) -> None:
    side.expect_key(written=False)
    side.expect_one_report()
    await side.expect_nothing_left()
    await side.still_serves()


def tls(wire: WirePeer, role: Role, **profile: Any) -> TlsPeer:
    """The other end of our side."""
    return TlsPeer(wire, is_client=role is Role.DESTINATION, **profile)


# --- silence -------------------------------------------------------------------------------------------------------
@BOTH_ROLES
async def test_a_peer_that_says_nothing_is_a_network_error_at_the_read_deadline(role: Role) -> None:
    await expect_end(role, WirePeer.silence, NETWORK, {"MIGTD-DEADLINE-READ"}, deadlines=SHORT)


@BOTH_ROLES
async def test_a_peer_that_stops_in_the_middle_of_a_frame_is_a_network_error_at_the_read_deadline(role: Role) -> None:
    async def play(peer: WirePeer) -> None:
        await peer.send(struct.pack("<I", 500) + b"\x16\x03\x01")
        await peer.silence()

    await expect_end(role, play, NETWORK, {"MIGTD-DEADLINE-READ"}, deadlines=SHORT)


@BOTH_ROLES
async def test_a_peer_that_stops_behind_its_first_flight_is_a_network_error_at_the_read_deadline(role: Role) -> None:
    async def play(peer: WirePeer) -> None:
        await peer.send_frames(await tls(peer, role).first_flight())
        await peer.silence()

    await expect_end(role, play, NETWORK, {"MIGTD-DEADLINE-READ"}, deadlines=SHORT)


@BOTH_ROLES
async def test_a_peer_that_drips_bytes_for_ever_is_a_network_error_at_the_session_deadline(role: Role) -> None:
    """Each byte comes within the read deadline; a byte that is not of TLS is never among them."""

    async def play(peer: WirePeer) -> None:
        flight = (await tls(peer, role).first_flight())[:-1]
        for at in range(len(flight)):
            await peer.send_frames(flight[at : at + 1])
            await asyncio.sleep(0.02)

    limits = Deadlines(session=0.3, read=0.2, write=0.2, report=1, connect=1)
    await expect_end(role, play, NETWORK, {"MIGTD-DEADLINE-SESSION"}, deadlines=limits)


@BOTH_ROLES
async def test_a_whole_migration_in_frames_of_one_byte_succeeds(role: Role) -> None:
    class Dripping(WirePeer):
        async def send_frames(self, data: bytes, size: int = MAX_FRAME) -> None:
            assert size == MAX_FRAME
            await super().send_frames(data, 1)

    async def play(peer: WirePeer) -> None:
        end = tls(Dripping(peer.connection), role)
        await end.handshake()
        await end.exchange()
        await end.until_end()

    async with live_side(role) as side:
        assert (await side.meet(play)).result == "Success"
        side.expect_key(written=True)
        side.expect_one_report()
        await side.expect_nothing_left()


# --- early ends ----------------------------------------------------------------------------------------------------
async def at_once(_peer: WirePeer, _role: Role) -> None:
    """Connected, no more."""


async def inside_a_length(peer: WirePeer, _role: Role) -> None:
    await peer.send(b"\x05\0")


async def inside_a_frame(peer: WirePeer, _role: Role) -> None:
    await peer.send(struct.pack("<I", 100) + bytes(99))


async def inside_the_first_flight(peer: WirePeer, role: Role) -> None:
    flight = await tls(peer, role).first_flight()
    await peer.send_frames(flight[: len(flight) // 2])


async def behind_the_first_flight(peer: WirePeer, role: Role) -> None:
    await peer.send_frames(await tls(peer, role).first_flight())


async def behind_our_answer(peer: WirePeer, role: Role) -> None:
    await peer.send_frames(await tls(peer, role).first_flight())
    await peer.receive()


async def behind_the_handshake(peer: WirePeer, role: Role) -> None:
    end = tls(peer, role)
    await end.handshake()
    await end.read()


async def behind_39_bytes(peer: WirePeer, role: Role) -> None:
    end = tls(peer, role)
    await end.handshake()
    await end.exchange(bytes(39))


Stage: TypeAlias = Callable[[WirePeer, Role], Awaitable[None]]
STAGES: list[Stage] = [
    at_once,
    inside_a_length,
    inside_a_frame,
    inside_the_first_flight,
    behind_the_first_flight,
    behind_our_answer,
    behind_the_handshake,
    behind_39_bytes,
]
ENDS = {"closes": WirePeer.close, "resets": WirePeer.reset}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
@BOTH_ROLES
async def test_a_peer_that_leaves_early_is_a_network_error(
    role: Role, stage: Stage, end: Callable[[WirePeer], None]
) -> None:
    async def play(peer: WirePeer) -> None:
        await stage(peer, role)
        end(peer)

    await expect_end(role, play, NETWORK, {"MIGTD-TRANSPORT-ENDED"})


@BOTH_ROLES
async def test_a_peer_that_ends_its_own_stream_only_is_a_network_error(role: Role) -> None:
    async def play(peer: WirePeer) -> None:
        peer.end()
        await peer.until_end()

    await expect_end(role, play, NETWORK, {"MIGTD-TRANSPORT-ENDED"})


# --- bytes that are none -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("length", [0, MAX_FRAME + 1, 1 << 31, (1 << 32) - 1])
@pytest.mark.parametrize("before", [b"", push_frame(b"\x16\x03\x03\x00\x50ab")], ids=["first", "second"])
@BOTH_ROLES
async def test_a_frame_of_impossible_length_is_a_network_error(role: Role, before: bytes, length: int) -> None:
    async def play(peer: WirePeer) -> None:
        await peer.send(before + struct.pack("<I", length) + bytes(1000))
        await peer.until_end()

    async with live_side(role, PATIENT) as side:
        outcome = await side.meet(play)
        assert (outcome.result, outcome.error.id if outcome.error else "") == (NETWORK.name, "MIGTD-TRANSPORT-ENDED")
        assert any("VMM-WIRE-FRAME-LENGTH" in line for line in outcome.trace)
        await expect_clean_refusal(side)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0" * 5,
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x80\x2e\x01\x00\x02" + bytes(60),
        b"\xff" * MAX_FRAME,
        b"\x17\x03\x03\xff\xff",
    ],
    ids=["zeros", "http", "sslv2", "ones", "record-too-long"],
)
@BOTH_ROLES
async def test_garbage_is_a_secure_session_error(role: Role, garbage: bytes) -> None:
    async def play(peer: WirePeer) -> None:
        await peer.send_frames(garbage)
        await peer.until_end()

    await expect_end(role, play, SECURE, {"MIGTD-TLS-PROTOCOL"})


@BOTH_ROLES
async def test_garbage_that_is_no_frame_and_a_close_in_one_go_are_a_network_error(role: Role) -> None:
    async def play(peer: WirePeer) -> None:
        await peer.send(b"\xff" * 100)

    await expect_end(role, play, NETWORK, {"MIGTD-TRANSPORT-ENDED"})


@BOTH_ROLES
async def test_a_flood_of_frames_ends_with_the_session_in_bounded_memory(role: Role) -> None:
    """Change-cipher-spec records are the one thing that TLS 1.3 takes and ignores."""
    record = push_frame(b"\x14\x03\x03\x00\x01\x01")

    async def play(peer: WirePeer) -> None:
        await peer.send_frames(await tls(peer, role).first_flight())
        while True:
            await peer.send(record * 100)

    limits = Deadlines(session=0.5, read=0.4, write=0.4, report=1, connect=1)
    async with live_side(role, limits) as side:
        outcome = await side.meet(play)
        assert outcome.result in (NETWORK.name, SECURE.name)
        await expect_clean_refusal(side)


# --- a peer that does not read -------------------------------------------------------------------------------------
def with_large_log(size: int) -> StartAttestation:
    def start(guest: Guest) -> AcceptAll:
        measure_without_attestation(guest)
        return AcceptAll(lambda: bytes(size))

    return start


@asynccontextmanager
async def clogged_side(role: Role, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LiveSide]:
    """A side whose own flight is larger than all buffers on the way, which are as small as they can be."""
    monkeypatch.setattr(link, "SEND_BOUND", 0)
    made = link.Link.connection_made

    def connection_made(self: link.Link, transport: asyncio.BaseTransport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        made(self, transport)

    monkeypatch.setattr(link.Link, "connection_made", connection_made)
    monkeypatch.setattr(link, "LINGER", 0.1)
    limits = Deadlines(session=2, read=2, write=0.2, report=1, connect=1)
    async with live_side(role, limits, attestation=with_large_log(90_000)) as side:
        yield side


@BOTH_ROLES
async def test_a_peer_that_does_not_read_is_a_network_error_at_the_write_deadline(
    role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(peer: WirePeer) -> None:
        await peer.send_frames(await tls(peer, role).first_flight())
        await peer.silence()

    async with clogged_side(role, monkeypatch) as side:
        outcome = await side.meet(play, receive_buffer=1)
        assert outcome.result == NETWORK.name
        assert outcome.error is not None
        assert outcome.error.id == "MIGTD-DEADLINE-WRITE"
        await expect_clean_refusal(side)


@BOTH_ROLES
async def test_a_peer_that_reads_slowly_gets_everything(role: Role, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(peer: WirePeer) -> None:
        end = tls(peer, role)
        await end.handshake()
        await end.exchange()

    async with clogged_side(role, monkeypatch) as side:
        assert (await side.meet(play, receive_buffer=1)).result == "Success"
        side.expect_key(written=True)
        await side.expect_nothing_left()


# --- retries -------------------------------------------------------------------------------------------------------
@BOTH_ROLES
async def test_the_same_request_id_succeeds_after_any_number_of_bad_peers(role: Role) -> None:
    async def good(peer: WirePeer) -> None:
        end = tls(peer, role)
        await end.handshake()
        await end.exchange()
        await end.until_end()

    async def leave(stage: Stage, peer: WirePeer) -> None:
        await stage(peer, role)

    async with live_side(role) as side:
        for stage in STAGES:
            outcome = await side.meet(functools.partial(leave, stage))
            assert outcome.result == NETWORK.name
        side.expect_key(written=False)
        assert (await side.meet(good)).result == "Success"
        side.expect_key(written=True)
        assert [request_id for request_id, _ in side.channel.reports].count(N) == len(STAGES) + 1
        await side.expect_nothing_left()


async def test_a_second_connection_finds_nobody_and_disturbs_nothing() -> None:
    role = Role.DESTINATION

    async def play(peer: WirePeer) -> None:
        await peer.send_frames(await tls(peer, role).first_flight())
        await peer.receive()
        with pytest.raises(ConnectionRefusedError), socket.create_connection(peer.connection.getpeername()):
            pass
        peer.close()

    await expect_end(role, play, NETWORK, {"MIGTD-TRANSPORT-ENDED"})
