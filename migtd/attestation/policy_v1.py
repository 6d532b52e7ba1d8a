# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Attestation with quotes and policy v1: the modes `lab` and `captured` (design.md; policy.md 1.8, 4.1, 4.4, 4.5).

Both sides' quotes are verified with collateral of the own host and judged by the own policy. What differs between the
modes is only what a captured quote cannot show: it carries neither this session's key nor this TD's measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from migtd import event_log, failures
from migtd.attestation.get_quote import QuoteClient
from migtd.attestation.judging import (
    PreparedSets,
    describe_quote,
    expect_current,
    expect_report_data,
    explained,
)
from migtd.attestation.mode import Evidence, Judge, PeerEvidence
from migtd.attestation.quote import failures as quote_failures
from migtd.attestation.quote.collateral import CollateralSet
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.pck import quote_fmspc
from migtd.attestation.quote.record import RANGES
from migtd.attestation.quote.result import Verified
from migtd.attestation.quote.verify import verify_prepared
from migtd.checks import CheckName, CheckRunner
from migtd.errors import MutualAttestationError, PolicyUnsatisfiedError
from migtd.event_log import Rtmrs
from migtd.guest.interfaces import EventLogArea, TdCall
from migtd.policy.errors import PolicyError
from migtd.policy.explain import Finding, Verdict, summarize_all
from migtd.policy.v1.document import PolicyV1 as PolicyDocument
from migtd.policy.v1.document import parse_policy
from migtd.policy.v1.evaluation import evaluate

_RTMRS: Final = ("rtmr0", "rtmr1", "rtmr2", "rtmr3")


@dataclass(frozen=True, slots=True)
class Trust:
    """What a MigTD judges by: its policy file as measured, and the root that quotes must end in (65-byte P-256 point).

    `clock` gives seconds since 1970 where collateral that is not current shall be refused; None: it is reported only.
    """

    policy: bytes
    root_key: bytes
    clock: Callable[[], float] | None = None


class PolicyV1:
    """A mode (migtd.attestation.mode.AttestationMode) that shows and verifies quotes, with policy v1."""

    def __init__(
        self,
        name: str,
        skips: Mapping[CheckName, str],
        *,
        tdcall: TdCall,
        quotes: QuoteClient,
        log: EventLogArea,
        trust: Trust,
    ) -> None:
        self._name = name
        self._skips = skips
        self._tdcall = tdcall
        self._quotes = quotes
        self._log = log
        self._trust = trust
        self._prepared = PreparedSets(trust.root_key)
        self._policy: PolicyDocument | None = None

    v2: Final = None

    @property
    def name(self) -> str:
        """The value of `--attestation`."""
        return self._name

    @property
    def skips(self) -> Mapping[CheckName, str]:
        """The checks that captured quotes make impossible; none in mode `lab`."""
        return self._skips

    async def local_evidence(self, report_data: bytes) -> Evidence:
        """A quote over a fresh TDREPORT with this REPORTDATA, the event log, and the host's collateral.

        Raises MutualAttestationError, OutOfResource, TdxModuleError, VmmInternalError (QuoteClient).
        """
        quote = await self._quotes.quote(lambda: self._tdcall.mr_report(report_data))
        collateral = await self._quotes.collateral()
        return Evidence(quote, event_log.for_sending(self._log), collateral)

    def judge(self, local: Evidence, *, is_source: bool, checks: CheckRunner) -> Judge:
        """A judge of one session."""
        return _Judge(self, self._trust, local, checks, is_source=is_source)

    def verify(self, quote: bytes, collateral: CollateralSet | None) -> Verified:
        """Verify a quote with a set of the own host, and one of another platform model with that model's set.

        Raises MutualAttestationError with the verifier's kind, or the QuoteClient's.
        """
        if collateral is None:
            raise MutualAttestationError(failures.INTERNAL, "a quote without collateral")
        try:
            try:
                return verify_prepared(quote, self._prepared.get(collateral))
            except QuoteError as error:
                if error.kind is not quote_failures.QUOTE_FMSPC_MISMATCH:
                    raise
                other = self._quotes.collateral_at_once(bytes.fromhex(quote_fmspc(quote)))
                return verify_prepared(quote, self._prepared.get(other))
        except QuoteError as error:
            raise MutualAttestationError(error.kind, error.detail) from error

    def policy(self) -> PolicyDocument:
        """The policy, decoded when it is first needed and kept. Raises PolicyError (InvalidPolicy)."""
        if self._policy is None:
            self._policy = parse_policy(self._trust.policy)
        return self._policy


class _Judge:
    """Judges both sides of one session."""

    def __init__(self, mode: PolicyV1, trust: Trust, local: Evidence, checks: CheckRunner, *, is_source: bool) -> None:
        self._mode = mode
        self._trust = trust
        self._local = local
        self._checks = checks
        self._is_source = is_source
        self._local_record = b""
        self._peer: PeerEvidence | None = None
        self._peer_record = b""

    def verify_local(self) -> None:
        """`quote-local`."""
        verified = self._verify(CheckName.QUOTE_LOCAL, self._local.quote)
        self._local_record = verified.record

    def verify_quote(self, peer: PeerEvidence) -> None:
        """`quote-peer`, `collateral-current` if it was asked for, `reportdata`."""
        self._peer = peer
        verified = self._verify(CheckName.QUOTE_PEER, peer.quote)
        self._peer_record = verified.record
        clock = self._trust.clock
        if clock is not None:
            self._checks.run(CheckName.COLLATERAL_CURRENT, lambda: expect_current(verified, clock()))
        self._checks.run(CheckName.REPORTDATA, lambda: self._expect_report_data(peer.report_data))

    def evaluate_policy(self) -> None:
        """`event-log-replay`, `rtmrs-equal`, `policy`."""
        if self._peer is None:
            raise MutualAttestationError(failures.INTERNAL, "a policy before a quote")
        log = self._peer.event_log
        replayed = self._checks.run(CheckName.EVENT_LOG_REPLAY, lambda: self._replay(log), detail=_count)
        self._checks.run(CheckName.RTMRS_EQUAL, lambda: self._expect_rtmrs(replayed))
        trace: list[Finding] = []
        self._checks.run(
            CheckName.POLICY,
            lambda: self._evaluate(log, trace),
            detail=lambda _: f"policy v1, {sum(each.verdict is Verdict.MET for each in trace)} rules met",
            explain=lambda: summarize_all(trace),
        )

    def _verify(self, name: CheckName, quote: bytes) -> Verified:
        def check() -> Verified:
            return self._mode.verify(quote, self._local.collateral)

        verified = self._checks.run(name, check, detail=describe_quote)
        if verified is None:
            raise MutualAttestationError(failures.INTERNAL, f"the mode leaves out {name}, which it cannot")
        return verified

    def _expect_report_data(self, expected: bytes) -> None:
        expect_report_data(self._peer_record[RANGES["report_data"]], expected)

    def _replay(self, peer_log: bytes) -> Rtmrs:
        event_log.read_events(self._local.event_log)
        return event_log.replay(peer_log)

    def _expect_rtmrs(self, replayed: Rtmrs | None) -> None:
        if replayed is None:
            raise PolicyUnsatisfiedError(failures.INTERNAL, "RTMRs without a replay")
        quoted = tuple(self._peer_record[RANGES[name]] for name in _RTMRS)
        differ = [index for index, pair in enumerate(zip(replayed, quoted, strict=True)) if pair[0] != pair[1]]
        if differ:
            lines = (
                f"RTMR{index}: the log gives {replayed[index].hex()}, the quote has {quoted[index].hex()}"
                for index in differ
            )
            detail = ", ".join(f"RTMR{index}" for index in differ)
            raise PolicyUnsatisfiedError(failures.RTMRS_DIFFER, detail, explain=tuple(lines))

    def _evaluate(self, peer_log: bytes, trace: list[Finding]) -> None:
        local_events, peer_events = event_log.parse_events(self._local.event_log), event_log.parse_events(peer_log)
        try:
            evaluate(
                self._mode.policy(),
                is_source=self._is_source,
                local_record=self._local_record,
                local_events=local_events,
                peer_record=self._peer_record,
                peer_events=peer_events,
                trace=trace,
            )
        except PolicyError as error:
            raise explained(error, trace) from error


def _count(replayed: Rtmrs) -> str:
    used = sum(any(register) for register in replayed)
    return f"{used} of {len(replayed)} RTMRs are in use"
