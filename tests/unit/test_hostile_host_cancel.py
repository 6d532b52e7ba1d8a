# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A VMM that cancels at any moment of a migration, with both sides real and TCP between them (ghci-ratls.md 3)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from migtd.guest.abi import Field, MigTdLeaf, TdCallLeaf
from migtd.guest.channel import Registers
from vmm_stub.testing_live import LiveSide, live_side, migtd_leaf, outcome_of
from vmm_stub.vmm.control.models import MigrationState, Role
from vmm_stub.vmm.migration import HostMigration

BOTH_ROLES = pytest.mark.parametrize("role", list(Role), ids=lambda role: f"of-the-{role.value}")


@dataclass
class Pair:
    side: LiveSide
    other: LiveSide
    migration: HostMigration
    others: HostMigration

    async def end(self) -> tuple[str, str]:
        """Both results; whatever they are, they agree with what was written and reported."""
        await asyncio.gather(self.migration.ended.wait(), self.others.ended.wait())
        results = []
        for side, migration in ((self.side, self.migration), (self.other, self.others)):
            outcome = outcome_of(migration)
            side.expect_key(written=outcome.result == "Success")
            side.expect_one_report()
            await side.expect_nothing_left()
            results.append(outcome.result)
        return results[0], results[1]


@contextlib.asynccontextmanager
async def begun(role: Role, watch: Callable[[LiveSide], None] = lambda _: None) -> AsyncIterator[Pair]:
    """A migration that has begun; `watch` gets the side of this role before."""
    async with live_side(Role.SOURCE) as source, live_side(Role.DESTINATION) as destination:
        side, other = (source, destination) if role is Role.SOURCE else (destination, source)
        watch(side)
        there = await destination.begin()
        here = await source.begin(there.model().address)
        migrations = (here, there) if role is Role.SOURCE else (there, here)
        yield Pair(side, other, *migrations)


def cancel_at(is_it: Callable[[Registers], bool], index: int = 0) -> Callable[[LiveSide], None]:
    """Cancel right before the call with this index among those of a kind."""

    def watch(side: LiveSide) -> None:
        seen = []

        def before(registers: Registers) -> None:
            if is_it(registers):
                seen.append(registers)
                if len(seen) - 1 == index:
                    side.migrations[0].cancel()

        side.channel.before = before

    return watch


def tdcall(leaf: TdCallLeaf, field: int) -> Callable[[Registers], bool]:
    return lambda registers: registers.rax == leaf and registers.rdx == field


def service(leaf: MigTdLeaf) -> Callable[[Registers], bool]:
    return lambda registers: migtd_leaf(registers) is leaf


@BOTH_ROLES
async def test_cancelled_while_the_wire_is_being_opened(role: Role) -> None:
    async with begun(role) as pair:
        assert pair.migration.model().state is MigrationState.PREPARING
        pair.migration.cancel()
        pair.others.cancel()
        assert await pair.end() == ("VmmCanceled", "VmmCanceled")


BEFORE_THE_END = {
    "queued": (service(MigTdLeaf.REPORT_STATUS), 0),
    "accepted": (tdcall(TdCallLeaf.SERVTD_RD, Field.MIG_ENC_KEY), 0),
    "before-the-first-send": (service(MigTdLeaf.SEND), 0),
    "before-the-first-receive": (service(MigTdLeaf.RECEIVE), 0),
    "before-the-second-send": (service(MigTdLeaf.SEND), 1),
    "before-the-second-receive": (service(MigTdLeaf.RECEIVE), 1),
}


@pytest.mark.parametrize(("is_it", "index"), BEFORE_THE_END.values(), ids=BEFORE_THE_END)
@BOTH_ROLES
async def test_cancelled_before_all_was_said_and_heard(
    role: Role, is_it: Callable[[Registers], bool], index: int
) -> None:
    async with begun(role, cancel_at(is_it, index)) as pair:
        result, other = await pair.end()
        assert result == "VmmCanceled"
        assert outcome_of(pair.migration).error is not None
        # The other side may have had all it needs, if this one had already sent its key.
        assert other in ("NetworkError", "Success")
        await pair.side.still_serves()
        await pair.other.still_serves()


@BOTH_ROLES
async def test_cancelled_while_a_receive_is_pending(role: Role) -> None:
    def watch(side: LiveSide) -> None:
        def before(registers: Registers) -> None:
            if service(MigTdLeaf.RECEIVE)(registers):
                side.channel.before = lambda _: None
                asyncio.get_running_loop().call_soon(side.migrations[0].cancel)

        side.channel.before = before

    async with begun(role, watch) as pair:
        assert await pair.end() == ("VmmCanceled", "NetworkError")


AT_THE_END = {
    "between-exchange-and-commit": tdcall(TdCallLeaf.SERVTD_RD, Field.SERVTD_ATTR),
    "between-version-and-key": tdcall(TdCallLeaf.SERVTD_WR, Field.MIG_DEC_KEY),
    "inside-the-key": tdcall(TdCallLeaf.SERVTD_WR, Field.MIG_DEC_KEY + 2),
}


@pytest.mark.parametrize("is_it", AT_THE_END.values(), ids=AT_THE_END)
@BOTH_ROLES
async def test_cancelled_when_nothing_is_sent_any_more_comes_too_late(
    role: Role, is_it: Callable[[Registers], bool]
) -> None:
    """A cancel reaches the guest through Send and Receive; there is none behind the exchange."""
    async with begun(role, cancel_at(is_it)) as pair:
        result, _ = await pair.end()
        assert result == "Success"


@BOTH_ROLES
async def test_cancelled_after_the_end_changes_nothing(role: Role) -> None:
    async with begun(role) as pair:
        assert await pair.end() == ("Success", "Success")
        pair.migration.cancel()
        assert await pair.end() == ("Success", "Success")
        assert outcome_of(pair.migration).result == "Success"


@BOTH_ROLES
async def test_cancelled_again_and_again_is_reported_once(role: Role) -> None:
    def watch(side: LiveSide) -> None:
        def before(_: Registers) -> None:
            for migration in side.migrations:
                migration.cancel()

        side.channel.before = before

    async with begun(role, watch) as pair:
        result, _ = await pair.end()
        assert result == "VmmCanceled"


@BOTH_ROLES
async def test_the_same_id_migrates_after_it_was_cancelled(role: Role) -> None:
    async with begun(role) as pair:
        pair.migration.cancel()
        pair.others.cancel()
        await pair.end()
        source, destination = (pair.side, pair.other) if role is Role.SOURCE else (pair.other, pair.side)
        there = await destination.begin()
        here = await source.begin(there.model().address)
        await asyncio.gather(here.ended.wait(), there.ended.wait())
        assert (outcome_of(here).result, outcome_of(there).result) == ("Success", "Success")
        for side in (source, destination):
            side.expect_key(written=True)
            await side.expect_nothing_left()
