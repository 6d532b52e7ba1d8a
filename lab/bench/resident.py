# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A lab that stays up while sessions run in it: the default lab under a name of its own, removed at the end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
import time
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lab import docker_cli, failures
from lab.engines.base import Engine, Progress
from lab.errors import EngineError
from lab.evidence import new_pki
from lab.hosts import Host, await_ready, connected
from lab.labfile import default_lab
from lab.plan import Party, resolve
from lab.state import lab_lock, state_roots
from migtd.errors import MigrationResult
from vmm_stub.vmm.control.models import MigrationModel, MigrationRequest, Role, TargetTdRequest

LISTENERS: Final = 16
"""Questions at once per host. A container's host answers each through a process of its own, so not one per session."""
OUTCOME_LIMIT: Final = 120.0
"""Seconds that one session may take, the wait for its turn among hundreds included."""
ATTESTATION: Final = "accept-all"
"""The mode with the least of its own: what is measured is the lab, the channel and TLS (lab/bench/primitives.py)."""
_SUCCESS: Final = int(MigrationResult.Success)


@dataclass(frozen=True, slots=True)
class Target:
    """A target TD that exists on both hosts."""

    uuid: tuple[int, int, int, int]
    binding_handle: int


class ResidentLab:
    """Hosts and MigTDs that are ready. `pids` is the root process of each role by its path, empty if not visible."""

    def __init__(self, hosts: dict[str, Host], source: Party, destination: Party, pids: dict[str, int]) -> None:
        self.pids = pids
        self._hosts = hosts
        self._source = source
        self._destination = destination
        self._request_ids = itertools.count(1)
        self._turns = {name: asyncio.Semaphore(LISTENERS) for name in hosts}
        self._seen = dict.fromkeys(hosts, 0)

    @property
    def migtds(self) -> tuple[str, str]:
        """Paths of the two MigTDs, as keys of `pids`."""
        return f"{self._source.host}/{self._source.migtd}", f"{self._destination.host}/{self._destination.migtd}"

    @property
    def hosts(self) -> tuple[str, str]:
        """Paths of the two hosts, as keys of `pids`."""
        return self._source.host, self._destination.host

    async def make_targets(self, count: int) -> list[Target]:
        """Fresh target TDs, one per session: what a VMM has anyway before it migrates."""
        made = []
        for _ in range(count):
            first, second, third, fourth = (secrets.randbits(64) for _ in range(4))
            target = Target((first, second, third, fourth), secrets.randbits(64))
            for party in (self._source, self._destination):
                request = TargetTdRequest(migtd=party.migtd, uuid=target.uuid, binding_handle=target.binding_handle)
                await self._hosts[party.host].create_target_td(request)
            made.append(target)
        return made

    async def run(self, targets: Iterable[Target], at_once: int) -> list[int]:
        """Run one session per target, `at_once` of them at a time; returns their request ids.

        Raises EngineError (LAB-BENCH-SESSION-FAILED) if one does not end in Success on both sides.
        """
        slots = asyncio.Semaphore(at_once)

        async def one(target: Target) -> int:
            async with slots:
                return await self._session(target)

        sessions = [asyncio.create_task(one(target)) for target in targets]
        try:
            return list(await asyncio.gather(*sessions))
        finally:
            for each in sessions:
                each.cancel()
            await asyncio.gather(*sessions, return_exceptions=True)

    async def latencies(self, request_ids: Iterable[int]) -> list[float]:
        """Milliseconds of each of these sessions, from the histories of both hosts (`session_milliseconds`).

        Asks for what happened since the last call; hosts remember some hundred sessions in full.
        """
        events: list[dict[str, Any]] = []
        for name, host in self._hosts.items():
            async with contextlib.aclosing(host.events(self._seen[name])) as history:
                found = [event async for event in history]
            self._seen[name] = found[-1]["seq"] if found else self._seen[name]
            events += found
        by_id = session_milliseconds(events)
        return [by_id[request_id] for request_id in request_ids if request_id in by_id]

    async def _session(self, target: Target) -> int:
        request_id = next(self._request_ids)
        listening = await self._start(self._destination, request_id, target, Role.DESTINATION, None)
        await self._start(self._source, request_id, target, Role.SOURCE, listening.address)
        for party in (self._source, self._destination):
            async with self._turns[party.host]:
                model = await self._hosts[party.host].outcome(party.migtd, request_id, OUTCOME_LIMIT)
            if model.outcome is None or model.outcome.code != MigrationResult.Success:
                result = model.outcome.result if model.outcome else model.state.value
                raise EngineError(failures.BENCH_SESSION_FAILED, f"{party.host}/{party.migtd}: {result}")
        return request_id

    async def _start(
        self, party: Party, request_id: int, target: Target, role: Role, peer: str | None
    ) -> MigrationModel:
        request = MigrationRequest(
            migtd=party.migtd,
            role=role,
            request_id=request_id,
            uuid=target.uuid,
            binding_handle=target.binding_handle,
            peer=peer,
        )
        async with self._turns[party.host]:
            return await self._hosts[party.host].start_migration(request)


@contextlib.asynccontextmanager
async def resident_lab(
    engine: Engine, progress: Progress, attestation: str = ATTESTATION, policy_version: int = 1
) -> AsyncGenerator[ResidentLab, None]:
    """A lab that is ready, for the length of the block. Raises what engines and hosts raise."""
    files = {"policy_version": policy_version}
    resolved = resolve(default_lab(), name=private_name(), attestation=attestation, files=files)
    if resolved.lacks_pki:
        resolved = resolved.with_pki(new_pki(os.urandom, time.time()))
    (job,) = resolved.jobs(1)
    if job.source is None or job.destination is None:
        raise RuntimeError("both sides of the default lab are ours")
    with lab_lock(state_roots(os.environ)[0], resolved.name):
        try:
            await engine.up(resolved.plan(), progress)
            async with connected(engine, resolved.name, list(resolved.lab.hosts)) as hosts:
                await await_ready(engine, resolved.name, hosts, progress)
                pids = await asyncio.to_thread(role_pids, engine, resolved.name)
                yield ResidentLab(hosts, job.source, job.destination, pids)
        finally:
            await engine.down(resolved.name, progress)


def private_name() -> str:
    """A lab's name that nobody else has."""
    return f"bench-{secrets.token_hex(4)}"


def role_pids(engine: Engine, lab: str) -> dict[str, int]:
    """The root process of each role by its path; empty if they do not run on this machine, as with a remote engine."""
    roles = [role for status in engine.labs() if status.lab == lab for role in status.roles]
    if engine.name == "process":
        return {role.path: int(role.id) for role in roles}
    pids = {}
    for role in roles:
        pid = docker_cli.docker("inspect", "--format", "{{.State.Pid}}", role.id).strip()
        try:
            cgroup = Path("/proc", pid, "cgroup").read_text(encoding="ascii")
        except OSError:
            return {}
        if role.id not in cgroup:
            return {}
        pids[role.path] = int(pid)
    return pids


def session_milliseconds(events: Iterable[dict[str, Any]]) -> dict[int, float]:
    """Per request id: milliseconds from StartMigration accepted on both sides to ReportStatus of both.

    `events` are those of both hosts, whose clocks are the same. A session of which one of the four is missing is left
    out; so is one that did not succeed.
    """
    accepted: dict[int, list[float]] = {}
    reported: dict[int, list[float]] = {}
    for event in events:
        request_id, data = event["request_id"], event["data"]
        if event["kind"] == "phase" and data["phase"] == "accepted":
            accepted.setdefault(request_id, []).append(event["time"])
        elif event["kind"] == "result" and data["operation"] == "StartMigration" and data["code"] == _SUCCESS:
            reported.setdefault(request_id, []).append(event["time"])
    both = 2
    return {
        request_id: (max(ends) - max(accepted[request_id])) * 1000
        for request_id, ends in reported.items()
        if len(ends) == both and len(accepted.get(request_id, ())) == both
    }
