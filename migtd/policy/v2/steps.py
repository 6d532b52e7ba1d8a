# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The named checks of policy v2 and how they are run (policy.md 2.9, 4.5)."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final, TypeAlias, TypeVar

T = TypeVar("T")


class Step(enum.StrEnum):
    """Every check of the flows; each flow makes its own in a fixed order."""

    OWN_POLICY = "own-policy"
    QUOTE = "quote"
    REPORT = "report"
    REPORT_MAC = "report-mac"
    REPORT_HASHES = "report-hashes"
    ENVELOPE = "envelope"
    REPLAY = "replay"
    RTMRS = "rtmrs"
    PEER_POLICY = "peer-policy"
    PEER_CHAINS = "peer-chains"
    EVENTS = "events"
    POLICY_EVENT = "policy-event"
    VALUES = "values"
    OWNER = "owner"
    SERVTD_EXT = "servtd-ext"
    SERVTD_EXT_HASH = "servtd-ext-hash"
    ENGINE = "engine"
    RELATIVE = "relative"
    COMMON_BLOCK = "common-block"
    FORWARD_BLOCK = "forward-block"
    BACKWARD_BLOCK = "backward-block"
    POLICY_SVN = "policy-svn"


SKIPPABLE: Final = frozenset(
    {Step.REPORT_MAC, Step.REPORT_HASHES, Step.RTMRS, Step.OWNER, Step.SERVTD_EXT_HASH, Step.ENGINE}
)
"""What a mode may be unable to check; nothing that comes later needs what these find."""

Run: TypeAlias = Callable[[Step, Callable[[], None]], None]
"""Makes one check by calling it, and lets through what it raises; or leaves out one that is in SKIPPABLE."""


def run_all(_step: Step, check: Callable[[], None]) -> None:
    """The `Run` that makes every check."""
    check()


def must(run: Run, step: Step, check: Callable[[], T]) -> T:
    """Make a check that a later one builds on, and return what it found. Raises ValueError if `run` leaves it out."""
    found: list[T] = []

    def make() -> None:
        found.append(check())

    run(step, make)
    if not found:
        raise ValueError(f"the check {step} cannot be left out")
    return found[0]
