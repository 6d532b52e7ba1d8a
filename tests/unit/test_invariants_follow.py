# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The checker beside hosts that work: it reads everything, once, and tells of a host that is lost."""

import asyncio

import pytest

from lab import failures
from lab.errors import EngineError
from lab.invariants.follow import following
from lab.testing_histories import Recorded, live_pair


async def test_follower_has_read_everything_when_the_block_ends():
    async with live_pair() as pair:
        sides = {side.role.value: side for side in (pair.source, pair.destination)}
        async with following({name: Recorded(side.vmm.history) for name, side in sides.items()}) as follower:
            await pair.migrate(1)
            await pair.migrate(2, servtd_attr=1)
            await pair.history()

        assert follower.violations == []
        assert follower.checker.runs == 4
        assert follower.checker.events == sum(len(side.vmm.history.read(0, 10_000)) for side in sides.values())


async def test_migration_that_has_not_ended_by_then_is_told():
    async with live_pair() as pair:
        async with following({"source": Recorded(pair.source.vmm.history)}) as follower:
            sides = await pair.begin(1)
        assert {each.invariant for each in follower.violations} == {"I3"}
        await pair.ended(sides)


async def test_host_that_is_lost_is_told():
    class Lost:
        async def events(self, _after=0, *, follow=False):
            assert follow
            yield {"seq": 1}
            raise EngineError(failures.HOST_LOST, "host-a")

    async def follow():
        async with following({"host-a": Lost()}):
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    with pytest.raises(EngineError) as caught:
        await follow()
    assert caught.value.kind is failures.HOST_LOST
