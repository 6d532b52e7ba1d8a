# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a migration does with an SPDM session: evidence judged, keys swapped (spdm.md 7).

The order of checks is policy v1's or v2's, as the attestation mode has it. Both sides act on the peer's key inside the
session, through `Commit`: so a destination can still tell its peer that it failed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final, Protocol, TypeAlias

from migtd import failures
from migtd.attestation.mode import Evidence, Judge, PeerEvidence
from migtd.checks import CheckName, CheckRunner
from migtd.errors import InvalidParameter, InvalidPolicyError, MigTDError, MutualAttestationError, SecureSessionError
from migtd.migration.data import ExchangeInformation
from migtd.migration.servtd_ext import pull_servtd_ext
from migtd.migration.session import PeerInformation, SessionContext, SwappedPeerData, TargetHistory
from migtd.spdm.core import RequesterApplication, ResponderApplication
from migtd.spdm.errors import VendorMalformed
from migtd.spdm.transcript import digest
from migtd.spdm.vendor import Opcode
from migtd.spdm.vendor_messages import (
    EvidenceRequest,
    EvidenceResponse,
    MigrationInformation,
    Mode,
    pull_migration_information,
)

Commit: TypeAlias = Callable[[ExchangeInformation, bytes], None]
"""Acts on what the peer sent: attribute check, version, MIG_VERSION, key, and at a destination the approved hash.

The second argument is the SERVTD_EXT that a destination was shown, 272 bytes, `b""` at a source. Raises a MigTDError,
which a destination tells its peer. Must not wait.
"""


class PolicySteps(Protocol):
    """The checks of a peer with one version of the policy, in their order."""

    @property
    def policy_hash(self) -> bytes:
        """The MigPolicy element that this side sends, 48 bytes."""

    def judge(self, local: Evidence, peer: PeerEvidence, policy_hash: bytes) -> None:
        """Make all checks of the peer; `policy_hash` is its MigPolicy element."""

    def without_evidence(self, error: MigTDError) -> MigTDError:
        """Record what failed where there is no evidence to show; what to report."""


class StepsV1:
    """Policy v1: the own quote, the peer's, then the policy. What the MigPolicy element holds is not looked at."""

    def __init__(self, context: SessionContext, policy: bytes) -> None:
        self._context = context
        self.policy_hash: Final = digest(policy)

    def judge(self, local: Evidence, peer: PeerEvidence, policy_hash: bytes) -> None:  # noqa: ARG002 - spdm.md 7.3
        """Make `quote-local`, `evidence-present`, and the checks of the mode's judge."""
        context, checks = self._context, self._context.checks
        judge: Judge = context.mode.judge(local, is_source=context.is_source, checks=checks)
        judge.verify_local()
        checks.run(CheckName.EVIDENCE_PRESENT, lambda: _expect_evidence(peer))
        with report_data_is_attestation():
            judge.verify_quote(peer)
        judge.evaluate_policy()

    def without_evidence(self, error: MigTDError) -> MigTDError:
        """Record `quote-local` as failed."""
        return record_missing_evidence(self._context.checks, error)


class StepsV2:
    """Policy v2: what came before the session is bound to it, then judged."""

    def __init__(self, context: SessionContext, peer_data: SwappedPeerData) -> None:
        if context.mode.v2 is None:
            raise RuntimeError("a session with peer data, and a mode without policy v2")
        self._mode = context.mode.v2
        self._context = context
        self._peer_data = peer_data
        self.policy_hash: Final = digest(peer_data.local)

    def judge(self, local: Evidence, peer: PeerEvidence, policy_hash: bytes) -> None:
        """Make `evidence-present`, `peer-data-hash`, and the checks of the mode's judge."""
        context, checks, remote = self._context, self._context.checks, self._peer_data.remote
        checks.run(CheckName.EVIDENCE_PRESENT, lambda: _expect_evidence(peer))
        checks.run(CheckName.PEER_DATA_HASH, lambda: expect_policy_hash(policy_hash, remote))
        judge = self._mode.judge_migration(local, is_source=context.is_source, checks=checks)
        judge.evaluate(
            PeerEvidence(peer.quote, peer.event_log, peer.report_data, remote, peer.servtd_ext, peer.initial_tdinfo)
        )
        with report_data_is_attestation():
            judge.verify_report_data()

    def without_evidence(self, error: MigTDError) -> MigTDError:
        """Record `quote-local` as failed."""
        return record_missing_evidence(self._context.checks, error)


class SourceOfMigration(RequesterApplication):
    """The requester of a migration, which shows `history` of the target TD."""

    mode = Mode.MIGRATION

    def __init__(self, context: SessionContext, steps: PolicySteps, history: TargetHistory, commit: Commit) -> None:
        self._context = context
        self._steps = steps
        self._history = history
        self._commit = commit
        self._local: Evidence | None = None

    def show(self, local: Evidence) -> EvidenceRequest:
        """R6."""
        self._local = local
        shown = self._history
        return EvidenceRequest(
            self.mode, local.quote, local.event_log, self._steps.policy_hash, shown.servtd_ext, shown.initial_tdinfo
        )

    def judge(self, shown: EvidenceResponse, report_data: bytes) -> None:
        """Make all checks of the destination."""
        if self._local is None:
            raise RuntimeError("a peer is judged before the own evidence is there")
        peer = PeerEvidence(shown.quote, shown.event_log, report_data)
        self._steps.judge(self._local, peer, shown.policy_hash)

    def request(self) -> bytes:
        """R8: export versions and forward key."""
        return MigrationInformation(Opcode.MIGRATION_INFORMATION_REQUEST, self._context.local).push()

    def take(self, response: bytes) -> PeerInformation:
        """Act on import versions and backward key."""
        opcode = Opcode.MIGRATION_INFORMATION_RESPONSE
        information = _read_information(self._context.checks, response, opcode)
        self._commit(information, b"")
        return PeerInformation(information)

    def without_evidence(self, error: MigTDError) -> MigTDError:
        """Record it."""
        return self._steps.without_evidence(error)


class DestinationOfMigration(ResponderApplication):
    """The responder of a migration."""

    mode = Mode.MIGRATION

    def __init__(self, context: SessionContext, steps: PolicySteps, commit: Commit) -> None:
        self._context = context
        self._steps = steps
        self._commit = commit
        self._servtd_ext = b""

    def judge(self, local: Evidence, shown: EvidenceRequest, report_data: bytes) -> None:
        """Make all checks of the source; SERVTD_EXT is kept after them."""
        peer = PeerEvidence(
            shown.quote,
            shown.event_log,
            report_data,
            servtd_ext=shown.servtd_ext,
            initial_tdinfo=shown.initial_tdinfo,
        )
        self._steps.judge(local, peer, shown.policy_hash)
        expect_no_attributes(shown.servtd_ext)
        self._servtd_ext = shown.servtd_ext

    def show(self, local: Evidence) -> EvidenceResponse:
        """r6."""
        return EvidenceResponse(self.mode, local.quote, local.event_log, self._steps.policy_hash)

    def take(self, request: bytes) -> tuple[bytes, PeerInformation]:
        """Act on export versions and forward key, and answer with import versions and backward key."""
        opcode = Opcode.MIGRATION_INFORMATION_REQUEST
        information = _read_information(self._context.checks, request, opcode)
        self._commit(information, self._servtd_ext)
        response = MigrationInformation(Opcode.MIGRATION_INFORMATION_RESPONSE, self._context.local).push()
        return response, PeerInformation(information)

    def without_evidence(self, error: MigTDError) -> MigTDError:
        """Record it."""
        return self._steps.without_evidence(error)


def record_missing_evidence(checks: CheckRunner, error: MigTDError) -> MigTDError:
    """Record `quote-local` as what failed, unless the mode leaves it out; `error` itself."""

    def fail() -> None:
        raise error

    with contextlib.suppress(MigTDError):
        checks.run(CheckName.QUOTE_LOCAL, fail)
    return error


@contextlib.contextmanager
def report_data_is_attestation() -> Iterator[None]:
    """Raise MutualAttestationError for a REPORTDATA that does not belong to the session (spdm.md 9.4).

    Over RA-TLS it is the certificate that is wrong then, and the result another.
    """
    try:
        yield
    except SecureSessionError as error:
        if error.kind is not failures.REPORTDATA_MISMATCH:
            raise
        raise MutualAttestationError(error.kind, error.detail, explain=error.explain) from error


def expect_policy_hash(shown: bytes, remote: bytes) -> None:
    """The MigPolicy element is the hash of the blob that came. Raises InvalidPolicyError (MIGTD-PEER-DATA-MISMATCH)."""
    if shown != digest(remote):
        detail = f"the MigPolicy element is {shown[:8].hex()}…, {digest(remote)[:8].hex()}… came"
        raise InvalidPolicyError(failures.PEER_DATA_MISMATCH, detail)


def expect_no_attributes(servtd_ext: bytes) -> None:
    """The current attributes in SERVTD_EXT, 272 bytes, are 0 (7.5). Raises InvalidParameter (MIGTD-SERVTD-ATTR)."""
    attributes = pull_servtd_ext(servtd_ext).current_attr
    if attributes:
        raise InvalidParameter(failures.SERVTD_ATTR, f"the current attributes in SERVTD_EXT are {attributes:#x}")


def _expect_evidence(peer: PeerEvidence) -> None:
    missing = [name for name, value in (("quote", peer.quote), ("event log", peer.event_log)) if not value]
    if missing:
        raise VendorMalformed(f"no {' and '.join(missing)}")


def _read_information(checks: CheckRunner, message: bytes, opcode: Opcode) -> ExchangeInformation:
    def read() -> ExchangeInformation:
        return pull_migration_information(message, opcode).information

    found = checks.run(CheckName.EXCHANGE_INFORMATION, read)
    if found is None:
        raise SecureSessionError(failures.INTERNAL, "the mode leaves out exchange-information, which no mode can")
    return found
