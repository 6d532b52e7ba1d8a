# SPDX-License-Identifier: BSD-2-Clause-Patent
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from lab import failures
from lab.errors import EngineError
from lab.history import Event, follow_events, merged_events


class FakeHost:
    """A host with a past, and a future that the test tells it."""

    def __init__(self, host: str, times: list[float]) -> None:
        self.host = host
        self.past = [event(host, seq, time) for seq, time in enumerate(times, start=1)]
        self.future: asyncio.Queue[Event | Exception | None] = asyncio.Queue()

    async def events(self, after: int = 0, *, follow: bool = False) -> AsyncIterator[Event]:
        for each in self.past[after:]:
            yield each
        while follow:
            told = await self.future.get()
            if told is None:
                return
            if isinstance(told, Exception):
                raise told
            yield told


def event(host: str, seq: int, time: float) -> Event:
    return {"seq": seq, "time": time, "host": host, "migtd": None, "request_id": None, "kind": "note", "data": {}}


def names(events: list[Event]) -> list[str]:
    return [f"{each['host']}{each['seq']}" for each in events]


async def test_events_are_merged_by_time_and_each_hosts_order_is_kept():
    first, second = FakeHost("a", [1.0, 4.0, 3.0]), FakeHost("b", [2.0, 5.0])

    found = [each async for each in merged_events([first, second, FakeHost("c", [])])]

    assert names(found) == ["a1", "b1", "a2", "a3", "b2"]


async def test_no_hosts_have_no_history():
    assert [each async for each in merged_events([])] == []


async def test_following_tells_the_past_once_in_order_and_then_what_comes():
    first, second = FakeHost("a", [1.0, 3.0]), FakeHost("b", [2.0])
    second.future.put_nowait(event("b", 2, 9.0))
    second.future.put_nowait(None)

    found: list[Event] = []
    async for each in follow_events([first, second]):
        found.append(each)
        if len(found) == 4:
            first.future.put_nowait(event("a", 3, 10.0))
            first.future.put_nowait(None)

    assert names(found) == ["a1", "b1", "a2", "b2", "a3"]


async def test_a_lost_host_ends_the_following_with_its_failure():
    first, second = FakeHost("a", [1.0]), FakeHost("b", [])
    second.future.put_nowait(EngineError(failures.HOST_LOST, "b"))

    with pytest.raises(EngineError) as caught:
        [each async for each in follow_events([first, second])]

    assert caught.value.kind.id == "LAB-HOST-LOST"
