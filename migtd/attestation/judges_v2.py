# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Who judges a peer with policy v2: in a migration by its quote, in a rebinding by its TDREPORT (policy.md 2.9, 4.4).

The policy comes first, the binding to the session's key last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from migtd import failures
from migtd.attestation.judging import describe_quote, expect_current, expect_report_data
from migtd.attestation.kept_policies import KeptPolicies
from migtd.attestation.mode import Evidence, PeerEvidence
from migtd.attestation.quote.collateral import CollateralSet
from migtd.attestation.quote.record import RANGES
from migtd.attestation.quote.result import Verified
from migtd.attestation.startup_v2 import MeasuredPolicy
from migtd.attestation.steps_v2 import MIGRATION, REBINDING, StepChecks
from migtd.checks import CheckName, CheckRunner
from migtd.errors import MigTDError, MutualAttestationError, SecureSessionError
from migtd.policy.v2.evidence import Peer, Tools
from migtd.policy.v2.flows import (
    Accepted,
    FirstMigTd,
    destination_checks_source,
    new_checks_old,
    old_checks_new,
    source_checks_destination,
    spdm_destination_checks_source,
)
from migtd.policy.v2.peer import pull_peer_data
from migtd.policy.v2.steps import Step, must
from migtd.policy.v2.tdreport import TdReport

_NO_COMMON_BLOCK: Final = "left out: common-block, which a new MigTD does not ask of the old one (policy.md 7.1)"


@dataclass(frozen=True, slots=True)
class Judging:
    """What all judges of one MigTD have: the own policy, and what verifies a quote and a REPORTMACSTRUCT.

    `verify` raises QuoteError. `clock` gives seconds since 1970 where collateral that is not current shall be refused.
    """

    measured: MeasuredPolicy
    verify: Callable[[bytes, CollateralSet], Verified]
    verify_report: Callable[[bytes], bool]
    clock: Callable[[], float] | None
    policies: KeptPolicies = field(default_factory=KeptPolicies)


class _Judge:
    """What the judges of migrations and rebindings have in common."""

    def __init__(self, judging: Judging, local: Evidence, checks: CheckRunner) -> None:
        self._judging = judging
        self._local = local
        self._checks = checks
        self._verified: Verified | None = None
        """The quote that was verified last."""
        self._bound: tuple[bytes, bytes] | None = None
        """REPORTDATA as it was found, and as it must be."""

    def verify_report_data(self) -> None:
        """`reportdata`."""

        def check() -> None:
            if self._bound is None:
                raise SecureSessionError(failures.INTERNAL, "REPORTDATA before the evidence that holds it")
            expect_report_data(*self._bound)

        self._checks.run(CheckName.REPORTDATA, check)

    def _begin(self) -> None:
        """`own-tdinfo`: found at the start, and told with each session."""
        self._checks.run(CheckName.OWN_TDINFO, self._judging.measured.expect_own_tdinfo, detail=str)

    def _tools(self, steps: StepChecks) -> Tools:
        judging = self._judging
        return Tools(self._verify_quote, self._relative_quote, judging.verify_report, steps, judging.policies.verify)

    def _verify_quote(self, quote: bytes, collateral: CollateralSet) -> bytes:
        self._verified = self._judging.verify(quote, collateral)
        return self._verified.record

    def _relative_quote(self) -> bytes:
        relative = self._local.relative_quote
        if isinstance(relative, MigTDError):
            raise relative
        return relative


class MigrationJudge(_Judge):
    """Judges the peer of one migration."""

    def __init__(self, judging: Judging, local: Evidence, checks: CheckRunner, *, is_source: bool) -> None:
        super().__init__(judging, local, checks)
        self._is_source = is_source

    def evaluate(self, peer: PeerEvidence) -> None:
        """`own-tdinfo`, `quote-peer`, `event-log-replay`, `rtmrs-equal`, `quote-local`, `policy`.

        `collateral-current` behind `quote-peer` if it was asked for, `initial-tdinfo` if the peer showed one (SPDM).
        """
        self._begin()
        details = dict.fromkeys((CheckName.QUOTE_PEER, CheckName.QUOTE_LOCAL), self._describe_quote)
        then = {Step.QUOTE: self._expect_current}
        steps = StepChecks(self._checks, MIGRATION, details, is_source=self._is_source, then=then)
        accepted = self._flow(peer, steps)
        self._bound = accepted.evidence[RANGES["report_data"]], peer.report_data

    def _flow(self, peer: PeerEvidence, steps: StepChecks) -> Accepted:
        own, tools, trace = self._judging.measured.own, self._tools(steps), steps.trace
        shown = _shown(peer, steps)
        if self._is_source:
            return source_checks_destination(own, shown, peer.quote, tools, trace)
        if peer.servtd_ext or peer.initial_tdinfo:
            first = FirstMigTd(peer.initial_tdinfo, peer.servtd_ext)
            return spdm_destination_checks_source(own, shown, peer.quote, first, tools, trace)
        return destination_checks_source(own, shown, peer.quote, tools, trace)

    def _describe_quote(self) -> str:
        return "" if self._verified is None else describe_quote(self._verified)

    def _expect_current(self) -> None:
        clock, verified = self._judging.clock, self._verified
        if clock is None:
            return

        def check() -> None:
            if verified is None:
                raise MutualAttestationError(failures.INTERNAL, "collateral before a quote")
            expect_current(verified, clock())

        self._checks.run(CheckName.COLLATERAL_CURRENT, check)


class RebindingJudge(_Judge):
    """Judges the other MigTD of one rebinding."""

    def __init__(self, judging: Judging, local: Evidence, checks: CheckRunner, *, is_old: bool) -> None:
        super().__init__(judging, local, checks)
        self._is_old = is_old

    def evaluate(self, peer: PeerEvidence) -> None:
        """`own-tdinfo`, `tdreport-mac`, `tdreport-hashes`, `event-log-replay`, `rtmrs-equal`, `policy`.

        The new MigTD makes `initial-tdinfo` before `policy`.
        """
        self._begin()
        left_out = () if self._is_old else (_NO_COMMON_BLOCK,)
        steps = StepChecks(self._checks, REBINDING, {}, is_source=self._is_old, left_out=left_out)
        accepted = self._flow(peer, steps)
        self._bound = TdReport(accepted.evidence).report_data, peer.report_data

    def _flow(self, peer: PeerEvidence, steps: StepChecks) -> Accepted:
        own, tools, trace = self._judging.measured.own, self._tools(steps), steps.trace
        shown = _shown(peer, steps)
        if self._is_old:
            return old_checks_new(own, shown, peer.quote, tools, trace)
        first = FirstMigTd(peer.initial_tdinfo, peer.servtd_ext)
        return new_checks_old(own, shown, peer.quote, first, tools, trace)


def _shown(peer: PeerEvidence, steps: StepChecks) -> Peer:
    """The blob was looked at before the session; should it be none, that is the policy's failure."""
    return Peer(must(steps, Step.ENVELOPE, lambda: pull_peer_data(peer.peer_data)), peer.event_log)
