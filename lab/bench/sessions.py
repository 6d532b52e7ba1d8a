# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Sessions on resident nodes: latency, CPU against the primitives, and how many a second.

The primitives are measured between batches of sessions, and each batch is set against the primitives beside it: a
machine that slows down for a while slows both, and the ratio stands.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from lab.bench import rows
from lab.bench.primitives import (
    Primitive,
    bare_handshake,
    peer_data_primitives,
    primitive_sum,
    primitives,
    quote_primitives,
)
from lab.bench.resident import ATTESTATION, LISTENERS, ResidentLab
from lab.bench.roles import cpu_seconds
from lab.bench.rows import Part, Quantity, Row
from lab.bench.spread import Spread
from lab.engines.base import Progress
from lab.evidence import LAB
from migtd.checks import CheckName
from migtd.choices import SKIPS_OF

WARM_UP = 10
"""Sessions before the first that counts; some more, at once, have all connections opened."""


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """How much is measured: `batches` of `batch` sessions, and per rate `rounds` of `sessions[concurrent]`."""

    batches: int
    batch: int
    rounds: int
    sessions: dict[int, int]


FULL = SessionPlan(batches=15, batch=40, rounds=3, sessions={1: 100, 16: 256, 256: 768})
QUICK = SessionPlan(batches=2, batch=10, rounds=1, sessions={1: 5, 16: 16, 256: 64})


@dataclass(frozen=True, slots=True)
class Kind:
    """Sessions of one attestation mode and policy version, and the rows that they are measured for."""

    attestation: str
    policy_version: int
    primitives: Quantity
    latency: Quantity
    cpu: Quantity
    ratio: Quantity
    rates: dict[int, Quantity]

    def table(self) -> tuple[Primitive, ...]:
        """What any implementation of such a session must run."""
        shared = primitives(self_signatures_verified=self_signatures_verified(self.attestation))
        if CheckName.QUOTE_PEER in SKIPS_OF[self.attestation]:
            return shared
        if self.policy_version == 1:
            return shared + quote_primitives(quotes=2)
        # Each side has a second quote of its own, which `self` in the policy stands for.
        return shared + quote_primitives(quotes=4) + peer_data_primitives()

    @property
    def name(self) -> str:
        """For people who wait."""
        return f"{self.attestation}, policy v{self.policy_version}"


BARE = Kind(ATTESTATION, 1, rows.PRIMITIVES, rows.LATENCY, rows.CPU, rows.CPU_RATIO, rows.RATES)
ATTESTED = Kind(LAB, 1, rows.LAB_PRIMITIVES, rows.LAB_LATENCY, rows.LAB_CPU, rows.LAB_RATIO, {})
POLICY_V2 = Kind(LAB, 2, rows.V2_PRIMITIVES, rows.V2_LATENCY, rows.V2_CPU, rows.V2_RATIO, {})
KINDS = {Part.SESSIONS: BARE, Part.ATTESTED: ATTESTED, Part.POLICY_V2: POLICY_V2}
"""By the part of the bench that measures them."""


def yardsticks(kind: Kind, plan: SessionPlan) -> list[Row]:
    """The primitives by themselves, with nothing else running."""
    table = kind.table()
    return [Row(kind.primitives, "", Spread.of(primitive_sum(table, plan.batch) for _ in range(plan.batches)))]


def handshake(plan: SessionPlan) -> Row:
    """The bare handshake."""
    return Row(rows.HANDSHAKE, "", bare_handshake(plan.batches * plan.batch))


async def measure(
    lab: ResidentLab, engine: str, kind: Kind, plan: SessionPlan, progress: Progress
) -> AsyncIterator[Row]:
    """The rows of one engine. `lab` is one of `kind`. Raises as ResidentLab.run does."""
    progress(f"{engine}, {kind.name}: {plan.batches} batches of {plan.batch} sessions, one after the other")
    await lab.run(await lab.make_targets(WARM_UP), at_once=1)
    await lab.run(await lab.make_targets(4 * LISTENERS), at_once=2 * LISTENERS)
    await lab.latencies([])
    table = kind.table()
    latencies: list[float] = []
    session_cpu: list[float] = []
    ratios: list[float] = []
    before = await asyncio.to_thread(primitive_sum, table, plan.batch)
    for _ in range(plan.batches):
        targets = await lab.make_targets(plan.batch)
        started = cpu_seconds(lab.pids.values())
        request_ids = await lab.run(targets, at_once=1)
        spent = (cpu_seconds(lab.pids.values()) - started) / plan.batch * 1000
        after = await asyncio.to_thread(primitive_sum, table, plan.batch)
        latencies += await lab.latencies(request_ids)
        session_cpu.append(spent)
        ratios.append(spent / ((before + after) / 2))
        before = after
    yield Row(kind.latency, engine, Spread.of(latencies))
    if lab.pids:
        yield Row(kind.cpu, engine, Spread.of(session_cpu), f"per batch of {plan.batch}")
        yield Row(kind.ratio, engine, Spread.of(ratios), "each batch against the primitives beside it")
    for concurrent, quantity in kind.rates.items():
        count = plan.sessions[concurrent]
        progress(f"{engine}: {plan.rounds} x {count} sessions, {concurrent} at once")
        rates = [await _rate(lab, count, concurrent) for _ in range(plan.rounds)]
        yield Row(quantity, engine, Spread.of(rates), f"{count} sessions a round")


def self_signatures_verified(attestation: str) -> int:
    """How many of a session's two self-signatures a mode verifies."""
    return 0 if CheckName.CERTIFICATE_SIGNATURE in SKIPS_OF[attestation] else 2


async def _rate(lab: ResidentLab, count: int, concurrent: int) -> float:
    targets = await lab.make_targets(count)
    started = time.perf_counter()
    await lab.run(targets, concurrent)
    return count / (time.perf_counter() - started)
