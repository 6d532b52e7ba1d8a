# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Peers that are trusted and then lie or leave around the 40 bytes, over TCP (ghci-ratls.md 5)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from migtd.deadlines import Deadlines
from migtd.migration.data import ExchangeInformation, push_exchange_information
from vmm_stub.tdx_module.tdcs import key_fingerprint
from vmm_stub.testing_live import LiveSide, live_side
from vmm_stub.testing_peer import INFORMATION, TlsPeer, WirePeer
from vmm_stub.vmm.control.models import Role, SideOutcome

BOTH_ROLES = pytest.mark.parametrize("role", list(Role), ids=lambda role: f"our-{role.value}")
GOOD = push_exchange_information(INFORMATION)


def saying(*portions: bytes, role: Role, end: Callable[[WirePeer], None] | None = None) -> Callable[[WirePeer], object]:
    """A peer that behaves up to the end of the handshake, and then says this; without `end` it waits for our end."""

    async def play(wire: WirePeer) -> None:
        peer = TlsPeer(wire, is_client=role is Role.DESTINATION)
        await peer.handshake()
        for portion in portions:
            await peer.write(portion)
        if end is not None:
            end(wire)
        else:
            await peer.until_end()

    return play


async def meet(side: LiveSide, *portions: bytes, end: Callable[[WirePeer], None] | None = None) -> SideOutcome:
    return await side.meet(saying(*portions, role=side.role, end=end))  # type: ignore[arg-type]


async def expect_refusal(side: LiveSide, outcome: SideOutcome, result: str, identity: str) -> None:
    assert (outcome.result, outcome.error.id if outcome.error else "") == (result, identity)
    side.expect_key(written=False)
    side.expect_one_report()
    await side.expect_nothing_left()
    await side.still_serves()


@pytest.mark.parametrize(
    "portions",
    [
        (GOOD,),
        (GOOD[:1], GOOD[1:39], GOOD[39:]),
        tuple(GOOD[at : at + 1] for at in range(40)),
        (GOOD, GOOD),
        (GOOD + b"x",),
    ],
    ids=["whole", "three parts", "bytes", "twice", "more"],
)
@BOTH_ROLES
async def test_forty_bytes_are_taken_however_they_come(role: Role, portions: tuple[bytes, ...]) -> None:
    async with live_side(role) as side:
        assert (await meet(side, *portions)).result == "Success"
        side.expect_key(written=True)
        (target,) = side.vmm.target_tds()
        assert (target.dec_key_fingerprint, target.mig_version) == (key_fingerprint(INFORMATION.msk), 1)
        side.expect_one_report()
        await side.expect_nothing_left()


@BOTH_ROLES
async def test_a_key_of_zeros_is_taken_as_the_reference_sends_one(role: Role) -> None:
    async with live_side(role) as side:
        assert (await meet(side, push_exchange_information(ExchangeInformation(bytes(32), 1, 1)))).result == "Success"
        side.expect_key(written=True)


@pytest.mark.parametrize("at", range(36, 40))
@BOTH_ROLES
async def test_reserved_bytes_that_are_not_zero_are_invalid_parameter(role: Role, at: int) -> None:
    async with live_side(role) as side:
        outcome = await meet(side, GOOD[:at] + b"\x80" + GOOD[at + 1 :])
        await expect_refusal(side, outcome, "InvalidParameter", "MIGTD-EXCHANGE-RESERVED")


@pytest.mark.parametrize("versions", [(2, 2), (0, 0), (2, 0xFFFF), (2, 1), (0xFFFF, 0), (1, 0)])
@BOTH_ROLES
async def test_versions_that_are_unordered_or_do_not_meet_are_invalid_parameter(
    role: Role, versions: tuple[int, int]
) -> None:
    async with live_side(role) as side:
        outcome = await meet(side, push_exchange_information(ExchangeInformation(bytes(32), *versions)))
        await expect_refusal(side, outcome, "InvalidParameter", "MIGTD-VERSION-RANGE")


@pytest.mark.parametrize("count", [0, 1, 39])
@BOTH_ROLES
async def test_fewer_than_forty_bytes_and_a_close_are_a_network_error(role: Role, count: int) -> None:
    async with live_side(role) as side:
        outcome = await meet(side, *([GOOD[:count]] if count else []), end=WirePeer.end)
        await expect_refusal(side, outcome, "NetworkError", "MIGTD-TRANSPORT-ENDED")


@BOTH_ROLES
async def test_fewer_than_forty_bytes_and_silence_are_a_network_error_at_the_read_deadline(role: Role) -> None:
    limits = Deadlines(session=1, read=0.15, write=0.15, report=1, connect=1)
    async with live_side(role, limits) as side:
        outcome = await meet(side, GOOD[:39])
        await expect_refusal(side, outcome, "NetworkError", "MIGTD-DEADLINE-READ")


@BOTH_ROLES
async def test_a_close_behind_the_forty_bytes_is_the_normal_end(role: Role) -> None:
    """The peer has read ours by then; there is no close_notify."""

    async def play(wire: WirePeer) -> None:
        peer = TlsPeer(wire, is_client=role is Role.DESTINATION)
        await peer.handshake()
        await peer.exchange()

    async with live_side(role) as side:
        assert (await side.meet(play)).result == "Success"
        side.expect_key(written=True)
        side.expect_one_report()
        await side.expect_nothing_left()


@pytest.mark.parametrize("end", [WirePeer.close, WirePeer.end, WirePeer.reset], ids=["close", "end", "reset"])
@BOTH_ROLES
async def test_a_peer_that_says_its_forty_bytes_and_leaves_unheard_ends_in_success_with_a_key_or_in_neither(
    role: Role, end: Callable[[WirePeer], None]
) -> None:
    """Whether our key was handed over before its end was seen depends on timing; the result says which."""
    async with live_side(role) as side:
        outcome = await meet(side, GOOD, end=end)
        assert outcome.result in ("Success", "NetworkError")
        side.expect_key(written=outcome.result == "Success")
        side.expect_one_report()
        await side.expect_nothing_left()
