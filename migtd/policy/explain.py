# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The explain trace of an evaluation: which rule, what was wanted, what was found, from where, and who judges.

Evaluators append a `Finding` per rule that they come to. `summarize` shows one in a line, `describe` in a few,
`summarize_all` shows as many as there is room for, `explain_refusal` those that made the evaluation refuse.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from migtd.policy.errors import PolicyError

MAX_VALUE_BYTES: Final = 64
"""Longer values are cut: the record's longest field that a policy can name has 48 bytes."""
MAX_REFERENCE: Final = 130
MAX_NAME: Final = 80
MAX_SHOWN: Final = 5
"""Rules that are shown with a refusal; only alternatives make it more than one."""
MAX_SUMMARY: Final = 7_500
"""Bytes of JSON that all lines of a summary take: what a host takes of a guest's explanation, with room to spare."""


class Judge(enum.StrEnum):
    """The side whose policy is evaluated."""

    SOURCE = "source"
    DESTINATION = "destination"


class Verdict(enum.StrEnum):
    """What became of a rule."""

    MET = "met"
    NOT_MET = "not met"
    UNKNOWN_NAME = "unknown name"
    UNUSABLE = "cannot be applied"
    """The operation does not fit the reference, or the reference the value (policy v2)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule and what was found.

    `block` counts from 1 in file order, 0 where no block was chosen; `part` is the path in it (`QE.QeIdentity`); `name`
    the property. `operation` and `reference` are the policy's, the latter as written there. `local` and `peer` are what
    was compared, None where there was nothing: with v1 bytes as hex, with v2 texts and numbers, `local` being what
    `self` and `init` stand for. `field` says where they come from.
    """

    block: int
    part: str
    name: str
    operation: str
    reference: str
    local: str | None
    peer: str | None
    field: str
    judge: Judge
    verdict: Verdict

    def document(self) -> dict[str, Any]:
        """The finding as JSON takes it."""
        return asdict(self)


def shown_value(value: bytes | None) -> str | None:
    """Bytes as hex; beyond MAX_VALUE_BYTES cut, with the number of bytes."""
    if value is None or len(value) <= MAX_VALUE_BYTES:
        return None if value is None else value.hex()
    return f"{value[:MAX_VALUE_BYTES].hex()}… ({len(value)} bytes)"


def shown_text(value: str | int | None) -> str | None:
    """A text or a number of either side, on one line, cut where it is long."""
    return None if value is None else shown_reference(str(value))


def shown_reference(written: str) -> str:
    """A reference as it is written, on one line, cut where it is long."""
    line = _printable(" ".join(written.split()))
    return line if len(line) <= MAX_REFERENCE else f"{line[:MAX_REFERENCE]}… ({len(line)} characters)"


def shown_name(name: str) -> str:
    """A name of a policy, cut where it is long."""
    return _printable(name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…")


def summarize(finding: Finding) -> str:
    """One finding in one line; with both sides' values where the rule is not met."""
    line = f"{finding.verdict.value}: {_rule(finding)}: {_wanted(finding)}"
    if finding.verdict is Verdict.MET:
        return line
    return f"{line}; local {_side(finding.local)}, peer {_side(finding.peer)} ({finding.field})"


def summarize_all(trace: Sequence[Finding], room: int = MAX_SUMMARY) -> tuple[str, ...]:
    """A line for each finding in order, or, beyond `room` bytes of JSON, for the first ones and those not met.

    A line in their place tells how many are left out. A policy has some forty rules; a hostile one may have thousands.
    """
    unmet = [number for number, each in enumerate(trace) if each.verdict is not Verdict.MET][-MAX_SHOWN:]
    kept: dict[int, str] = {}
    for number in (*reversed(unmet), *(number for number in range(len(trace)) if number not in unmet)):
        line = summarize(trace[number])
        room -= _size(line)
        if room < 0:
            break
        kept[number] = line
    lines = [kept[number] for number in sorted(kept)]
    if len(kept) < len(trace):
        gap = next(number for number in range(len(trace)) if number not in kept)
        lines.insert(gap, f"… {len(trace) - len(kept)} more rules")
    return tuple(lines)


def describe(finding: Finding) -> str:
    """One finding in four lines: the rule, what it wants, and what each side has, from where."""
    return "\n".join(
        (
            f"{_rule(finding)}: {finding.verdict.value}, judged by the {finding.judge.value}",
            f"  wanted: {_wanted(finding)}",
            f"  local:  {_side(finding.local)} ({finding.field})",
            f"  peer:   {_side(finding.peer)}",
        )
    )


def explain_refusal(error: PolicyError, trace: Sequence[Finding]) -> str:
    """The error with the rules that were not met: the last one, and before it others of the same kind of block."""
    unmet = [each for each in trace if each.verdict is not Verdict.MET]
    if not unmet:
        return str(error)
    decisive = [each for each in unmet if each.part == unmet[-1].part]
    more = [f"{len(decisive) - MAX_SHOWN} more"] if len(decisive) > MAX_SHOWN else []
    return "\n".join([str(error), *(describe(each) for each in decisive[-MAX_SHOWN:]), *more])


def _rule(finding: Finding) -> str:
    block = f"block {finding.block}, " if finding.block else ""
    return f"{block}{finding.part} {finding.name}"


def _wanted(finding: Finding) -> str:
    return f"{finding.operation} {finding.reference}"


def _side(value: str | None) -> str:
    return "nothing" if value is None else value or "no bytes"


def _size(line: str) -> int:
    """Bytes of a line in a JSON array."""
    return len(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace")) + 1


def _printable(text: str) -> str:
    """The text with a question mark for each character that could steer a terminal."""
    return "".join(each if each.isprintable() else "?" for each in text)
