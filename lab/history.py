# SPDX-License-Identifier: BSD-2-Clause-Patent
"""One history of several hosts: their events merged by time. Each host's own order is never changed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

Event = dict[str, Any]
"""As the control API gives it: `seq`, `time`, `host`, `migtd`, `request_id`, `kind`, `data`."""


class EventSource(Protocol):
    """A host, as far as its history goes."""

    def events(self, after: int = 0, *, follow: bool = False) -> AsyncIterator[Event]:
        """Events above a sequence number; with `follow` without end. Raises LabFailure if the host is lost."""


async def merged_events(sources: Sequence[EventSource]) -> AsyncIterator[Event]:
    """Everything that has happened, oldest first. Raises LabFailure."""
    async for _, event in _merged(sources):
        yield event


async def follow_events(sources: Sequence[EventSource]) -> AsyncIterator[Event]:
    """Everything that has happened, oldest first, and then what happens, as the hosts tell it.

    Ends when every host's stream has ended. Raises LabFailure if one is lost.
    """
    seen = [0] * len(sources)
    async for index, event in _merged(sources):
        seen[index] = int(event["seq"])
        yield event
    queue: asyncio.Queue[Event | BaseException | None] = asyncio.Queue(maxsize=1000)

    async def pump(source: EventSource, after: int) -> None:
        try:
            async for event in source.events(after, follow=True):
                await queue.put(event)
            await queue.put(None)
        except Exception as error:  # noqa: BLE001 - handed to the reader of the queue, which raises it
            await queue.put(error)

    pumps = [asyncio.create_task(pump(source, after)) for source, after in zip(sources, seen, strict=True)]
    try:
        running = len(pumps)
        while running:
            told = await queue.get()
            if isinstance(told, BaseException):
                raise told
            if told is None:
                running -= 1
            else:
                yield told
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _merged(sources: Sequence[EventSource]) -> AsyncIterator[tuple[int, Event]]:
    """What has happened, oldest first, each with the index of its source."""
    streams = [source.events() for source in sources]
    heads: dict[int, Event] = {}
    for index, stream in enumerate(streams):
        with contextlib.suppress(StopAsyncIteration):
            heads[index] = await anext(stream)
    while heads:
        # Few hosts: looking at each head costs less than a heap.
        oldest = min(heads, key=lambda index: float(heads[index]["time"]))
        yield oldest, heads.pop(oldest)
        with contextlib.suppress(StopAsyncIteration):
            heads[oldest] = await anext(streams[oldest])
