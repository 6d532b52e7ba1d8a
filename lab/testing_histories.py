# SPDX-License-Identifier: BSD-2-Clause-Patent
"""For tests: histories of two real hosts with the real MigTD on each, all in this process, joined by a real wire."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

from lab.history import Event, merged_events
from lab.outcome import join
from vmm_stub.testing import MIGTD, migration_request
from vmm_stub.testing_live import LiveSide, N, live_side
from vmm_stub.testing_td import until
from vmm_stub.vmm.control.models import MigrationModel, Role, TargetTdRequest
from vmm_stub.vmm.history import History
from vmm_stub.vmm.migration import HostMigration

LABELS: Final[dict[str, str | int]] = {
    "lab": "in-process",
    "engine": "process",
    "attestation": "accept-all",
    "session": "ra-tls",
    "transport": "vmcall-raw",
    "policy_version": 1,
}
"""What an outcome document says beside its sides."""


class Recorded:
    """A history as a source of events (lab.history.EventSource)."""

    def __init__(self, history: History) -> None:
        self._history = history

    async def events(self, after: int = 0, *, follow: bool = False) -> AsyncIterator[Event]:
        """The events above a sequence number."""
        async with contextlib.aclosing(self._history.follow(after, forever=follow)) as batches:
            async for batch in batches:
                for line in batch.splitlines():
                    yield json.loads(line)


class LivePair:
    """A source and a destination that are ready. `outcomes` are the documents of what they have done."""

    def __init__(self, source: LiveSide, destination: LiveSide) -> None:
        self.source = source
        self.destination = destination
        self.outcomes: list[dict[str, Any]] = []

    async def begin(self, request_id: int = N, *, servtd_attr: int = 0) -> tuple[HostMigration, HostMigration]:
        """Start a migration on both sides, of a fresh target TD with that SERVTD_ATTR."""
        first, second, third, fourth, handle = (secrets.randbits(64) for _ in range(5))
        here, there = (
            side.vmm.create_target_td(
                TargetTdRequest(
                    migtd=MIGTD,
                    uuid=(first, second, third, fourth),
                    binding_handle=handle,
                    servtd_attr=servtd_attr,
                )
            )
            for side in (self.source, self.destination)
        )
        destination = await self.destination.vmm.start_migration(migration_request(there, request_id))
        source = await self.source.vmm.start_migration(migration_request(here, request_id, destination.model().address))
        return source, destination

    async def migrate(self, request_id: int = N, *, servtd_attr: int = 0) -> dict[str, Any]:
        """Run such a migration to its end; its outcome document."""
        return await self.ended(await self.begin(request_id, servtd_attr=servtd_attr))

    async def ended(self, sides: tuple[HostMigration, HostMigration]) -> dict[str, Any]:
        """The outcome document once both sides have ended."""
        source, destination = [await _ended(side) for side in sides]
        outcome = join(source, destination, duration_ms=0.0, request_id=source.request_id, **LABELS)
        self.outcomes.append(outcome.model_dump(mode="json", by_alias=True))
        return self.outcomes[-1]

    async def history(self) -> list[Event]:
        """What both hosts recorded, merged as `./inv events` does."""
        sides = (self.source, self.destination)
        await until(lambda: all(side.td.pages.free_pages == side.rest for side in sides))
        sources = [Recorded(side.vmm.history) for side in sides]
        return [event async for event in merged_events(sources)]


@contextlib.asynccontextmanager
async def live_pair(**migtd: Any) -> AsyncIterator[LivePair]:
    """Two hosts with a MigTD each, `source` and `destination` by name. `migtd` goes to both `live_side`."""
    async with live_side(Role.SOURCE, **migtd) as source, live_side(Role.DESTINATION, **migtd) as destination:
        yield LivePair(source, destination)


async def _ended(side: HostMigration) -> MigrationModel:
    await side.ended.wait()
    return side.model()


def of(events: Iterable[Event], kind: str, **data: Any) -> list[int]:
    """Indexes of the events of a kind whose data has these values."""
    return [
        index for index, event in enumerate(events) if event["kind"] == kind and data.items() <= event["data"].items()
    ]
