# SPDX-License-Identifier: BSD-2-Clause-Patent
"""For tests: the real MigTD on a scripted host (testing_hostile.py), alone or two of them joined without a wire."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

from migtd.errors import MigrationResult
from migtd.guest.ghci import REPORT_REQUEST_BIT, REQUESTED_REPORT_DATA, GetTdReport, StartMigration
from migtd.observer import Phase
from migtd.testing import RecordingObserver
from vmm_stub.testing_hostile import PEER_GONE, ReportCall, ScriptedHost
from vmm_stub.testing_td import RunningMigTd, running_migtd, until

N: Final = 5
"""Request id of the migration of a test."""
_REPORTDATA: Final = slice(128, 192)


@dataclass(slots=True)
class ScriptedSide:
    """One MigTD and its host. `rest` is the number of free pages while it only waits for requests."""

    host: ScriptedHost
    td: RunningMigTd
    observer: RecordingObserver
    rest: int = 0
    _reported: asyncio.Event = field(default_factory=asyncio.Event)
    _next_id: int = 1000

    def start(self, *, is_source: bool, request_id: int = N) -> None:
        """Hand out StartMigration for the target TD of this host."""
        self.host.put(StartMigration(request_id, is_source, self.host.target))

    async def report(self, request_id: int = N, count: int = 1) -> ReportCall:
        """The report of a request, once there are `count` of them: the last."""
        while len(self.host.reports_of(request_id)) < count:
            self._reported.clear()
            await self._reported.wait()
        return self.host.reports_of(request_id)[-1]

    async def result(self, request_id: int = N) -> MigrationResult:
        """The result of a request."""
        return (await self.report(request_id)).result

    async def at_rest(self) -> None:
        """Return when nothing of a request is left in shared memory."""
        await until(lambda: self.td.pages.free_pages == self.rest)

    async def still_serves(self) -> None:
        """Make a request that any MigTD answers, and look at the answer."""
        self._next_id += 1
        request_id = self._next_id | REPORT_REQUEST_BIT
        self.host.put(GetTdReport(request_id))
        report = await self.report(request_id)
        assert report.result is MigrationResult.Success  # noqa: S101 - an assertion of tests
        assert report.data[_REPORTDATA] == REQUESTED_REPORT_DATA  # noqa: S101 - as above

    def error_ids(self, request_id: int = N) -> list[str]:
        """What the MigTD gave as reasons."""
        return [error.kind.id for error in self.observer.failures[request_id]]

    def expect_one_report_for_each_accepted_request(self) -> None:
        """Every request that was accepted was reported, each exactly once."""
        accepted = {
            request_id: phases.count(Phase.ACCEPTED) for request_id, phases in self.observer.phases.items() if phases
        }
        reported = {report.request_id: len(self.host.reports_of(report.request_id)) for report in self.host.reports}
        assert accepted == reported  # noqa: S101 - an assertion of tests

    def expect_no_key(self) -> None:
        """Not one element of MIG_DEC_KEY was written."""
        assert self.host.dec_key_writes == 0  # noqa: S101 - an assertion of tests

    def tell(self, report: ReportCall) -> None:
        """The host got a report: wake who waits, and let the peer see the end of the stream."""
        self._reported.set()
        if self.host.peer is not None:
            self.host.peer.feed(report.request_id, b"", PEER_GONE)


@contextlib.asynccontextmanager
async def scripted_side(host: ScriptedHost | None = None, **migtd: Any) -> AsyncIterator[ScriptedSide]:
    """A MigTD on `host`; `migtd` goes to `running_migtd`. It waits for requests when the block begins."""
    host = host or ScriptedHost()
    observer = RecordingObserver()
    async with running_migtd(host, observer=observer, **migtd) as td:
        side = ScriptedSide(host, td, observer)
        host.on_reported = side.tell
        await until(lambda: host.waiting or not td.alive)
        side.rest = td.pages.free_pages
        yield side


@contextlib.asynccontextmanager
async def scripted_pair(
    source: ScriptedHost | None = None, destination: ScriptedHost | None = None, **migtd: Any
) -> AsyncIterator[tuple[ScriptedSide, ScriptedSide]]:
    """Two of them whose hosts deliver to each other. `migtd` goes to both."""
    async with scripted_side(source, **migtd) as here, scripted_side(destination, **migtd) as there:
        here.host.peer, there.host.peer = there.host, here.host
        yield here, there


async def migrate(source: ScriptedSide, destination: ScriptedSide) -> tuple[MigrationResult, MigrationResult]:
    """One migration between the two; both results."""
    source.start(is_source=True)
    destination.start(is_source=False)
    return await source.result(), await destination.result()
