# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Where a lab runs: one small interface, one module per engine, and the choice between them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from lab import failures
from lab.choices import ENGINE
from lab.engines.base import Availability, Engine, LabStatus
from lab.errors import EngineError, TaskError
from lab.state import remembered, state_roots


def docker() -> Engine:
    """The engine `docker`."""
    from lab.engines.docker import DockerEngine  # noqa: PLC0415 - only what is used is loaded

    return DockerEngine()


def process() -> Engine:
    """The engine `process`."""
    from lab.engines.process import ProcessEngine  # noqa: PLC0415 - as above

    return ProcessEngine()


ENGINES: Final[Mapping[str, Callable[[], Engine]]] = {"docker": docker, "process": process}
"""By name, in the order of preference."""


def choose(
    name: str | None, say: Callable[[str], None], engines: Mapping[str, Callable[[], Engine]] = ENGINES
) -> Engine:
    """The engine for a new lab: the one asked for, else the first that can be used; `say` is told which and why.

    Raises UsageError (LAB-VALUE-UNKNOWN, LAB-COMES-LATER) and EngineError (LAB-ENGINE-UNAVAILABLE, or the engine's own
    failure, such as LAB-ENGINE-LOST).
    """
    if name is not None:
        engine = engines[ENGINE.require(name)]()
        found = engine.available()
        if not found.usable:
            raise _failure(name, found)
        return engine
    reasons: list[str] = []
    for candidate, make in engines.items():
        engine = make()
        found = engine.available()
        if found.usable:
            say(f"engine {candidate} ({'; '.join([*reasons, 'give --engine to choose'])})")
            return engine
        reasons.append(f"{candidate} cannot be used: {found.detail}")
    raise EngineError(failures.ENGINE_UNAVAILABLE, "; ".join(reasons))


@dataclass(frozen=True, slots=True)
class Silent:
    """An engine that cannot be asked about labs now, and why."""

    engine: str
    failure: TaskError

    def holds(self, lab: str) -> bool:
        """Whether `up` started, or began to start, a lab of that name there."""
        return lab in remembered(state_roots(os.environ), self.engine)


def survey(
    name: str | None, engines: Mapping[str, Callable[[], Engine]] = ENGINES
) -> tuple[list[Engine], list[Silent]]:
    """The engines to ask about labs that exist (the one named, else all), and those that cannot be asked.

    Raises as `choose` does where the engine named cannot be used.
    """
    if name is not None:
        return [choose(name, lambda _: None, engines)], []
    usable: list[Engine] = []
    silent: list[Silent] = []
    for each, make in engines.items():
        engine = make()
        found = engine.available()
        if found.usable:
            usable.append(engine)
        else:
            silent.append(Silent(each, _failure(each, found)))
    return usable, silent


def usable(name: str | None, engines: Mapping[str, Callable[[], Engine]] = ENGINES) -> list[Engine]:
    """The engines that can be used here, or the one named. Raises as `choose` does."""
    return survey(name, engines)[0]


def find(lab: str, name: str | None, engines: Mapping[str, Callable[[], Engine]] = ENGINES) -> tuple[Engine, LabStatus]:
    """A running lab and its engine.

    Raises EngineError: LAB-NOT-RUNNING, or the failure of the engine on which the lab was started.
    """
    asked, silent = survey(name, engines)
    for engine in asked:
        for status in engine.labs():
            if status.lab == lab:
                return engine, status
    for each in silent:
        if each.holds(lab):
            raise EngineError(each.failure.kind, f"{each.failure.detail} ({lab} was started on {each.engine})")
    for engine in asked:
        if lab in remembered(state_roots(os.environ), engine.name):
            raise EngineError(failures.NOT_RUNNING, f"{lab}; nothing is left of what was started on {engine.name}")
    raise EngineError(failures.NOT_RUNNING, lab)


def _failure(name: str, found: Availability) -> TaskError:
    if found.failure is not None:
        return found.failure
    advice = f" ({found.advice})" if found.advice else ""
    return EngineError(failures.ENGINE_UNAVAILABLE, f"{name}: {found.detail}{advice}")
