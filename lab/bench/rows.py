# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The rows of the bench: what is measured, in which unit, and the target where there is one.

Every row has a stable id, `QUANTITY` or `QUANTITY.ENGINE`; a part of the bench measures several rows at once.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from lab import failures
from lab.bench.spread import Spread
from lab.errors import UsageError


class Part(enum.StrEnum):
    """What is measured together, in this order: what needs a quiet machine first, what leaves caches cold last."""

    SESSIONS = "sessions"
    QUOTES = "quotes"
    ATTESTED = "attested-sessions"
    POLICY_V2 = "policy-v2-sessions"
    MEMORY = "memory"
    START = "start"
    IMAGES = "images"
    COLD_START = "cold-start"


class Verdict(enum.StrEnum):
    """How a row compares with its target."""

    MET = "met"
    MISSED = "missed"
    NO_TARGET = "no target"


@dataclass(frozen=True, slots=True)
class Target:
    """A bound for the median, which may reach it: an upper one, unless `at_least`."""

    bound: float
    at_least: bool = False

    def verdict(self, median: float) -> Verdict:
        """Whether a median is within the bound."""
        within = median >= self.bound if self.at_least else median <= self.bound
        return Verdict.MET if within else Verdict.MISSED


@dataclass(frozen=True, slots=True)
class Quantity:
    """What a row is about. `targets` are by engine; "" stands for every engine."""

    id: str
    part: Part
    title: str
    unit: str
    targets: tuple[tuple[str, Target], ...] = ()

    def target(self, engine: str) -> Target | None:
        """The target for an engine, if there is one."""
        targets = dict(self.targets)
        return targets.get(engine) or targets.get("")


@dataclass(frozen=True, slots=True)
class Row:
    """One measured quantity on one engine (`engine` "": on none). `note` says what a reader must know of this run."""

    quantity: Quantity
    engine: str
    spread: Spread
    note: str = ""

    @property
    def id(self) -> str:
        """Stable id."""
        return f"{self.quantity.id}.{self.engine}" if self.engine else self.quantity.id

    @property
    def target(self) -> Target | None:
        """The target, if there is one."""
        return self.quantity.target(self.engine)

    @property
    def verdict(self) -> Verdict:
        """How the median compares with the target."""
        return self.target.verdict(self.spread.median) if self.target is not None else Verdict.NO_TARGET


def _at_most(bound: float, engine: str = "") -> tuple[tuple[str, Target], ...]:
    return ((engine, Target(bound)),)


_RATE: Final = (("", Target(60, at_least=True)),)

LATENCY: Final = Quantity("session-latency", Part.SESSIONS, "session on resident nodes", "ms", _at_most(20))
PRIMITIVES: Final = Quantity("primitives", Part.SESSIONS, "OpenSSL primitives of one session, CPU", "ms")
HANDSHAKE: Final = Quantity("bare-handshake", Part.SESSIONS, "the same as one TLS handshake in memory, CPU", "ms")
CPU: Final = Quantity("session-cpu", Part.SESSIONS, "session, CPU of hosts and MigTDs", "ms")
CPU_RATIO: Final = Quantity("cpu-ratio", Part.SESSIONS, "session CPU over primitives", "x", _at_most(2))
RATES: Final = {
    concurrent: Quantity(f"rate-{concurrent}", Part.SESSIONS, f"sessions a second, {concurrent} at once", "1/s", _RATE)
    for concurrent in (1, 16, 256)
}
QUOTE: Final = Quantity(
    "quote-verification", Part.QUOTES, "a quote verified with its collateral, CPU", "ms", _at_most(6)
)
QUOTE_PREPARED: Final = Quantity(
    "quote-prepared", Part.QUOTES, "the same with collateral that was verified before, CPU", "ms"
)
QUOTE_DCAP: Final = Quantity("quote-dcap-qvl", Part.QUOTES, "the same quote and collateral by dcap-qvl, CPU", "ms")
LAB_LATENCY: Final = Quantity("lab-latency", Part.ATTESTED, "session in mode lab", "ms", _at_most(40))
LAB_PRIMITIVES: Final = Quantity("lab-primitives", Part.ATTESTED, "primitives of one session in mode lab, CPU", "ms")
LAB_CPU: Final = Quantity("lab-cpu", Part.ATTESTED, "session in mode lab, CPU of hosts and MigTDs", "ms")
LAB_RATIO: Final = Quantity(
    "lab-cpu-ratio", Part.ATTESTED, "session CPU in mode lab over its primitives", "x", _at_most(1.5)
)
V2_LATENCY: Final = Quantity("v2-latency", Part.POLICY_V2, "session with policy v2", "ms", _at_most(50))
V2_PRIMITIVES: Final = Quantity("v2-primitives", Part.POLICY_V2, "primitives of one session with policy v2, CPU", "ms")
V2_CPU: Final = Quantity("v2-cpu", Part.POLICY_V2, "session with policy v2, CPU of hosts and MigTDs", "ms")
V2_RATIO: Final = Quantity(
    "v2-cpu-ratio", Part.POLICY_V2, "session CPU with policy v2 over its primitives", "x", _at_most(1.5)
)
MIGTD_MEMORY: Final = Quantity("migtd-memory", Part.MEMORY, "resident MigTD, RSS", "MB", _at_most(60))
MIGTD_SHARE: Final = Quantity("migtd-pss", Part.MEMORY, "resident MigTD, PSS", "MB")
HOST_MEMORY: Final = Quantity("host-memory", Part.MEMORY, "resident host, RSS", "MB")
MIGTD_EXTRA: Final = Quantity("migtd-extra", Part.MEMORY, "each extra session at once, MigTD RSS", "MB")
HOST_EXTRA: Final = Quantity("host-extra", Part.MEMORY, "each extra session at once, host RSS", "MB")
MIGTD_GROWTH: Final = Quantity("migtd-growth", Part.MEMORY, "growth per session of a third burst, MigTD RSS", "MB")
HOST_GROWTH: Final = Quantity("host-growth", Part.MEMORY, "growth per session of a third burst, host RSS", "MB")
WARM: Final = Quantity(
    "up-warm",
    Part.START,
    "`up`, images and caches there",
    "s",
    (("docker", Target(5)), ("process", Target(1.5))),
)
HUNDRED: Final = Quantity("up-100", Part.START, "`up` with 100 migrations", "s", _at_most(4, "process"))
IMAGE: Final = Quantity("image-size", Part.IMAGES, "largest image", "MB", _at_most(120))
LAYERS: Final = Quantity("image-layers", Part.IMAGES, "our layers of it, on the base image", "MB", _at_most(45))
COLD: Final = Quantity(
    "up-cold", Part.COLD_START, "first `up` of a fresh checkout, no registry", "s", _at_most(120, "docker")
)

QUANTITIES: Final = (
    LATENCY,
    PRIMITIVES,
    HANDSHAKE,
    CPU,
    CPU_RATIO,
    *RATES.values(),
    QUOTE,
    QUOTE_PREPARED,
    QUOTE_DCAP,
    LAB_LATENCY,
    LAB_PRIMITIVES,
    LAB_CPU,
    LAB_RATIO,
    V2_LATENCY,
    V2_PRIMITIVES,
    V2_CPU,
    V2_RATIO,
    MIGTD_MEMORY,
    MIGTD_SHARE,
    HOST_MEMORY,
    MIGTD_EXTRA,
    HOST_EXTRA,
    MIGTD_GROWTH,
    HOST_GROWTH,
    WARM,
    HUNDRED,
    IMAGE,
    LAYERS,
    COLD,
)
"""In the order of the table."""


def wanted(names: list[str]) -> list[Quantity]:
    """The quantities of the given ids, or all if none is given. Raises UsageError (LAB-VALUE-UNKNOWN)."""
    known = {quantity.id: quantity for quantity in QUANTITIES}
    for name in names:
        if name not in known:
            raise UsageError(failures.VALUE_UNKNOWN, f"row {name[:40]!r}; known: {', '.join(known)}")
    return [quantity for quantity in QUANTITIES if not names or quantity.id in names]
