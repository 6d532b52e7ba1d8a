# SPDX-License-Identifier: BSD-2-Clause-Patent
"""RA-TLS as a session protocol of migrations (ghci-ratls.md 5): bytes and evidence in, bytes and events out.

Each side writes its key only after it has checked the other (design.md, I1), then reads the other's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NoReturn

from migtd import failures
from migtd.attestation.mode import Evidence, Judge, PeerEvidence
from migtd.checks import CheckName
from migtd.errors import NetworkError, SecureSessionError
from migtd.migration.data import (
    EXCHANGE_SIZE,
    ExchangeInformation,
    pull_exchange_information,
    push_exchange_information,
)
from migtd.migration.session import PeerInformation, RebindingContext, SessionContext, SwappedPeerData
from migtd.ratls.certificate import (
    OID_EVENT_LOG,
    OID_PEER_DATA_HASH,
    OID_QUOTE,
    PrivateExtension,
    migration_extensions,
    migration_v2_extensions,
    report_data,
)
from migtd.ratls.core import RaTlsCore, expect_eku, expect_peer_data, find_extensions, read_certificate
from migtd.ratls.reader import PeerCertificate, verify_self_signature
from migtd.ratls.tls import PresentedCertificate, TlsEndpoint


class RaTlsMigration(RaTlsCore):
    """What migrations have in common: the 40 bytes that cross once both sides trust each other.

    Besides the errors of RaTlsCore: NetworkError where the stream ended before the 40 bytes; InvalidParameter where
    their reserved bytes are not zero.
    """

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context.checks, is_source=context.is_source)
        self._context = context
        self._exchange = b""

    def _entered(self, tls: TlsEndpoint) -> None:
        tls.write(push_exchange_information(self._context.local))

    def _exchange_on(self, tls: TlsEndpoint) -> None:
        while portion := tls.read(EXCHANGE_SIZE - len(self._exchange)):
            self._exchange += portion
            if len(self._exchange) == EXCHANGE_SIZE:
                self._complete(PeerInformation(self._make(CheckName.EXCHANGE_INFORMATION, self._pull_information)))
                return

    def _ended(self) -> NoReturn:
        come = f"{len(self._exchange)} of {EXCHANGE_SIZE} bytes of the exchange information came"
        raise NetworkError(failures.TRANSPORT_ENDED, come)

    def _pull_information(self) -> ExchangeInformation:
        return pull_exchange_information(self._exchange)

    def _record_missing_evidence(self) -> NoReturn:
        """Record `quote-local` as what failed, and raise why there is no evidence."""
        error = self._evidence_error or SecureSessionError(failures.INTERNAL, "a handshake without evidence")

        def fail() -> None:
            raise error

        self._checks.run(CheckName.QUOTE_LOCAL, fail)
        # A mode that does not verify its own quote still needs evidence to show.
        raise error


class RaTlsSession(RaTlsMigration):
    """One side of one migration with policy v1."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        self._judge: Judge | None = None

    def _take_evidence(self, evidence: Evidence) -> Sequence[PrivateExtension]:
        context = self._context
        self._judge = context.mode.judge(evidence, is_source=context.is_source, checks=context.checks)
        return migration_extensions(evidence)

    def _check_peer(self, presented: PresentedCertificate) -> None:
        checks = self._checks
        checks.run(CheckName.TLS_PARAMETERS, self._expect_profile)
        judge = self._check_local_quote()
        certificate = self._make(CheckName.CERTIFICATE, lambda: read_certificate(presented))
        checks.run(CheckName.CERTIFICATE_EKU, lambda: expect_eku(certificate))
        evidence = self._make(CheckName.EVIDENCE_PRESENT, lambda: _find_evidence(certificate))
        judge.verify_quote(evidence)
        checks.run(CheckName.CERTIFICATE_SIGNATURE, lambda: verify_self_signature(certificate))
        judge.evaluate_policy()

    def _check_local_quote(self) -> Judge:
        if self._judge is None:
            self._record_missing_evidence()
        self._judge.verify_local()
        return self._judge

    def _refuse_without_evidence(self) -> NoReturn:
        self._record_missing_evidence()


class RaTlsSessionV2(RaTlsMigration):
    """One side of one migration with policy v2: what came before the session is bound to it, then judged."""

    def __init__(self, context: SessionContext, peer_data: SwappedPeerData) -> None:
        super().__init__(context)
        self._peer_data = peer_data
        self._local: Evidence | None = None

    def _take_evidence(self, evidence: Evidence) -> Sequence[PrivateExtension]:
        self._local = evidence
        return migration_v2_extensions(evidence, self._peer_data.local)

    def _check_peer(self, presented: PresentedCertificate) -> None:
        checks, context, mode = self._checks, self._context, self._context.mode.v2
        checks.run(CheckName.TLS_PARAMETERS, self._expect_profile)
        certificate = self._make(CheckName.CERTIFICATE, lambda: read_certificate(presented))
        checks.run(CheckName.CERTIFICATE_EKU, lambda: expect_eku(certificate))
        found = self._make(CheckName.EVIDENCE_PRESENT, lambda: find_extensions(certificate, _V2_EVIDENCE))
        checks.run(
            CheckName.PEER_DATA_HASH, lambda: expect_peer_data(found[OID_PEER_DATA_HASH], self._peer_data.remote)
        )
        if self._local is None or mode is None:
            self._record_missing_evidence()
        judge = mode.judge_migration(self._local, is_source=context.is_source, checks=checks)
        bound = report_data(certificate.public_point)
        judge.evaluate(PeerEvidence(found[OID_QUOTE], found[OID_EVENT_LOG], bound, self._peer_data.remote))
        judge.verify_report_data()
        checks.run(CheckName.CERTIFICATE_SIGNATURE, lambda: verify_self_signature(certificate))

    def _refuse_without_evidence(self) -> NoReturn:
        self._record_missing_evidence()


class RaTls:
    """Makes RA-TLS sessions (migtd.migration.session.SessionFactory)."""

    name: Final = "ra-tls"

    def __call__(self, context: SessionContext) -> RaTlsMigration:
        """A new session with a fresh P-384 key, which waits for evidence."""
        return RaTlsSession(context) if context.peer_data is None else RaTlsSessionV2(context, context.peer_data)

    def rebinding(self, context: RebindingContext) -> RaTlsCore:
        """A new session of a rebinding, as above."""
        # Loaded by those who rebind only.
        from migtd.ratls.rebinding import RaTlsRebinding  # noqa: PLC0415

        return RaTlsRebinding(context)


_V2_EVIDENCE: Final = {OID_QUOTE: "quote", OID_EVENT_LOG: "event log", OID_PEER_DATA_HASH: "policy hash"}


def _find_evidence(certificate: PeerCertificate) -> PeerEvidence:
    found = find_extensions(certificate, {OID_QUOTE: "quote", OID_EVENT_LOG: "event log"})
    return PeerEvidence(found[OID_QUOTE], found[OID_EVENT_LOG], report_data(certificate.public_point))
