# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a policy says of given evidence, rule by rule: a migration's evaluation without one (policy.md 1, 2.9).

Evidence is quotes, or for policy v1 also supplemental records, and event logs. A side without an event log has no
events in v1; in v2 it gets the log that its policy and chain would give, and its RTMRs are not compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lab.policy_tools import failures
from lab.policy_tools.errors import ToolError
from migtd import event_log
from migtd.attestation.quote.collateral import CollateralSet, pull_collaterals_json, pull_packed
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.pck import quote_fmspc
from migtd.attestation.quote.record import RECORD_SIZE
from migtd.attestation.quote.verify import root_key_of, verify_quote
from migtd.errors import PolicyUnsatisfiedError
from migtd.event_log import EventName, NamedEvent, TaggedEvent
from migtd.policy.errors import PolicyError, PolicyErrorName
from migtd.policy.explain import Finding
from migtd.policy.v1.evaluation import evaluate
from migtd.policy.v2.evidence import Peer, Tools
from migtd.policy.v2.flows import destination_checks_source, source_checks_destination
from migtd.policy.v2.peer import PolicyFiles
from migtd.policy.v2.startup import init_policy
from migtd.policy.v2.steps import Step


@dataclass(frozen=True, slots=True)
class Side:
    """What one side shows: a quote, or in v1 its record (822 bytes); and its event log, empty where there is none."""

    quote: bytes
    log: bytes = b""


@dataclass(frozen=True, slots=True)
class Explained:
    """The verdict: `error` is None where the peer is accepted. `trace` has the rules that were come to.

    `skipped` names what was not checked, with the reason.
    """

    error: PolicyError | QuoteError | None
    trace: list[Finding] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """`OK`, or the reference's name of what went wrong."""
        if self.error is None:
            return "OK"
        name = self.error.name if isinstance(self.error, PolicyError) else PolicyErrorName.QuoteVerification
        return name.name

    def document(self) -> dict[str, Any]:
        """The verdict as JSON takes it."""
        error = self.error
        told = None if error is None else {"id": error.kind.id, "message": str(error), "advice": error.kind.advice}
        rules = [finding.document() for finding in self.trace]
        return {"schema": 1, "verdict": self.verdict, "error": told, "rules": rules, "skipped": self.skipped}


def explain_v1(
    policy: bytes, local: Side, peer: Side, *, is_source: bool, collateral: bytes = b"", root_ca: bytes = b""
) -> Explained:
    """What a v1 policy says of a peer. `collateral` (JSON or packed) and `root_ca` (DER) are needed for quotes only.

    A quote that does not verify refuses the peer. Raises ToolError (LAB-TOOL-OPTION-MISSING) where one comes without
    them.
    """
    trace: list[Finding] = []

    def check() -> None:
        records = [_record(side.quote, collateral, root_ca) for side in (local, peer)]
        evaluate(
            policy,
            is_source=is_source,
            local_record=records[0],
            local_events=_events(local.log),
            peer_record=records[1],
            peer_events=_events(peer.log),
            trace=trace,
        )

    reason = {} if peer.log else {"event-log": "no event log of the peer was given"}
    return _explained(check, trace, reason)


def explain_v2(own: PolicyFiles, peer: PolicyFiles, local: Side, evidence: Side, *, is_source: bool) -> Explained:
    """What a v2 policy says of a peer and the peer's policy; quotes are verified with the own policy's collaterals.

    `is_source`: the own side is the source, so that it judges a destination.
    """
    trace: list[Finding] = []
    skipped: dict[str, str] = {}

    def run(step: Step, check: Callable[[], None]) -> None:
        if step is Step.RTMRS and not evidence.log:
            skipped[step.value] = "no event log of the peer was given"
        else:
            check()

    def check_peer() -> None:
        ready = init_policy(own)

        def verified(quote: bytes, collateral: CollateralSet) -> bytes:
            return verify_quote(quote, ready.root_key, collateral).record

        tools = Tools(verified, lambda: local.quote, run=run)
        flow = source_checks_destination if is_source else destination_checks_source
        flow(ready, Peer(peer, evidence.log or _log_of(peer)), evidence.quote, tools, trace)

    return _explained(check_peer, trace, skipped)


def _explained(check: Callable[[], None], trace: list[Finding], skipped: dict[str, str]) -> Explained:
    try:
        check()
    except (PolicyError, QuoteError) as error:
        return Explained(error, trace, skipped)
    return Explained(None, trace, skipped)


def _record(quote: bytes, collateral: bytes, root_ca: bytes) -> bytes:
    if len(quote) == RECORD_SIZE:
        return quote
    if not collateral:
        raise ToolError(failures.OPTION_MISSING, "--collateral, for quotes")
    if collateral.lstrip()[:1] == b"{":
        chosen, own_root = pull_collaterals_json(collateral, quote_fmspc(quote))
        root_ca = root_ca or own_root
    else:
        chosen = pull_packed(collateral)
    if not root_ca:
        raise ToolError(failures.OPTION_MISSING, "--root-ca, for packed collateral")
    return verify_quote(quote, root_key_of(root_ca), chosen).record


def _events(log: bytes) -> dict[EventName, NamedEvent]:
    try:
        return event_log.parse_events(log) if log else {}
    except PolicyUnsatisfiedError as error:
        raise PolicyError(PolicyErrorName.InvalidEventLog, str(error)) from error


def _log_of(files: PolicyFiles) -> bytes:
    """The log of a MigTD that measured these files, with the spare byte behind it."""
    events = (event_log.policy_issuer_chain_event(files.chain), event_log.policy_v2_event(files.policy))
    area = _Area(event_log.push_spec_id())
    for event in events:
        area.append(event)
    return area.log + b"\0"


class _Area:
    """A log that grows as it is measured into."""

    def __init__(self, log: bytes) -> None:
        self.log = log

    def append(self, event: TaggedEvent) -> None:
        """Measure one event; there is no RTMR to extend."""
        event_log.measure(self, event, lambda _index, _digest: None)

    def read(self) -> bytes:
        """The log with more room than an event takes."""
        return self.log + bytes(1 << 20)

    def write(self, offset: int, data: bytes) -> None:
        """Put an event where the log ends."""
        self.log = self.log[:offset] + data
