# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Where a lab runs: one small interface, one module per engine, and the choice between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from lab import failures
from lab.choices import ENGINE
from lab.engines.base import Engine, LabStatus
from lab.errors import EngineError


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

    Raises UsageError (LAB-VALUE-UNKNOWN, LAB-COMES-LATER) and EngineError (LAB-ENGINE-UNAVAILABLE).
    """
    if name is not None:
        engine = engines[ENGINE.require(name)]()
        found = engine.available()
        if not found.usable:
            raise EngineError(failures.ENGINE_UNAVAILABLE, _because(name, found.detail, found.advice))
        return engine
    reasons: list[str] = []
    for candidate, make in engines.items():
        engine = make()
        found = engine.available()
        if found.usable:
            say(f"engine {candidate} ({'; '.join([*reasons, 'give --engine to choose'])})")
            return engine
        reasons.append(f"not {_because(candidate, found.detail, found.advice)}")
    raise EngineError(failures.ENGINE_UNAVAILABLE, "; ".join(reasons))


def usable(name: str | None, engines: Mapping[str, Callable[[], Engine]] = ENGINES) -> list[Engine]:
    """The engines to ask about labs that exist: the one named, else all that can be used here.

    Raises as `choose` does where the engine named cannot be used.
    """
    if name is not None:
        return [choose(name, lambda _: None, engines)]
    return [engine for engine in (make() for make in engines.values()) if engine.available().usable]


def find(lab: str, name: str | None, engines: Mapping[str, Callable[[], Engine]] = ENGINES) -> tuple[Engine, LabStatus]:
    """A running lab and its engine. Raises EngineError (LAB-NOT-RUNNING)."""
    for engine in usable(name, engines):
        for status in engine.labs():
            if status.lab == lab:
                return engine, status
    raise EngineError(failures.NOT_RUNNING, lab)


def _because(name: str, detail: str, advice: str) -> str:
    return f"{name}: {detail}{f' ({advice})' if advice else ''}"
