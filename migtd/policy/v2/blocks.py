# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The evaluation of a v2 policy's blocks: entries in order, then what no block is without (policy.md 2.5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from migtd.policy.errors import PolicyError, PolicyErrorName
from migtd.policy.explain import Finding, Judge, Verdict, shown_name, shown_text
from migtd.policy.v2.entries import Entry, GlobalEntry, ServtdEntry
from migtd.policy.v2.properties import (
    Property,
    integer_holds,
    platform_status_holds,
    servtd_status_holds,
    string_holds,
)
from migtd.policy.v2.status import PLATFORM_RANKS, REVOKED, SERVTD_RANKS, rank
from migtd.policy.v2.values import Values

T = TypeVar("T", int, str)

COMMON: Final = "policy"
FORWARD: Final = "forwardPolicy"
BACKWARD: Final = "backwardPolicy"
"""The blocks by their keys in policyData."""

_TCB: Final = PolicyErrorName.TcbEvaluation
_CRL: Final = PolicyErrorName.CrlEvaluation
_UNQUALIFIED: Final = PolicyErrorName.UnqualifiedMigTdInfo
_SVN: Final = PolicyErrorName.SvnMismatch

_QUOTED: Final = "the platform's TCB level"
_COLLATERAL: Final = "the own collaterals"
_MAPPED: Final = "the peer's TCB mapping"
_IDENTITY: Final = "the peer's identity"


@dataclass(frozen=True, slots=True)
class ShownRule:
    """A rule as people are shown it; `number` counts entries from 1, 0 for what is in no entry."""

    number: int
    part: str
    name: str
    operation: str
    reference: str
    source: str


@dataclass(frozen=True, slots=True)
class Notes:
    """Where findings go: `judge` is the side whose policy is evaluated."""

    judge: Judge
    trace: list[Finding] = field(default_factory=list)

    def add(self, rule: ShownRule, verdict: Verdict, local: str | int | None, peer: str | int | None) -> None:
        """Append what was found of one rule."""
        self.trace.append(
            Finding(
                block=rule.number,
                part=rule.part,
                name=rule.name,
                operation=shown_name(rule.operation),
                reference=rule.reference,
                local=shown_text(local),
                peer=shown_text(peer),
                field=rule.source,
                judge=self.judge,
                verdict=verdict,
            )
        )


def evaluate_block(
    block: Iterable[Entry] | None, values: Values, relative: Values, *, name: str, skip_global: bool, notes: Notes
) -> None:
    """Evaluate the block `name`; None is an empty one. `relative` is what `self` and `init` stand for.

    With `skip_global` nothing is asked of the platform. Raises PolicyError: TcbEvaluation, CrlEvaluation,
    UnqualifiedMigTdInfo, SvnMismatch, InvalidReference, InvalidOperation, InvalidParameter.
    """
    for number, entry in enumerate(block or (), 1):
        match entry:
            case GlobalEntry() if not skip_global:
                evaluate_global(entry, values, relative, part=f"{name}.global", number=number, notes=notes)
            case ServtdEntry():
                _evaluate_servtd(entry, values, relative, part=f"{name}.servtd", number=number, notes=notes)
    if not skip_global and values.tcb_status is not None:
        _expect_not_revoked(values.tcb_status, PLATFORM_RANKS, _TCB, notes, (name, "tcbStatus", _QUOTED))
    if values.migtd_tcb_status is None:
        _note_mandatory(notes, (name, "migtdTcbStatus", _IDENTITY), Verdict.NOT_MET, None)
        raise PolicyError(_UNQUALIFIED, "the peer's MigTD has no TCB level: its measurements are not in its mapping")
    _expect_not_revoked(values.migtd_tcb_status, SERVTD_RANKS, _SVN, notes, (name, "migtdTcbStatus", _IDENTITY))


def evaluate_global(
    entry: GlobalEntry, values: Values, relative: Values, *, part: str, number: int, notes: Notes
) -> None:
    """Evaluate a `global` entry, without the checks of a block. Raises PolicyError as `evaluate_block`."""
    rules = _Rules(part, number, notes)
    rules.apply(
        "tcb.tcbEvaluationDataNumber",
        entry.tcb_evaluation_number,
        (values.tcb_evaluation_number, relative.tcb_evaluation_number, _COLLATERAL),
        integer_holds,
        (_TCB, _TCB),
    )
    if entry.tcb_status is not None and values.tcb_status is not None and values.tcb_status not in PLATFORM_RANKS:
        rules.refuse_status("tcb.tcbStatusAccepted", entry.tcb_status, values.tcb_status, _QUOTED, _TCB)
    rules.apply(
        "tcb.tcbStatusAccepted",
        entry.tcb_status,
        (values.tcb_status, relative.tcb_status, _QUOTED),
        platform_status_holds,
        (_TCB, _TCB),
    )
    rules.apply(
        "tcb.tcbDate", entry.tcb_date, (values.tcb_date, relative.tcb_date, _QUOTED), string_holds, (_TCB, _TCB)
    )
    rules.apply(
        "platform.fmspc",
        entry.fmspc,
        (values.fmspc, relative.fmspc, "the quote's PCK certificate"),
        string_holds,
        (_TCB, _TCB),
    )
    rules.apply(
        "crl.pckCrlNum",
        entry.pck_crl_num,
        (values.pck_crl_num, relative.pck_crl_num, _COLLATERAL),
        integer_holds,
        (_CRL, _CRL),
    )
    rules.apply(
        "crl.rootCaCrlNum",
        entry.root_ca_crl_num,
        (values.root_ca_crl_num, relative.root_ca_crl_num, _COLLATERAL),
        integer_holds,
        (_CRL, _CRL),
    )


def _evaluate_servtd(
    entry: ServtdEntry, values: Values, relative: Values, *, part: str, number: int, notes: Notes
) -> None:
    rules = _Rules(part, number, notes)
    names = (_UNQUALIFIED, _SVN)
    rules.apply(
        "migtdIdentity.isvsvn",
        entry.isvsvn,
        (values.migtd_isvsvn, relative.migtd_isvsvn, _MAPPED),
        integer_holds,
        names,
    )
    rules.apply(
        "migtdIdentity.tcbDate",
        entry.tcb_date,
        (values.migtd_tcb_date, relative.migtd_tcb_date, _IDENTITY),
        string_holds,
        names,
    )
    status = values.migtd_tcb_status
    if entry.tcb_status is not None and status is not None and status not in SERVTD_RANKS:
        rules.refuse_status("migtdIdentity.tcbStatusAccepted", entry.tcb_status, status, _IDENTITY, _UNQUALIFIED)
    rules.apply(
        "migtdIdentity.tcbStatusAccepted",
        entry.tcb_status,
        (status, None, _IDENTITY),
        lambda rule, value, _relative: servtd_status_holds(rule, value),
        names,
    )


@dataclass(frozen=True, slots=True)
class _Rules:
    """Applies the rules of one entry and notes what is found."""

    part: str
    number: int
    notes: Notes

    def apply(
        self,
        name: str,
        rule: Property | None,
        sides: tuple[T | None, T | None, str],
        holds: Callable[[Property, T, T | None], bool],
        errors: tuple[PolicyErrorName, PolicyErrorName],
    ) -> None:
        """Apply a rule, if there is one; `sides` are the peer's value, the own one, and where they come from.

        Raises PolicyError: the first of `errors` if the peer has no value, the second if the rule is not met.
        """
        if rule is None:
            return
        value, relative, source = sides
        shown = self._shown(name, rule, source)
        absent, unmet = errors
        if value is None:
            self.notes.add(shown, Verdict.NOT_MET, relative, value)
            raise PolicyError(absent, f"{self._place(name)}: the peer has no value")
        try:
            met = holds(rule, value, relative)
        except PolicyError as error:
            self.notes.add(shown, Verdict.UNUSABLE, relative, value)
            raise PolicyError(error.name, f"{self._place(name)}: {error.detail}") from error
        self.notes.add(shown, Verdict.MET if met else Verdict.NOT_MET, relative, value)
        if not met:
            raise PolicyError(unmet, self._place(name))

    def refuse_status(self, name: str, rule: Property, status: str, source: str, error: PolicyErrorName) -> None:
        """Refuse a status that has no rank."""
        self.notes.add(self._shown(name, rule, source), Verdict.UNKNOWN_NAME, None, status)
        raise PolicyError(error, f"{self._place(name)}: there is no TCB status {shown_name(status)!r}")

    def _shown(self, name: str, rule: Property, source: str) -> ShownRule:
        return ShownRule(self.number, self.part, name, rule.operation, rule.written, source)

    def _place(self, name: str) -> str:
        return f"entry {self.number}, {self.part}.{name}"


def _expect_not_revoked(
    status: str, ranks: Mapping[str, int], error: PolicyErrorName, notes: Notes, rule: tuple[str, str, str]
) -> None:
    name = f"{rule[0]} {rule[1]}"
    if status not in ranks:
        _note_mandatory(notes, rule, Verdict.UNKNOWN_NAME, status)
        rank(status, ranks)
    revoked = status == REVOKED
    _note_mandatory(notes, rule, Verdict.NOT_MET if revoked else Verdict.MET, status)
    if revoked:
        raise PolicyError(error, f"{name} is {REVOKED}")


def _note_mandatory(notes: Notes, rule: tuple[str, str, str], verdict: Verdict, status: str | None) -> None:
    part, name, source = rule
    notes.add(ShownRule(0, part, name, "is known, and not", f'"{REVOKED}"', source), verdict, None, status)
