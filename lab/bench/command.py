# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`bench`: measure what was asked for on every engine that answers, show it, and write it down if asked.

A missed target is no failure: it says that this machine, as loaded as it is now, is slower than two quiet cores.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from lab import engines, failures
from lab.bench import footprint, quotes, report, sessions, start
from lab.bench.footprint import MemoryPlan
from lab.bench.resident import resident_lab
from lab.bench.rows import Part, Quantity, Row, wanted
from lab.bench.sessions import SessionPlan
from lab.bench.start import StartPlan
from lab.engines.base import Engine
from lab.errors import EngineError, ExitStatus, UsageError
from lab.interrupts import run_interruptible
from lab.names import checkout_path
from lab.options import BenchOptions
from lab.progress import Steps, steps


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured of each part."""

    sessions: SessionPlan
    quotes: int
    """Verifications of a quote, by each verifier."""
    memory: MemoryPlan
    start: StartPlan
    cold: bool


FULL: Final = Plan(sessions.FULL, 200, footprint.FULL, start.FULL, cold=True)
QUICK: Final = Plan(sessions.QUICK, 5, footprint.QUICK, start.QUICK, cold=False)


def bench(options: BenchOptions) -> ExitStatus:
    """Measure and show; SUCCESS if everything could be measured.

    Raises UsageError (LAB-VALUE-UNKNOWN for a row that there is none of, or not there; LAB-USAGE-VALUE-INVALID for half
    a table to be written), EngineError (LAB-ENGINE-UNAVAILABLE) and what the measured commands raise.
    """
    chosen = wanted(list(options.only))
    if options.write and (options.only or options.quick):
        raise UsageError(
            failures.USAGE_VALUE_INVALID, f"--write: {report.PAGE} has whole tables; no --only, no --quick"
        )
    return run_interruptible(_bench(options, chosen))


async def _bench(options: BenchOptions, chosen: Sequence[Quantity]) -> ExitStatus:
    load = os.getloadavg()[0]
    with steps("looking for engines") as progress:
        usable = await asyncio.to_thread(engines.usable, options.engine)
        if not usable:
            raise EngineError(failures.ENGINE_UNAVAILABLE, "none of the engines can be used here")
        # Containers last: their engine keeps working for a while when they are gone.
        usable.sort(key=lambda engine: engine.name, reverse=True)
        progress.say(f"engines: {', '.join(engine.name for engine in usable)}; load {load:.2f}")
        parts = {quantity.part for quantity in chosen}
        found = [row async for row in _measure(usable, parts, QUICK if options.quick else FULL, progress)]
    measured = [row for row in found if row.quantity in chosen]
    if not measured:
        names = ", ".join(engine.name for engine in usable)
        rows = ", ".join(quantity.id for quantity in chosen)
        raise UsageError(failures.VALUE_UNKNOWN, f"there is nothing to measure of {rows} with {names} and these flags")
    machine = describe_machine(load)
    if options.write:
        page = checkout_path() / report.PAGE
        text = report.replace_measured(
            page.read_text(encoding="utf-8"), report.markdown(measured, _described(options, machine))
        )
        page.write_text(text, encoding="utf-8")
    if options.json:
        sys.stdout.write(json.dumps(report.document(measured, machine)) + "\n")
    else:
        from lab.output import console  # noqa: PLC0415 - slow to import, and not needed for --json

        console().print(report.table(measured))
    return ExitStatus.SUCCESS


async def _measure(
    usable: Sequence[Engine], parts: Collection[Part], plan: Plan, progress: Steps
) -> AsyncIterator[Row]:
    """All rows of these parts."""
    async for row in _local_rows(parts, plan, progress):
        yield row
    for engine in usable:
        async for row in _resident_rows(engine, parts, plan, progress):
            yield row
        for row in await asyncio.to_thread(_start_rows, engine.name, parts, plan, progress):
            yield row
    if Part.COLD_START in parts and plan.cold:
        for engine in usable:
            yield await asyncio.to_thread(start.cold_row, engine.name, progress)


async def _local_rows(parts: Collection[Part], plan: Plan, progress: Steps) -> AsyncIterator[Row]:
    """What is measured in this process, on no engine."""
    for kind in _kinds(parts):
        progress(f"the primitives of {kind.name}")
        for row in await asyncio.to_thread(sessions.yardsticks, kind, plan.sessions):
            yield row
    if Part.SESSIONS in parts:
        yield await asyncio.to_thread(sessions.handshake, plan.sessions)
    if Part.QUOTES in parts:
        progress("quotes")
        for row in await asyncio.to_thread(quotes.measure, plan.quotes):
            yield row


async def _resident_rows(engine: Engine, parts: Collection[Part], plan: Plan, progress: Steps) -> AsyncIterator[Row]:
    for kind in _kinds(parts):
        async with resident_lab(engine, progress.say, kind.attestation, kind.policy_version) as lab:
            async for row in sessions.measure(lab, engine.name, kind, plan.sessions, progress):
                yield row
    if Part.MEMORY in parts:
        # A lab of its own: what the sessions before left behind is no part of it.
        async with resident_lab(engine, progress.say) as lab:
            for row in await footprint.measure(lab, engine.name, plan.memory, progress):
                yield row


def _kinds(parts: Collection[Part]) -> list[sessions.Kind]:
    return [kind for part, kind in sessions.KINDS.items() if part in parts]


def _start_rows(engine: str, parts: Collection[Part], plan: Plan, progress: Steps) -> list[Row]:
    found: list[Row] = []
    if Part.START in parts:
        found += start.warm_rows(engine, plan.start, progress)
    if Part.IMAGES in parts and engine == "docker":
        found += start.image_rows(progress)
    return found


def _described(options: BenchOptions, machine: Mapping[str, str]) -> dict[str, str]:
    """The machine behind the command that measured it."""
    engine = f" --engine {options.engine}" if options.engine else ""
    return {"command": f"`./inv bench{engine} --write`", **machine}


def describe_machine(load: float) -> dict[str, str]:
    """What a reader needs to compare: machine, system, libraries, and the load when the bench began."""
    from cryptography.hazmat.backends.openssl import backend  # noqa: PLC0415 - only here is it asked for its version

    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": f"{os.cpu_count()} x {_processor()}",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}, "
        f"{backend.openssl_version_text()}",
        "load before": f"{load:.2f}",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
