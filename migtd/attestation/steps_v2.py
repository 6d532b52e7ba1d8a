# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The steps of policy v2 as the named checks of a session (policy.md 2.9, 4.5).

A step is a check of its own, or a part of one: all that is said of policies is `policy`, all that is said of the MigTD
that a target TD had first is `initial-tdinfo`. A check of several parts is told once: with the part that refuses, or
after the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NoReturn

from migtd.attestation.judging import explained
from migtd.checks import CheckName, CheckRunner
from migtd.errors import MigTDError
from migtd.policy.errors import PolicyError
from migtd.policy.explain import MAX_SUMMARY, Finding, Verdict, summarize_all
from migtd.policy.v2.steps import Step

MIGRATION: Final[Mapping[Step, CheckName]] = MappingProxyType(
    {
        Step.QUOTE: CheckName.QUOTE_PEER,
        Step.REPLAY: CheckName.EVENT_LOG_REPLAY,
        Step.RTMRS: CheckName.RTMRS_EQUAL,
        Step.RELATIVE: CheckName.QUOTE_LOCAL,
        Step.OWNER: CheckName.INITIAL_TDINFO,
        Step.SERVTD_EXT: CheckName.INITIAL_TDINFO,
        Step.SERVTD_EXT_HASH: CheckName.INITIAL_TDINFO,
        Step.ENGINE: CheckName.INITIAL_TDINFO,
    }
)
"""The check of each step in a migration; steps that are not named belong to `policy`."""
REBINDING: Final[Mapping[Step, CheckName]] = MappingProxyType(
    {
        Step.REPORT: CheckName.TDREPORT_HASHES,
        Step.REPORT_MAC: CheckName.TDREPORT_MAC,
        Step.REPORT_HASHES: CheckName.TDREPORT_HASHES,
        **{step: name for step, name in MIGRATION.items() if step not in (Step.QUOTE, Step.RELATIVE)},
    }
)
"""The same in a rebinding, where no quote is a check: the own one is only what `self` in a policy stands for."""

_LAST: Final[Mapping[CheckName, Step]] = MappingProxyType(
    {CheckName.TDREPORT_HASHES: Step.REPORT_HASHES, CheckName.INITIAL_TDINFO: Step.ENGINE}
)
"""The last part of each check that has several, but for `policy`: with which that ends, depends on who judges."""
_BLOCKS: Final = frozenset({Step.COMMON_BLOCK, Step.FORWARD_BLOCK, Step.BACKWARD_BLOCK, Step.POLICY_SVN})
"""Steps whose rules are in the trace."""
_ROOM_FOR_PARTS: Final = 1_000
"""Bytes of an explanation that the parts of `policy` take, at most."""


class StepChecks:
    """A `Run` (migtd.policy.v2.steps) that makes steps as checks, and tells refusals as a MigTD does.

    `details` says what was found, by check. `is_source`: this side is the source, or the old MigTD. `then` is called
    after a step that passed. `left_out` are lines for people about what this flow does not ask, `trace` is for the flow
    to append to. Raises MigTDError where the flow's own steps raise PolicyError.
    """

    def __init__(
        self,
        checks: CheckRunner,
        names: Mapping[Step, CheckName],
        details: Mapping[CheckName, Callable[[], str]],
        *,
        is_source: bool,
        then: Mapping[Step, Callable[[], None]] = MappingProxyType({}),
        left_out: Sequence[str] = (),
    ) -> None:
        self.trace: Final[list[Finding]] = []
        self._checks = checks
        self._names = names
        self._details = details
        self._then = then
        self._left_out = left_out
        self._last = {**_LAST, CheckName.POLICY: Step.POLICY_SVN if is_source else Step.BACKWARD_BLOCK}
        self._parts: dict[CheckName, dict[str, str]] = {}
        """What became of the parts of each check, by the step's name."""

    def __call__(self, step: Step, check: Callable[[], None]) -> None:
        """Make one step."""
        name = self._names.get(step, CheckName.POLICY)
        if name in self._last:
            self._make_part(name, step, check)
        else:
            self._checks.run(name, lambda: self._translated(check), detail=lambda _: self._detail(name))
        if step in self._then:
            self._then[step]()

    def _make_part(self, name: CheckName, step: Step, check: Callable[[], None]) -> None:
        parts = self._parts.setdefault(name, {})
        try:
            self._translated(check)
        except MigTDError as refusal:
            parts[step] = "failed"
            self._refuse(name, refusal)
        parts[step] = "passed"
        if self._last[name] is step:
            self._told(name)

    def _refuse(self, name: CheckName, refusal: MigTDError) -> NoReturn:
        def fail() -> None:
            raise refusal

        self._checks.run(name, fail, explain=lambda: self._lines(name))
        # A part that was made counts, whatever the mode says of the check.
        raise refusal

    def _told(self, name: CheckName) -> None:
        self._checks.run(name, lambda: True, detail=lambda _: self._detail(name), explain=lambda: self._lines(name))

    def _translated(self, check: Callable[[], None]) -> None:
        try:
            check()
        except PolicyError as error:
            raise explained(error, self.trace) from error

    def _detail(self, name: CheckName) -> str:
        if name is CheckName.POLICY:
            met = sum(each.verdict is Verdict.MET for each in self.trace)
            return f"policy v2, {met} rules met" if met != 1 else "policy v2, 1 rule met"
        detail = self._details.get(name)
        return "" if detail is None else detail()

    def _lines(self, name: CheckName) -> tuple[str, ...]:
        """A line for each part, then for each rule, then for what is not asked."""
        parts = self._parts.get(name, {})
        told = [f"{status}: {step}" for step, status in parts.items() if step not in _BLOCKS]
        if name is not CheckName.POLICY:
            return tuple(told)
        # What is not asked is worth a line only where all that is asked was.
        left_out = () if "failed" in parts.values() else self._left_out
        return (*told, *summarize_all(self.trace, MAX_SUMMARY - _ROOM_FOR_PARTS), *left_out)
