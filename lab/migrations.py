# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Runs migrations and rebindings on the hosts of a lab and joins what the two sides say into outcomes.

A side whose host is lost, or tells nothing until every deadline has passed, becomes `Unknown`; the outcome is still
given. What goes wrong before any migration was started is raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from lab import failures
from lab.errors import EngineError
from lab.outcome import Outcome, finalized, join, lost_side
from lab.plan import Job, Party, ResolvedLab
from migtd.deadlines import Deadlines
from migtd.errors import LabFailure
from vmm_stub.vmm.control.models import (
    MigrationModel,
    MigrationRequest,
    MigrationState,
    RebindFinalizeModel,
    RebindFinalizeRequest,
    Role,
    SessionOperation,
    TargetTdModel,
    TargetTdRequest,
)

CONCURRENT: Final = 8
"""Migrations under way at once."""
POLL: Final = 30.0
"""Seconds of one long poll for an outcome."""
MARGIN: Final = 15.0
"""Seconds beyond all deadlines after which a host that tells no outcome is given up."""
CANCEL_LIMIT: Final = 3.0
"""Seconds that hosts have to take a cancellation when the user interrupts."""
_TAKEN: Final = "VMM-MIGRATION-EXISTS"
_ATTEMPTS: Final = 5

Uuid = tuple[int, int, int, int]


class HostApi(Protocol):
    """The control API of one host, as far as migrations need it. Methods raise LabFailure, also for a lost host."""

    async def target_tds(self) -> list[TargetTdModel]:
        """All target TDs."""

    async def create_target_td(self, request: TargetTdRequest) -> TargetTdModel:
        """Create one."""

    async def migrations(self) -> list[MigrationModel]:
        """All migrations the host remembers."""

    async def start_migration(self, request: MigrationRequest) -> MigrationModel:
        """Start one side; a destination listens when this returns."""

    async def outcome(self, migtd: str, request_id: int, timeout: float) -> MigrationModel:  # noqa: ASYNC109 - the API's long poll
        """The migration once it ended, or as it is after `timeout` seconds."""

    async def cancel(self, migtd: str, request_id: int) -> None:
        """Cancel one side."""

    async def finalize_rebinding(self, request: RebindFinalizeRequest) -> RebindFinalizeModel:
        """Move the binding of a target TD to the MigTD that prepared it."""


@dataclass(frozen=True, slots=True)
class _Identity:
    """What names a target TD on both hosts."""

    uuid: Uuid
    binding_handle: int
    servtd_attr: int

    def handle(self, job: Job, role: Role) -> int:
        """The binding handle on one side: the same on both, but where one host has both target TDs of a migration."""
        both_here = job.source is not None and job.destination is not None and job.source.host == job.destination.host
        both_here = both_here and job.operation is SessionOperation.MIGRATION
        return self.binding_handle ^ 1 if both_here and role is Role.DESTINATION else self.binding_handle


class MigrationRunner:
    """Runs jobs on hosts. `monotonic` is in seconds; `say` is told what people should know in between."""

    def __init__(
        self,
        resolved: ResolvedLab,
        engine: str,
        hosts: Mapping[str, HostApi],
        *,
        monotonic: Callable[[], float],
        say: Callable[[str], None],
    ) -> None:
        self._resolved = resolved
        self._engine = engine
        self._hosts = hosts
        self._monotonic = monotonic
        self._say = say
        self._used_ids: set[int] = set()
        self._slots = asyncio.Semaphore(CONCURRENT)
        self._locks: dict[str, asyncio.Lock] = {}

    async def run(self, jobs: Sequence[Job]) -> AsyncIterator[tuple[Job, Outcome]]:
        """Run all jobs, several at once, and give each outcome as it is there.

        A rebinding has two: its preparation and, if that succeeded, its end.

        Raises LabFailure if the target TDs or the list of request ids cannot be had: then nothing was started.
        """
        identities = await self._prepare(jobs)
        tasks = [asyncio.create_task(self._run(job, identity)) for job, identity in zip(jobs, identities, strict=True)]
        try:
            for task in asyncio.as_completed(tasks):
                job, outcomes = await task
                for outcome in outcomes:
                    yield job, outcome
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _prepare(self, jobs: Sequence[Job]) -> list[_Identity]:
        """Learn the request ids that are taken, and create every job's target TD on its hosts."""
        involved = {party.host for job in jobs for party in (job.source, job.destination) if party}
        there: dict[str, list[TargetTdModel]] = {}
        for host in sorted(involved):
            self._used_ids |= {migration.request_id for migration in await self._hosts[host].migrations()}
            there[host] = await self._hosts[host].target_tds()
        named: dict[str, _Identity] = {}
        identities = []
        for job in jobs:
            identity = named.get(job.target_td or "") or self._draw(job)
            if job.target_td is not None:
                named[job.target_td] = identity
            identities.append(identity)
            for role, party in ((Role.SOURCE, job.source), (Role.DESTINATION, job.destination)):
                # In a rebinding there is one target TD, and the new MigTD has no part in it yet.
                if party is not None and (job.operation is SessionOperation.MIGRATION or role is Role.SOURCE):
                    await self._ensure(there[party.host], party, identity, identity.handle(job, role))
        return identities

    def _draw(self, job: Job) -> _Identity:
        """The target TD as the lab file names it; what it leaves out is random."""
        entry = self._resolved.target_td(job.target_td) if job.target_td is not None else None
        uuid = tuple(entry.uuid) if entry and entry.uuid else tuple(secrets.randbits(64) for _ in range(4))
        handle = entry.binding_handle if entry and entry.binding_handle is not None else secrets.randbits(64)
        return _Identity((uuid[0], uuid[1], uuid[2], uuid[3]), handle, entry.servtd_attr if entry else 0)

    async def _ensure(self, there: list[TargetTdModel], party: Party, identity: _Identity, handle: int) -> None:
        for each in there:
            if (each.uuid, each.binding_handle) == (identity.uuid, handle):
                if (each.migtd, each.servtd_attr) != (party.migtd, identity.servtd_attr):
                    raise EngineError(failures.TARGET_TD_DIFFERS, f"{party.host}: bound to {each.migtd}")
                return
        request = TargetTdRequest(
            migtd=party.migtd, uuid=identity.uuid, binding_handle=handle, servtd_attr=identity.servtd_attr
        )
        there.append(await self._hosts[party.host].create_target_td(request))

    async def _run(self, job: Job, identity: _Identity) -> tuple[Job, list[Outcome]]:
        async with contextlib.AsyncExitStack() as held:
            # In one order for all jobs, so that no two wait for each other.
            for name in sorted(job.exclusive):
                await held.enter_async_context(self._locks.setdefault(name, asyncio.Lock()))
            await held.enter_async_context(self._slots)
            outcomes = [await self._attempts(job, identity)]
            if outcomes[0].success and job.operation is SessionOperation.REBIND_PREPARE:
                outcomes.append(await self._finalize(job, identity, outcomes[0].request_id))
            return job, outcomes

    async def _attempts(self, job: Job, identity: _Identity) -> Outcome:
        for _ in range(_ATTEMPTS - 1):
            with contextlib.suppress(_IdTakenError):
                return await self._attempt(job, identity)
        return await self._attempt(job, identity, last=True)

    async def _finalize(self, job: Job, identity: _Identity, request_id: int) -> Outcome:
        """Let the host move the binding. What it refuses, or that it was lost, is the outcome."""
        if job.destination is None:
            raise ValueError("a rebinding has a new MigTD")
        party = job.destination
        handle = identity.handle(job, Role.DESTINATION)
        request = RebindFinalizeRequest(migtd=party.migtd, uuid=identity.uuid, binding_handle=handle)
        started = self._monotonic()
        try:
            moved = await self._hosts[party.host].finalize_rebinding(request)
        except LabFailure as failure:
            moved = RebindFinalizeModel(
                migtd=None, uuid=identity.uuid, binding_handle=handle, outcome=lost_side(failure)
            )
        duration = (self._monotonic() - started) * 1000
        labels = self._resolved.labels(self._engine)
        return finalized(moved, duration_ms=duration, request_id=request_id, **labels)

    async def _attempt(self, job: Job, identity: _Identity, *, last: bool = False) -> Outcome:
        """One migration under a request id of its own."""
        request_id = self._next_id()
        sides = _Sides(self._hosts, job, request_id, self._resolved.deadlines)
        started = self._monotonic()
        try:
            await self._start(sides, identity)
            source, destination = await asyncio.gather(sides.outcome(Role.SOURCE), sides.outcome(Role.DESTINATION))
        except asyncio.CancelledError:
            await sides.cancel()
            raise
        if sides.taken and not last:
            # Another command chose the same id at the same time; nothing has come of this attempt.
            raise _IdTakenError
        return join(
            source,
            destination,
            duration_ms=(self._monotonic() - started) * 1000,
            request_id=request_id,
            **self._resolved.labels(self._engine),
        )

    async def _start(self, sides: _Sides, identity: _Identity) -> None:
        """Start the destination, learn where it listens, and send the source there. Failures stay with their side."""
        job = sides.job
        peer = job.peer
        if job.destination is not None:
            listening = await sides.start(Role.DESTINATION, identity, listen_port=job.listen_port)
            peer = listening.address if listening else None
            if job.source is None and listening is not None:
                self._say(f"migration {sides.request_id}: waiting for the external source on port {job.listen_port}")
        if job.source is not None and peer is not None:
            await sides.start(Role.SOURCE, identity, peer=peer)
        elif job.source is not None:
            await sides.give_up(Role.SOURCE)

    def _next_id(self) -> int:
        """The lowest request id that no MigTD involved has used."""
        request_id = 1
        while request_id in self._used_ids:
            request_id += 1
        self._used_ids.add(request_id)
        return request_id


class _IdTakenError(Exception):
    """The request id is under way already."""


class _Sides:
    """Both sides of one migration under way. A side that failed to start, or was lost, keeps its failure."""

    def __init__(self, hosts: Mapping[str, HostApi], job: Job, request_id: int, deadlines: Deadlines) -> None:
        self.job = job
        self.request_id = request_id
        self._hosts = hosts
        self._parties = {Role.SOURCE: job.source, Role.DESTINATION: job.destination}
        self._failures: dict[Role, LabFailure] = {}
        self._started: dict[Role, MigrationModel] = {}
        self._limit = (
            deadlines.connect + deadlines.pre_session + deadlines.session + deadlines.report + deadlines.call + MARGIN
        )

    @property
    def taken(self) -> bool:
        """Whether a host refused the request id because it is under way."""
        return any(failure.kind.id == _TAKEN for failure in self._failures.values())

    async def start(
        self, role: Role, identity: _Identity, *, peer: str | None = None, listen_port: int = 0
    ) -> MigrationModel | None:
        """Start one side; None if that failed."""
        party = self._party(role)
        request = MigrationRequest(
            migtd=party.migtd,
            role=role,
            request_id=self.request_id,
            uuid=identity.uuid,
            binding_handle=identity.handle(self.job, role),
            peer=peer,
            listen_port=listen_port,
            operation=self.job.operation,
        )
        try:
            self._started[role] = await self._hosts[party.host].start_migration(request)
        except LabFailure as failure:
            self._failures[role] = failure
            # The other side would wait for it until its deadline.
            await self._cancel_started()
            return None
        return self._started[role]

    async def give_up(self, role: Role) -> None:
        """Do not start this side, for the reason that the other side has: it failed to start, or does not listen."""
        failure = next(iter(self._failures.values()), None)
        if failure is None:
            failure = EngineError(failures.DESTINATION_ABSENT, f"migration {self.request_id}")
        self._failures[role] = failure

    async def outcome(self, role: Role) -> MigrationModel | None:
        """How this side ended; None if it is not ours."""
        party = self._parties[role]
        if party is None:
            return None
        if role not in self._started:
            return self._lost(role, self._failures[role])
        host = self._hosts[party.host]
        try:
            async with asyncio.timeout(self._limit):
                while True:
                    model = await host.outcome(party.migtd, self.request_id, POLL)
                    if model.state is MigrationState.ENDED:
                        return model
        except LabFailure as failure:
            return self._lost(role, failure)
        except TimeoutError:
            return self._lost(role, EngineError(failures.OUTCOME_LATE, f"{party.host}, after {self._limit:g} s"))

    async def cancel(self) -> None:
        """The user interrupts: let nothing go on that holds a port. Who does not listen within the limit is left."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_LIMIT):
                await self._cancel_started()

    async def _cancel_started(self) -> None:
        for role in self._started:
            party = self._party(role)
            # A host that is gone, or a side that has ended, has nothing left to cancel.
            with contextlib.suppress(LabFailure):
                await self._hosts[party.host].cancel(party.migtd, self.request_id)

    def _party(self, role: Role) -> Party:
        party = self._parties[role]
        if party is None:
            raise ValueError(f"the {role.value} is not ours")
        return party

    def _lost(self, role: Role, failure: LabFailure) -> MigrationModel:
        """The model of a side of which nothing more can be learnt."""
        started = self._started.get(role)
        return MigrationModel(
            migtd=self._party(role).migtd,
            request_id=self.request_id,
            operation=self.job.operation,
            role=role,
            state=MigrationState.ENDED,
            address=started.address if started else None,
            started=started.started if started else 0.0,
            duration_ms=None,
            phases_ms={},
            outcome=lost_side(failure),
        )
