# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What an outcome document says, held against itself and against the history (design.md, contract 2 and I4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from lab.invariants.event import Violation, number, text
from lab.invariants.run import MIGRATION, UNKNOWN, SideEnd
from migtd.checks import CheckStatus

ROLES: Final = ("source", "destination")

Ends = Mapping[tuple[str, int], Sequence[SideEnd]]
"""How the sides with a role and request id ended, as the history tells."""


def check_outcome(document: object, ends: Ends | None = None) -> Iterator[Violation]:
    """What is wrong with one outcome document; nothing for what is none, such as the document of a failure."""
    if not isinstance(document, Mapping):
        return
    sides = {role: side for role in ROLES if isinstance(side := document.get(role), Mapping)}
    if not sides:
        return
    request_id = number(document, "request_id")
    for sentence in (*_success(document, sides), *_each_side(sides, text(document, "operation") or MIGRATION)):
        yield Violation("I4", "", request_id, 0, sentence)
    for role, side in sides.items():
        known = (ends or {}).get((role, -1 if request_id is None else request_id), ())
        said = SideEnd(text(side, "result"), number(side, "code"), side.get("key_written") is True)
        # The lab says Unknown of a host that it lost; what the host had recorded is another matter.
        if known and said not in known and said.result != UNKNOWN:
            yield Violation("I3", "", request_id, 0, f"{role}: the outcome says {said}, the history {known[-1]}")


def _success(document: Mapping[Any, Any], sides: Mapping[str, Mapping[Any, Any]]) -> Iterator[str]:
    success, match = document.get("success"), document.get("msk_match")
    due = all(number(side, "code") == 0 for side in sides.values()) and match is not False
    if success is not due:
        yield f"`success` is {success!r}, and the sides say otherwise"
    both_wrote = len(sides) == len(ROLES) and all(side.get("key_written") is True for side in sides.values())
    if isinstance(match, bool) is not both_wrote:
        yield f"`msk_match` is {match!r}, and {'both sides' if both_wrote else 'not both sides'} wrote a key"


def _each_side(sides: Mapping[str, Mapping[Any, Any]], operation: str) -> Iterator[str]:
    for role, side in sides.items():
        written, checks = side.get("key_written") is True, side.get("checks")
        checks = checks if isinstance(checks, Sequence) else ()
        failed = any(isinstance(each, Mapping) and each.get("status") == CheckStatus.FAILED for each in checks)
        if written and failed:
            yield f"{role} refused its peer, and yet the peer's key is written"
        if operation == MIGRATION and number(side, "code") == 0 and not written:
            yield f"{role} says Success, and the peer's key is not written"
        if (number(side, "code") is None) is not (text(side, "result") == UNKNOWN):
            yield f"{role}: only a result Unknown has no code"
