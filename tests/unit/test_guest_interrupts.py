# SPDX-License-Identifier: BSD-2-Clause-Patent
from __future__ import annotations

import asyncio

import pytest

from migtd import failures
from migtd.errors import VmmInternalError
from migtd.guest.interrupts import InterruptController

VECTOR = 0x52


@pytest.fixture
def interrupts():
    return InterruptController()


async def started(*coroutines):
    tasks = [asyncio.create_task(each) for each in coroutines]
    await asyncio.sleep(0)
    return tasks


async def test_every_waiter_of_a_vector_is_woken(interrupts):
    tasks = await started(*(interrupts.wait(VECTOR, 0) for _ in range(256)))
    interrupts.fire(VECTOR)
    assert await asyncio.gather(*tasks) == [1] * 256


async def test_waiters_of_other_vectors_sleep_on(interrupts):
    (task,) = await started(interrupts.wait(0x50, 0))
    interrupts.fire(VECTOR)
    await asyncio.sleep(0)
    assert not task.done()
    interrupts.fire(0x50)
    assert await task == 1


async def test_an_interrupt_between_look_and_wait_is_not_lost_by_any_waiter(interrupts):
    seen = interrupts.count(VECTOR)
    interrupts.fire(VECTOR)
    assert await interrupts.wait(VECTOR, seen) == 1
    assert await interrupts.wait(VECTOR, seen) == 1


async def test_an_interrupt_that_was_seen_does_not_end_the_next_wait(interrupts):
    interrupts.fire(VECTOR)
    (task,) = await started(interrupts.wait(VECTOR, interrupts.count(VECTOR)))
    assert not task.done()
    interrupts.fire(VECTOR)
    assert await task == 2


async def test_interrupts_before_the_waiter_runs_are_counted_together(interrupts):
    (task,) = await started(interrupts.wait(VECTOR, 0))
    interrupts.fire(VECTOR)
    interrupts.fire(VECTOR)
    assert await task == 2


async def test_a_cancelled_waiter_leaves_the_others_alone(interrupts):
    gone, stays = await started(interrupts.wait(VECTOR, 0), interrupts.wait(VECTOR, 0))
    gone.cancel()
    await asyncio.sleep(0)
    interrupts.fire(VECTOR)
    assert await stays == 1
    assert gone.cancelled()


async def test_a_waiter_cancelled_as_the_vector_fires_does_not_disturb(interrupts):
    gone, stays = await started(interrupts.wait(VECTOR, 0), interrupts.wait(VECTOR, 0))
    gone.cancel()
    interrupts.fire(VECTOR)
    assert await stays == 1
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_a_lost_host_ends_present_and_later_waits(interrupts):
    tasks = await started(interrupts.wait(VECTOR, 0), interrupts.wait(0x50, 0))
    interrupts.lose()
    for waiting in (*tasks, interrupts.wait(VECTOR, 0)):
        with pytest.raises(VmmInternalError) as caught:
            await waiting
        assert caught.value.kind is failures.CHANNEL_LOST


async def test_what_fired_before_the_loss_is_still_seen(interrupts):
    interrupts.fire(VECTOR)
    interrupts.lose()
    assert await interrupts.wait(VECTOR, 0) == 1
    with pytest.raises(VmmInternalError):
        await interrupts.wait(VECTOR, 1)
