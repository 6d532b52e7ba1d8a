# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The exchange before a session with policy v2, spdm.md 3.3."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from migtd import failures
from migtd.deadlines import Deadlines
from migtd.errors import InvalidParameter, MigTDError, NetworkError, VmmCanceled
from migtd.migration.driver import run_pre_session
from migtd.migration.pre_session import (
    MAX_PEER_DATA,
    PeerData,
    PreSession,
    PreSessionResult,
    ProtocolVersions,
    pull_peer_data,
    push_peer_data,
)
from migtd.ratls.certificate import peer_data_hash
from migtd.testing import ScriptedServices
from migtd.testing_loop import run_in_virtual_time
from vmm_stub.testing import FAST
from vmm_stub.testing_live import Play, live_side
from vmm_stub.testing_peer import WirePeer
from vmm_stub.testing_rebinding import with_policy_v2
from vmm_stub.vmm.control.models import Role

N = 1
BLOB = push_peer_data(PeerData(b"policy", b"chain"))
HELLO = bytes.fromhex("ff00000008000000 4d475444 0001 0001".replace(" ", ""))
PEER_DATA = bytes.fromhex("01000000 13000000".replace(" ", "")) + BLOB
START = bytes.fromhex("0200000000000000")
WHOLE = HELLO + PEER_DATA + START


def everything(side: PreSession) -> list[bytes]:
    portions = []
    while portion := side.data_to_send():
        portions.append(portion)
    return portions


def test_the_blob_is_the_known_answer():
    assert BLOB.hex() == "06000000706f6c69637905000000636861696e"
    assert peer_data_hash(BLOB).hex() == (
        "be70d83ca75a3180448703bdd8d2811674f18e761982374ad829d0363425ba14b5795d10120112f45d11871053f9c630"
    )
    assert pull_peer_data(BLOB) == PeerData(b"policy", b"chain")


def test_each_step_is_sent_before_the_peers_is_awaited_a_header_and_a_payload_at_a_time():
    side = PreSession(BLOB)

    assert everything(side) == [HELLO[:8], HELLO[8:]]
    side.receive_data(HELLO)
    assert everything(side) == [PEER_DATA[:8], BLOB]
    side.receive_data(PEER_DATA)
    assert everything(side) == [START]
    before = side.result
    side.receive_data(START)

    assert (before, side.result) == (None, PreSessionResult(0x0100, BLOB, b""))
    assert everything(side) == []


def test_what_comes_behind_start_belongs_to_the_session():
    side = PreSession(BLOB)
    side.receive_data(WHOLE + b"\x16\x03\x01")

    assert side.result is not None
    assert side.result.rest == b"\x16\x03\x01"
    assert b"".join(everything(side)) == WHOLE


@pytest.mark.parametrize(
    ("ours", "theirs", "chosen"),
    [((1, 1), (1, 1), 1), ((1, 5), (2, 3), 3), ((2, 3), (1, 9), 3), ((1, 2), (2, 9), 2), ((4, 4), (0, 0xFFFF), 4)],
)
def test_the_version_is_the_smaller_of_the_highest(ours: tuple[int, int], theirs: tuple[int, int], chosen: int):
    side = PreSession(BLOB, versions=ProtocolVersions(*ours))
    side.receive_data(hello(*theirs) + PEER_DATA + START)

    assert side.result is not None
    assert side.result.version == chosen


@pytest.mark.parametrize(("ours", "theirs"), [((1, 1), (2, 3)), ((5, 6), (1, 4)), ((1, 9), (7, 3)), ((3, 2), (1, 9))])
def test_versions_that_have_nothing_in_common_are_refused(ours: tuple[int, int], theirs: tuple[int, int]):
    side = PreSession(BLOB, versions=ProtocolVersions(*ours))
    with pytest.raises(InvalidParameter) as refused:
        side.receive_data(hello(*theirs))
    assert refused.value.kind is failures.PRE_SESSION_VERSION


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"\x16\x03\x01\x00\x05" + bytes(5), id="tls at once"),
        pytest.param(b"\xfe" + HELLO[1:], id="hello: type"),
        pytest.param(HELLO[:3] + b"\x01" + HELLO[4:], id="hello: reserved"),
        pytest.param(HELLO[:4] + b"\x09\0\0\0" + HELLO[8:] + b"\0", id="hello: longer"),
        pytest.param(HELLO[:4] + b"\xff\xff\xff\xff", id="hello: huge"),
        pytest.param(HELLO[:4] + b"\0\0\0\0", id="hello: empty"),
        pytest.param(HELLO[:8] + b"MGTE" + HELLO[12:], id="hello: magic"),
        pytest.param(PEER_DATA, id="peer data first"),
        pytest.param(HELLO + HELLO, id="hello twice"),
        pytest.param(HELLO + START, id="start without peer data"),
        pytest.param(HELLO + PEER_DATA[:1] + b"\x01" + PEER_DATA[2:], id="peer data: reserved"),
        pytest.param(HELLO + b"\x01\0\0\0\0\0\0\0", id="peer data: empty"),
        pytest.param(HELLO + PEER_DATA + PEER_DATA, id="peer data twice"),
        pytest.param(HELLO + PEER_DATA + b"\x02\0\0\0\x01\0\0\0\0", id="start: payload"),
        pytest.param(HELLO + PEER_DATA + b"\x02\0\x01\0\0\0\0\0", id="start: reserved"),
    ],
)
def test_what_breaks_the_layout_is_refused(stream: bytes):
    side = PreSession(BLOB)
    with pytest.raises(InvalidParameter) as refused:
        side.receive_data(stream)
    assert refused.value.kind is failures.PRE_SESSION_MALFORMED


@pytest.mark.parametrize(
    "blob",
    [
        pytest.param(b"\x06\0\0", id="cut in the first length"),
        pytest.param(push_peer_data(PeerData(b"", b"chain")), id="no policy"),
        pytest.param(push_peer_data(PeerData(b"policy", b"")), id="no chain"),
        pytest.param(BLOB[:-1], id="cut in the chain"),
        pytest.param(BLOB + b"\0", id="a byte too many"),
        pytest.param(b"\xff\xff\xff\xff" + BLOB[4:], id="policy length"),
        pytest.param(BLOB[:10] + b"\xff\xff\xff\xff" + BLOB[14:], id="chain length"),
    ],
)
def test_a_malformed_blob_is_refused(blob: bytes):
    side = PreSession(BLOB)
    with pytest.raises(InvalidParameter) as refused:
        side.receive_data(HELLO + b"\x01\0\0\0" + len(blob).to_bytes(4, "little") + blob)
    assert refused.value.kind is failures.PRE_SESSION_MALFORMED


@pytest.mark.parametrize("length", [MAX_PEER_DATA + 1, 0xFFFFFFFF])
def test_peer_data_beyond_the_cap_is_refused_by_its_header_alone(length: int):
    side = PreSession(BLOB)
    with pytest.raises(InvalidParameter) as refused:
        side.receive_data(HELLO + b"\x01\0\0\0" + length.to_bytes(4, "little"))
    assert refused.value.kind is failures.PEER_DATA_TOO_LARGE


def test_peer_data_of_exactly_the_cap_is_taken():
    blob = push_peer_data(PeerData(b"p" * 90, b"c" * 2))
    side = PreSession(BLOB, max_peer_data=len(blob))
    side.receive_data(HELLO + b"\x01\0\0\0" + len(blob).to_bytes(4, "little") + blob + START)

    assert side.result is not None
    assert side.result.remote == blob


@pytest.mark.parametrize("end", range(len(WHOLE)))
def test_an_end_before_start_is_a_network_error(end: int):
    side = PreSession(BLOB)
    if end:
        side.receive_data(WHOLE[:end])
    with pytest.raises(NetworkError) as ended:
        side.receive_data(b"")
    assert ended.value.kind is failures.TRANSPORT_ENDED


# --- driven --------------------------------------------------------------------------------------------------------
def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run_in_virtual_time(main())


async def meet(services: ScriptedServices, blob: bytes = BLOB) -> PreSessionResult:
    return await run_pre_session(PreSession(blob), services, N, deadlines=Deadlines())


def test_two_sides_swap_their_blobs():
    async def main() -> None:
        here, there = ScriptedServices(), ScriptedServices()
        here.connect(there, N)
        other = push_peer_data(PeerData(b"another policy", b"another chain"))
        ours, theirs = await asyncio.gather(meet(here), meet(there, other))
        assert (ours.remote, theirs.remote) == (other, BLOB)
        assert bytes(here.sent[N]) == WHOLE

    run(main)


@pytest.mark.parametrize("script", [b"", WHOLE[:-1], HELLO[:5]])
def test_a_peer_that_falls_silent_runs_into_the_deadline(script: bytes):
    async def main() -> None:
        services = ScriptedServices()
        if script:
            services.feed(N, script)
        with pytest.raises(NetworkError) as ended:
            await meet(services)
        assert ended.value.kind is failures.DEADLINE_PRE_SESSION
        assert asyncio.get_running_loop().time() == Deadlines().pre_session

    run(main)


def test_a_refusal_is_told_at_once():
    async def main() -> None:
        services = ScriptedServices()
        services.feed(N, b"GET / HTTP/1.1\r\n")
        with pytest.raises(InvalidParameter):
            await meet(services)
        assert asyncio.get_running_loop().time() == 0

    run(main)


@pytest.mark.parametrize("error", [VmmCanceled(failures.CANCELED), NetworkError(failures.TRANSPORT_ENDED)])
def test_what_a_send_fails_with_ends_the_exchange_though_the_peer_is_silent(error: MigTDError):
    async def main() -> None:
        services = ScriptedServices()
        services.fail_sends(N, error)
        with pytest.raises(type(error)):
            await meet(services)
        assert asyncio.get_running_loop().time() == 0

    run(main)


class NarrowPipe:
    """A transport whose Send ends only when the peer has received: as when every buffer between the two is full."""

    def __init__(self) -> None:
        self.peer: NarrowPipe | None = None
        self._arrived: asyncio.Queue[tuple[bytes, asyncio.Event]] = asyncio.Queue()

    async def send(self, request_id: int, data: bytes) -> None:
        assert self.peer is not None
        assert request_id == N
        taken = asyncio.Event()
        await self.peer._arrived.put((data, taken))
        await taken.wait()

    async def receive(self, request_id: int) -> bytes:
        assert request_id == N
        data, taken = await self._arrived.get()
        taken.set()
        return data


def test_neither_side_waits_for_the_other_to_listen_first():
    async def main() -> None:
        here, there = NarrowPipe(), NarrowPipe()
        here.peer, there.peer = there, here
        results = await asyncio.gather(
            *(run_pre_session(PreSession(BLOB), pipe, N, deadlines=Deadlines()) for pipe in (here, there))
        )
        assert [result.remote for result in results] == [BLOB, BLOB]

    run(main)


def hello(lowest: int, highest: int) -> bytes:
    return HELLO[:12] + lowest.to_bytes(2, "little") + highest.to_bytes(2, "little")


# --- over a real wire, against a real MigTD ---------------------------------------------------------------------------
QUICK = replace(FAST, pre_session=0.5)


def frames(*portions: bytes, then: Callable[[WirePeer], Awaitable[None]] | None = None) -> Play:
    """A peer that sends these, then does something else or listens until this side ends."""

    async def play(peer: WirePeer) -> None:
        for portion in portions:
            await peer.send_frames(portion)
        if then is None:
            await peer.until_end()
        else:
            await then(peer)

    return play


async def end(peer: WirePeer) -> None:
    peer.end()
    await peer.until_end()


HOSTILE = {
    "another protocol": (frames(b"\x16\x03\x01\x02\x00" + bytes(512)), 1, "MIGTD-PRE-SESSION-MALFORMED"),
    "huge hello": (frames(b"\xff\0\0\0\xff\xff\xff\xff"), 1, "MIGTD-PRE-SESSION-MALFORMED"),
    "huge peer data": (frames(HELLO, b"\x01\0\0\0\xff\xff\xff\xff"), 1, "MIGTD-PEER-DATA-TOO-LARGE"),
    "version": (frames(HELLO[:12] + b"\x05\0\x06\0"), 1, "MIGTD-PRE-SESSION-VERSION"),
    "end after hello": (frames(HELLO, then=end), 5, "MIGTD-TRANSPORT-ENDED"),
    "end at once": (frames(then=end), 5, "MIGTD-TRANSPORT-ENDED"),
    "silence": (frames(), 5, "MIGTD-DEADLINE-PRE-SESSION"),
    "silence inside peer data": (frames(HELLO, PEER_DATA[:-1]), 5, "MIGTD-DEADLINE-PRE-SESSION"),
    "silence behind start": (frames(WHOLE, then=end), 5, "MIGTD-TRANSPORT-ENDED"),
    "start, then no tls": (frames(WHOLE, b"GET / HTTP/1.1\r\n\r\n"), 6, "MIGTD-TLS-PROTOCOL"),
}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("play", "code", "identity"), HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_hostile_peer_gets_no_key_and_the_migtd_serves_on(role: Role, play: Play, code: int, identity: str):
    async with live_side(role, QUICK, platform=with_policy_v2()) as side:
        outcome = await side.meet(play)

        assert outcome.error is not None
        assert (outcome.code, outcome.error.id) == (code, identity)
        side.expect_one_report()
        side.expect_key(written=False)
        await side.expect_nothing_left()
        await side.still_serves()
