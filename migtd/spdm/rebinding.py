# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a rebinding does with an SPDM session: TDREPORTs judged, a token handed over (spdm.md 8). Policy v2 only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from migtd.attestation.mode import Evidence, PeerEvidence
from migtd.checks import CheckName
from migtd.errors import MigTDError
from migtd.migration.session import OldSide, RebindingAgreed, RebindingContext
from migtd.spdm.core import RequesterApplication, ResponderApplication, SessionMaterial, SpdmEndpoint
from migtd.spdm.migration import expect_no_attributes, expect_policy_hash, report_data_is_attestation
from migtd.spdm.requester import Requester
from migtd.spdm.responder import Responder
from migtd.spdm.transcript import digest
from migtd.spdm.vendor_messages import (
    EvidenceRequest,
    EvidenceResponse,
    Mode,
    RebindingTaken,
    RebindingToken,
    pull_rebinding_taken,
    pull_rebinding_token,
)

CommitRebinding: TypeAlias = Callable[[RebindingAgreed], None]
"""Acts on the agreement: the new MigTD writes token, approved hash and attributes, the old one approves.

Raises a MigTDError, which the new MigTD tells its peer. Must not wait.
"""


def commit_later(agreed: RebindingAgreed) -> None:
    """Leave it to the caller, after the session: a new MigTD that fails then can no longer tell its peer."""


def make_rebinding(
    context: RebindingContext, material: SessionMaterial, commit: CommitRebinding = commit_later
) -> SpdmEndpoint:
    """One side of one rebinding; which one, `context.old` says."""
    if context.old is not None:
        return Requester(material, OldMigTd(context, context.old, commit))
    return Responder(material, NewMigTd(context, commit))


class OldMigTd(RequesterApplication):
    """The requester."""

    mode = Mode.REBINDING

    def __init__(self, context: RebindingContext, old: OldSide, commit: CommitRebinding) -> None:
        self._context = context
        self._old = old
        self._commit = commit
        self._local: Evidence | None = None

    def show(self, local: Evidence) -> EvidenceRequest:
        """R6: TDREPORT, and the target TD's history."""
        self._local = local
        shown, policy_hash = self._old.shown, digest(self._context.peer_data.local)
        return EvidenceRequest(
            self.mode, local.quote, local.event_log, policy_hash, shown.servtd_ext, shown.initial_tdinfo
        )

    def judge(self, shown: EvidenceResponse, report_data: bytes) -> None:
        """Make all checks of the new MigTD."""
        if self._local is None:
            raise RuntimeError("a peer is judged before the own evidence is there")
        remote = self._context.peer_data.remote
        peer = PeerEvidence(shown.quote, shown.event_log, report_data, remote)
        _judge(self._context, self._local, peer, shown.policy_hash, is_old=True)

    def request(self) -> bytes:
        """R8: the token."""
        return RebindingToken(self._old.token).push()

    def take(self, response: bytes) -> RebindingAgreed:
        """Approve."""
        pull_rebinding_taken(response)
        agreed = RebindingAgreed(self._old.token, self._old.shown.servtd_ext)
        self._commit(agreed)
        return agreed

    def without_evidence(self, error: MigTDError) -> MigTDError:
        """There is no check of the own TDREPORT."""
        return error


class NewMigTd(ResponderApplication):
    """The responder."""

    mode = Mode.REBINDING

    def __init__(self, context: RebindingContext, commit: CommitRebinding) -> None:
        self._context = context
        self._commit = commit
        self._servtd_ext = b""

    def judge(self, local: Evidence, shown: EvidenceRequest, report_data: bytes) -> None:
        """Make all checks of the old MigTD; SERVTD_EXT is kept after them."""
        remote = self._context.peer_data.remote
        peer = PeerEvidence(shown.quote, shown.event_log, report_data, remote, shown.servtd_ext, shown.initial_tdinfo)
        _judge(self._context, local, peer, shown.policy_hash, is_old=False)
        self._context.checks.run(CheckName.SERVTD_EXT, lambda: expect_no_attributes(shown.servtd_ext))
        self._servtd_ext = shown.servtd_ext

    def show(self, local: Evidence) -> EvidenceResponse:
        """r6."""
        return EvidenceResponse(self.mode, local.quote, local.event_log, digest(self._context.peer_data.local))

    def take(self, request: bytes) -> tuple[bytes, RebindingAgreed]:
        """Act on the token."""
        agreed = RebindingAgreed(pull_rebinding_token(request).token, self._servtd_ext)
        self._commit(agreed)
        return RebindingTaken().push(), agreed

    def without_evidence(self, error: MigTDError) -> MigTDError:
        """There is no check of the own TDREPORT."""
        return error


def _judge(context: RebindingContext, local: Evidence, peer: PeerEvidence, policy_hash: bytes, *, is_old: bool) -> None:
    checks = context.checks
    checks.run(CheckName.PEER_DATA_HASH, lambda: expect_policy_hash(policy_hash, peer.peer_data))
    judge = context.mode.judge_rebinding(local, is_old=is_old, checks=checks)
    judge.evaluate(peer)
    with report_data_is_attestation():
        judge.verify_report_data()
