# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Attestation with policy v2: the modes `lab` and `captured` (design.md; policy.md 2.9, 4.4, 4.5; ghci-ratls.md 5, 6).

Quotes are verified with the collateral in the own, verified policy; nothing is asked of the host but quotes. The modes
differ in what a captured quote, and the TDREPORT derived from it, cannot show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from migtd import event_log
from migtd.attestation.get_quote import QuoteClient
from migtd.attestation.judges_v2 import Judging, MigrationJudge, RebindingJudge
from migtd.attestation.judging import PreparedSets
from migtd.attestation.mode import REPORT_DATA_SIZE, Evidence, Judge, JudgeV2
from migtd.attestation.quote.collateral import CollateralSet
from migtd.attestation.quote.result import Verified
from migtd.attestation.quote.verify import verify_prepared
from migtd.attestation.startup_v2 import MeasuredPolicy
from migtd.checks import CheckName, CheckRunner
from migtd.errors import MigTDError
from migtd.guest.interfaces import EventLogArea, TdCall
from migtd.policy.errors import PolicyError
from migtd.policy.v2.owner import expect_init_data
from migtd.policy.v2.peer import push_peer_data


@dataclass(frozen=True, slots=True)
class Skips:
    """The checks that a mode cannot make, each with the reason: in migrations, and in rebindings."""

    migration: Mapping[CheckName, str]
    rebinding: Mapping[CheckName, str]


class PolicyV2:
    """A mode (migtd.attestation.mode.AttestationMode) with policy v2, and its part for that (PolicyV2Mode).

    `clock` gives seconds since 1970 where collateral that is not current shall be refused; None: it is reported only.
    """

    def __init__(
        self,
        name: str,
        skips: Skips,
        *,
        tdcall: TdCall,
        quotes: QuoteClient,
        log: EventLogArea,
        measured: MeasuredPolicy,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._name = name
        self._own = measured.own
        self._tdcall = tdcall
        self._skips = skips
        self._quotes = quotes
        self._log = log
        self._prepared = PreparedSets(measured.own.root_key)
        self._peer_data = push_peer_data(measured.own.files)
        self._judging = Judging(measured, self._verify, tdcall.mr_verify_report, clock)

    # --- AttestationMode ---------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The value of `--attestation`."""
        return self._name

    @property
    def skips(self) -> Mapping[CheckName, str]:
        """The checks of a migration that captured quotes make impossible; none in mode `lab`."""
        return self._skips.migration

    @property
    def v2(self) -> PolicyV2:
        """Itself."""
        return self

    async def local_evidence(self, report_data: bytes) -> Evidence:
        """A quote over a fresh TDREPORT with this REPORTDATA, the event log, and the relative quote.

        Raises MutualAttestationError, OutOfResource, TdxModuleError, VmmInternalError (QuoteClient).
        """
        quote = await self._quotes.quote(lambda: self._tdcall.mr_report(report_data))
        return Evidence(quote, event_log.for_sending(self._log), relative_quote=await self._relative_quote())

    def judge(self, local: Evidence, *, is_source: bool, checks: CheckRunner) -> Judge:  # noqa: ARG002 - of the seam
        """Policy v1 has no say in it: a session asks `judge_migration`. Raises RuntimeError."""
        raise RuntimeError("a session with policy v1, and a mode with policy v2")

    # --- PolicyV2Mode ------------------------------------------------------------------------------------------------

    @property
    def peer_data(self) -> bytes:
        """The own policy and its issuer chain."""
        return self._peer_data

    @property
    def rebinding_skips(self) -> Mapping[CheckName, str]:
        """The checks of a rebinding that a TDREPORT derived from a captured quote makes impossible."""
        return self._skips.rebinding

    def check_initial_tdinfo(self, tdinfo: bytes) -> None:
        """Of the own policy's signer, and no newer than the own policy. Raises PolicyUnsatisfiedError."""
        try:
            expect_init_data(self._own.policy, tdinfo)
        except PolicyError as error:
            raise error.as_migtd_error() from error

    async def local_report(self, report_data: bytes) -> Evidence:
        """A TDREPORT with this REPORTDATA, the event log, and the relative quote. Raises TdxModuleError."""
        report = self._tdcall.mr_report(report_data)
        return Evidence(report, event_log.for_sending(self._log), relative_quote=await self._relative_quote())

    def judge_migration(self, local: Evidence, *, is_source: bool, checks: CheckRunner) -> JudgeV2:
        """A judge of one migration."""
        return MigrationJudge(self._judging, local, checks, is_source=is_source)

    def judge_rebinding(self, local: Evidence, *, is_old: bool, checks: CheckRunner) -> JudgeV2:
        """A judge of one rebinding."""
        return RebindingJudge(self._judging, local, checks, is_old=is_old)

    def _verify(self, quote: bytes, collateral: CollateralSet) -> Verified:
        """Under the root of the own policy; what collateral was found to be is kept. Raises QuoteError."""
        return verify_prepared(quote, self._prepared.get(collateral))

    async def _relative_quote(self) -> bytes | MigTDError:
        """A quote with REPORTDATA of zeros, or why there is none: that matters only when it is needed."""
        try:
            return await self._quotes.quote(lambda: self._tdcall.mr_report(bytes(REPORT_DATA_SIZE)))
        except MigTDError as error:
            return error
