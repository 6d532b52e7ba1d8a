# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The part that all flows of policy v2 have in common: evidence, log and policy of a peer (policy.md 2.6, 2.9)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from migtd import event_log
from migtd.attestation.quote.collateral import CollateralSet
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.pck import quote_fmspc
from migtd.attestation.quote.record import RANGES, RECORD_SIZE
from migtd.errors import MigTDError, PolicyUnsatisfiedError, TdxModuleError
from migtd.event_log import EventName, NamedEvent, Rtmrs
from migtd.policy.errors import PolicyError, PolicyErrorName
from migtd.policy.tdinfo import tdinfo_rtmrs
from migtd.policy.v2.decoding import Signed
from migtd.policy.v2.document import VerifiedPolicy, verify_policy
from migtd.policy.v2.envelope import parse_envelope
from migtd.policy.v2.peer import PolicyFiles, expect_policy_event, validate_peer_chains
from migtd.policy.v2.startup import OwnPolicy
from migtd.policy.v2.steps import Run, Step, must, run_all
from migtd.policy.v2.tdreport import TdReport, pull_report
from migtd.policy.v2.values import QuoteFacts, Values, values_of_quote, values_of_tdinfo

QuoteVerifier: TypeAlias = Callable[[bytes, CollateralSet], bytes]
"""A quote and the set of its platform to the 822-byte record, under the own root key; raises QuoteError."""

_RTMRS: Final = ("rtmr0", "rtmr1", "rtmr2", "rtmr3")


@dataclass(frozen=True, slots=True)
class Peer:
    """What a peer showed besides its quote or TDREPORT: policy and chain, and its event log with the spare byte."""

    files: PolicyFiles
    event_log: bytes


def _no_report(_mac_struct: bytes) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Tools:
    """What the flows call at their place.

    `local_quote` makes a fresh quote with REPORTDATA of zeros; what it raises as TdxModuleError is GetTdxReport,
    another MigTDError is QuoteGeneration. `verify_report` is TDG.MR.VERIFYREPORT, 256 bytes to a verdict; without it
    no report verifies. `verify_policy` is document.verify_policy, or what remembers its answers.
    """

    verify_quote: QuoteVerifier
    local_quote: Callable[[], bytes]
    verify_report: Callable[[bytes], bool] = _no_report
    run: Run = run_all
    verify_policy: Callable[[Signed, bytes], VerifiedPolicy] = verify_policy


def verify_migration_peer(
    own: OwnPolicy, peer: Peer, quote: bytes, tools: Tools
) -> tuple[VerifiedPolicy, QuoteFacts, Values]:
    """Steps (b) to (h): the quote, then the policy as the quote's registers vouch for it, then the values."""
    facts = must(tools.run, Step.QUOTE, lambda: _verify_peer_quote(own, quote, tools.verify_quote))
    policy = _verify_peer_policy(own, peer, [facts.record[RANGES[name]] for name in _RTMRS], tools)
    values = must(tools.run, Step.VALUES, lambda: values_of_quote(facts, own.policy.data.collaterals, policy))
    return policy, facts, values


def verify_rebinding_peer(
    own: OwnPolicy, peer: Peer, report: bytes, tools: Tools
) -> tuple[VerifiedPolicy, TdReport, Values]:
    """The same with a TDREPORT in the place of the quote."""
    pulled = must(tools.run, Step.REPORT, lambda: pull_report(report))
    tools.run(Step.REPORT_MAC, lambda: _verify_mac(pulled, tools.verify_report))
    tools.run(Step.REPORT_HASHES, pulled.verify_hashes)
    policy = _verify_peer_policy(own, peer, tdinfo_rtmrs(pulled.tdinfo), tools)
    values = must(tools.run, Step.VALUES, lambda: values_of_tdinfo(pulled.tdinfo, policy))
    return policy, pulled, values


def pull_own_values(own: OwnPolicy, tools: Tools) -> Values:
    """The relative reference: a fresh own quote, verified and valued with the own policy alone.

    Raises PolicyError: GetTdxReport, QuoteGeneration, InvalidQuote, InvalidCollateral, QuoteVerification,
    InvalidParameter.
    """
    try:
        quote = tools.local_quote()
    except TdxModuleError as error:
        raise PolicyError(PolicyErrorName.GetTdxReport, str(error)) from error
    except MigTDError as error:
        raise PolicyError(PolicyErrorName.QuoteGeneration, str(error)) from error
    facts = verify_with_collaterals(own, quote, tools.verify_quote)
    return values_of_quote(facts, own.policy.data.collaterals, own.policy)


def verify_with_collaterals(own: OwnPolicy, quote: bytes, verify: QuoteVerifier) -> QuoteFacts:
    """Verify a quote with the own collaterals of its platform.

    Raises PolicyError: InvalidQuote (it names no FMSPC), InvalidCollateral, QuoteVerification.
    """
    try:
        fmspc = quote_fmspc(quote)
    except QuoteError as error:
        raise PolicyError(PolicyErrorName.InvalidQuote, str(error)) from error
    collaterals = own.policy.data.collaterals
    chosen = collaterals.set_of(collaterals.platform(fmspc))
    try:
        return QuoteFacts(verify(quote, chosen), fmspc)
    except QuoteError as error:
        raise PolicyError(PolicyErrorName.QuoteVerification, str(error)) from error


def _verify_peer_quote(own: OwnPolicy, quote: bytes, verify: QuoteVerifier) -> QuoteFacts:
    """Of a peer's quote every trouble is QuoteVerification."""
    try:
        facts = verify_with_collaterals(own, quote, verify)
    except PolicyError as error:
        raise PolicyError(PolicyErrorName.QuoteVerification, str(error)) from error
    if len(facts.record) < RECORD_SIZE:
        detail = f"a supplemental record has {RECORD_SIZE} bytes, not {len(facts.record)}"
        raise PolicyError(PolicyErrorName.QuoteVerification, detail)
    return facts


def _verify_peer_policy(own: OwnPolicy, peer: Peer, rtmrs: Sequence[bytes], tools: Tools) -> VerifiedPolicy:
    """Steps (c) to (g)."""
    run = tools.run
    envelope = must(run, Step.ENVELOPE, lambda: parse_envelope(peer.files.policy))
    replayed = must(run, Step.REPLAY, lambda: _replay(peer.event_log))
    run(Step.RTMRS, lambda: _expect_rtmrs(replayed, rtmrs))
    policy = must(run, Step.PEER_POLICY, lambda: tools.verify_policy(envelope, peer.files.chain))
    must(run, Step.PEER_CHAINS, lambda: validate_peer_chains(own.policy, policy))
    events = must(run, Step.EVENTS, lambda: _parse_events(peer.event_log))
    must(run, Step.POLICY_EVENT, lambda: expect_policy_event(events, peer.files.policy))
    return policy


def _verify_mac(report: TdReport, verify: Callable[[bytes], bool]) -> None:
    try:
        known = verify(report.mac_struct)
    except MigTDError as error:
        raise PolicyError(PolicyErrorName.TdReportVerification, str(error)) from error
    if not known:
        raise PolicyError(PolicyErrorName.TdReportVerification)


def _replay(log: bytes) -> Rtmrs:
    try:
        return event_log.replay(log)
    except PolicyUnsatisfiedError as error:
        raise PolicyError(PolicyErrorName.InvalidEventLog, str(error)) from error


def _parse_events(log: bytes) -> dict[EventName, NamedEvent]:
    try:
        return event_log.parse_events(log)
    except PolicyUnsatisfiedError as error:
        raise PolicyError(PolicyErrorName.InvalidEventLog, str(error)) from error


def _expect_rtmrs(replayed: Rtmrs, reported: Sequence[bytes]) -> None:
    differ = [index for index, pair in enumerate(zip(replayed, reported, strict=True)) if pair[0] != pair[1]]
    if differ:
        registers = ", ".join(
            f"RTMR{index}: {replayed[index].hex()} replayed, {reported[index].hex()} reported" for index in differ
        )
        raise PolicyError(PolicyErrorName.InvalidEventLog, registers)
