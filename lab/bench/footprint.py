# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Memory of resident roles, what each session adds while many run at once, and whether it goes on growing.

Shared memory counts where it is touched. Pages that were touched once stay, and which ones a burst of sessions touches
is chance, so what the first two leave behind says little: a third one of the same size must add next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from lab.bench import rows
from lab.bench.resident import ResidentLab
from lab.bench.roles import Memory, memory, reset_peak
from lab.bench.rows import Row
from lab.bench.spread import Spread
from lab.engines.base import Progress


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How many sessions run at once, after as many one by one that warm everything up."""

    at_once: int
    warm_up: int


BURSTS: Final = 3

FULL = MemoryPlan(at_once=256, warm_up=50)
QUICK = MemoryPlan(at_once=16, warm_up=5)


@dataclass(frozen=True, slots=True)
class Footprint:
    """One role: when it had just become ready, after some sessions, and after each of three bursts (with the peaks)."""

    ready: Memory
    warm: Memory
    first: Memory
    second: Memory
    third: Memory


async def measure(lab: ResidentLab, engine: str, plan: MemoryPlan, progress: Progress) -> list[Row]:
    """The rows of one engine; none where the roles' processes are not visible. Raises as ResidentLab.run does."""
    if not lab.pids:
        return []
    progress(f"{engine}: memory, {plan.at_once} sessions at once")
    ready = {role: memory(pid) for role, pid in lab.pids.items()}
    await lab.run(await lab.make_targets(plan.warm_up), at_once=1)
    bursts = [await lab.make_targets(plan.at_once) for _ in range(BURSTS)]
    warm = {role: memory(pid) for role, pid in lab.pids.items()}
    for pid in lab.pids.values():
        reset_peak(pid)
    after = []
    for targets in bursts:
        await lab.run(targets, plan.at_once)
        after.append({role: memory(pid) for role, pid in lab.pids.items()})
    found = {role: Footprint(ready[role], warm[role], *(each[role] for each in after)) for role in lab.pids}
    migtds, hosts = ([found[role] for role in roles] for roles in (lab.migtds, lab.hosts))
    return list(footprint_rows(migtds, hosts, engine, plan))


def footprint_rows(migtds: list[Footprint], hosts: list[Footprint], engine: str, plan: MemoryPlan) -> Iterator[Row]:
    """The rows that the two MigTDs and the two hosts make; the samples of a row are its roles."""
    sessions = f"{plan.at_once} at once"
    yield Row(rows.MIGTD_MEMORY, engine, Spread.of(each.warm.rss for each in migtds), f"{_ready(migtds)} when ready")
    yield Row(rows.MIGTD_SHARE, engine, Spread.of(each.warm.pss for each in migtds))
    yield Row(rows.HOST_MEMORY, engine, Spread.of(each.warm.rss for each in hosts), f"{_ready(hosts)} when ready")
    for quantity, roles in ((rows.MIGTD_EXTRA, migtds), (rows.HOST_EXTRA, hosts)):
        yield Row(quantity, engine, Spread.of(_extra(each, plan) for each in roles), sessions)
    for quantity, roles in ((rows.MIGTD_GROWTH, migtds), (rows.HOST_GROWTH, hosts)):
        growth = Spread.of((each.third.rss - each.second.rss) / plan.at_once for each in roles)
        yield Row(quantity, engine, growth, sessions)


def _extra(footprint: Footprint, plan: MemoryPlan) -> float:
    return (footprint.first.peak - footprint.warm.rss) / plan.at_once


def _ready(roles: list[Footprint]) -> str:
    return f"{max(each.ready.rss for each in roles):.0f} MB"
