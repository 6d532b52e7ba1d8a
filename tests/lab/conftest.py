# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Every engine test's history is checked: before a lab is taken down, and when a host in this process stops.

After `down`, nothing may be left of the lab. Labs that a test starts and takes down in other processes are not seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from lab.engines.base import Engine, RoleState
from lab.engines.docker import DockerEngine
from lab.engines.process import ProcessEngine
from lab.history import merged_events
from lab.hosts import Host, connected
from lab.invariants.checker import check_history
from lab.invariants.event import HISTORY, Violation
from lab.invariants.leftovers import check_leftovers
from migtd.errors import LabFailure
from vmm_stub.vmm.control.models import MigrationState
from vmm_stub.vmm.vmm import Vmm

LIMIT = 20.0
"""Seconds that hosts have to tell their history."""
ATTEMPTS = 5
NEVER_WHOLE = "bench-"
"""Labs of the bench run more migrations than hosts remember; what they remember is checked."""

Down = Callable[[Any, str, Any], Awaitable[Any]]


@dataclass(slots=True)
class CheckedHistories:
    """What was found in the labs of one test. `events` counts those that were checked, by lab or host."""

    violations: list[Violation] = field(default_factory=list)
    events: dict[str, int] = field(default_factory=dict)


@pytest.fixture(autouse=True)
def checked_histories() -> Iterator[CheckedHistories]:
    found = CheckedHistories()
    with pytest.MonkeyPatch.context() as patch:
        for engine in (ProcessEngine, DockerEngine):
            patch.setattr(engine, "down", _checking_down(engine.down, found))
        patch.setattr(Vmm, "stop", _checking_stop(Vmm.stop, found))
        yield found
    assert found.violations == [], "\n".join(map(str, found.violations))


def _checking_down(down: Down, found: CheckedHistories) -> Down:
    async def checked(engine: Any, lab: str, progress: Any) -> Any:
        # A host, or the engine, may be what a test took away.
        with contextlib.suppress(LabFailure, TimeoutError):
            await _check_lab(engine, lab, found)
        removed = await down(engine, lab, progress)
        found.violations += await asyncio.to_thread(lambda: list(check_leftovers(engine, lab)))
        return removed

    return checked


def _checking_stop(stop: Callable[[Vmm], Awaitable[None]], found: CheckedHistories) -> Callable[[Vmm], Awaitable[None]]:
    async def checked(vmm: Vmm) -> None:
        await stop(vmm)
        events = [json.loads(line) async for batch in vmm.history.follow(forever=False) for line in batch.splitlines()]
        found.events[vmm.name] = len(events)
        found.violations += check_history(events, alive=False)

    return checked


async def _check_lab(engine: Engine, lab: str, found: CheckedHistories) -> None:
    labs = await asyncio.to_thread(engine.labs)
    roles = [role for status in labs if status.lab == lab for role in status.roles]
    names = [role.name for role in roles if role.role == "host" and role.state is RoleState.RUNNING]
    async with asyncio.timeout(LIMIT), connected(engine, lab, names) as hosts:
        for attempt in range(ATTEMPTS):
            violations = await _look(list(hosts.values()), lab, found)
            # A request may be reported just after the migration that it went with: only what stays so is wrong.
            if not violations or attempt == ATTEMPTS - 1:
                break
            await asyncio.sleep(0.1)
    if lab.startswith(NEVER_WHOLE):
        violations = [each for each in violations if each.invariant != HISTORY]
    found.violations += violations


async def _look(hosts: list[Host], lab: str, found: CheckedHistories) -> list[Violation]:
    under_way = await _under_way(hosts)
    events = [event async for event in merged_events(hosts)]
    found.events[lab] = len(events)
    return check_history(events, under_way=under_way | await _under_way(hosts))


async def _under_way(hosts: list[Host]) -> set[tuple[str, str, int]]:
    return {
        (host.name, each.migtd, each.request_id)
        for host in hosts
        for each in await host.migrations()
        if each.state is not MigrationState.ENDED
    }
