# SPDX-License-Identifier: BSD-2-Clause-Patent
"""RA-TLS as a session protocol of rebindings (ghci-ratls.md 6): TDREPORTs in the certificates, a token behind them.

The old MigTD is the TLS client. It finishes its handshake first, and nothing is ever said to it: whether the new MigTD
took it shows when that one ends the stream, silently or with an alert. The old side is complete only then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NoReturn

from migtd import failures
from migtd.attestation.mode import Evidence, PeerEvidence
from migtd.checks import CheckName
from migtd.errors import InvalidParameter, NetworkError, SecureSessionError
from migtd.guest.abi import REBIND_TOKEN_SIZE
from migtd.migration.servtd_ext import SERVTD_EXT_SIZE, pull_servtd_ext
from migtd.migration.session import RebindingAgreed, RebindingContext
from migtd.ratls.certificate import (
    OID_EVENT_LOG,
    OID_INITIAL_TDINFO,
    OID_PEER_DATA_HASH,
    OID_SERVTD_EXT,
    OID_TDREPORT,
    PrivateExtension,
    rebinding_extensions,
    report_data,
)
from migtd.ratls.core import RaTlsCore, expect_eku, expect_peer_data, find_extensions, read_certificate
from migtd.ratls.reader import PeerCertificate, verify_self_signature
from migtd.ratls.tls import PresentedCertificate, TlsEndpoint

_OF_BOTH: Final = {OID_TDREPORT: "TDREPORT", OID_EVENT_LOG: "event log", OID_PEER_DATA_HASH: "policy hash"}
_OF_OLD: Final = {**_OF_BOTH, OID_SERVTD_EXT: "SERVTD_EXT", OID_INITIAL_TDINFO: "initial TDINFO"}
"""What the certificate of the old MigTD must show."""


class RaTlsRebinding(RaTlsCore):
    """One side of one rebinding; which one, `context.old` says.

    Besides the errors of RaTlsCore: SecureSessionError where the new MigTD says anything at all after the handshake;
    NetworkError where the stream ended before the token was whole.
    """

    def __init__(self, context: RebindingContext) -> None:
        super().__init__(context.checks, is_source=context.old is not None)
        self._context = context
        self._local: Evidence | None = None
        self._token = b""
        self._servtd_ext = b""

    def _take_evidence(self, evidence: Evidence) -> Sequence[PrivateExtension]:
        self._local = evidence
        old = self._context.old
        return rebinding_extensions(evidence, self._context.peer_data.local, None if old is None else old.shown)

    def _check_peer(self, presented: PresentedCertificate) -> None:
        checks, context = self._checks, self._context
        is_old = context.old is not None
        checks.run(CheckName.TLS_PARAMETERS, self._expect_profile)
        # A mode that looks at nothing of a certificate does not even read it; it is read here for what needs it.
        certificate = checks.run(CheckName.CERTIFICATE, lambda: read_certificate(presented))
        checks.run(CheckName.CERTIFICATE_EKU, lambda: expect_eku(_read(certificate)))
        wanted = _OF_BOTH if is_old else _OF_OLD
        found = checks.run(CheckName.EVIDENCE_PRESENT, lambda: find_extensions(_read(certificate), wanted)) or {}
        shown, remote = found.get(OID_PEER_DATA_HASH, b""), context.peer_data.remote
        checks.run(CheckName.PEER_DATA_HASH, lambda: expect_peer_data(shown, remote))
        if self._local is None:
            self._refuse_without_evidence()
        judge = context.mode.judge_rebinding(self._local, is_old=is_old, checks=checks)
        judge.evaluate(
            PeerEvidence(
                quote=found.get(OID_TDREPORT, b""),
                event_log=found.get(OID_EVENT_LOG, b""),
                report_data=report_data(certificate.public_point) if certificate is not None else b"",
                peer_data=remote,
                servtd_ext=found.get(OID_SERVTD_EXT, b""),
                initial_tdinfo=found.get(OID_INITIAL_TDINFO, b""),
            )
        )
        judge.verify_report_data()
        checks.run(CheckName.CERTIFICATE_SIGNATURE, lambda: verify_self_signature(_read(certificate)))
        if not is_old:
            self._servtd_ext = self._make(CheckName.SERVTD_EXT, lambda: _servtd_ext(presented))

    def _refuse_without_evidence(self) -> NoReturn:
        raise self._evidence_error or SecureSessionError(failures.INTERNAL, "a handshake without evidence")

    def _entered(self, tls: TlsEndpoint) -> None:
        if self._context.old is not None:
            tls.write(self._context.old.token)

    def _exchange_on(self, tls: TlsEndpoint) -> None:
        if self._context.old is None:
            while portion := tls.read(REBIND_TOKEN_SIZE - len(self._token)):
                self._token += portion
                if len(self._token) == REBIND_TOKEN_SIZE:
                    self._complete(RebindingAgreed(self._token, self._servtd_ext))
                    return
            return
        try:
            said = tls.read(1)
        except NetworkError:
            # The new MigTD closed the session: it has all that it needs.
            self._ended()
            return
        if said:
            raise SecureSessionError(failures.TLS_PROTOCOL, "the new MigTD has nothing to say after the handshake")

    def _ended(self) -> None:
        old = self._context.old
        if old is None:
            come = f"{len(self._token)} of {REBIND_TOKEN_SIZE} bytes of the token came"
            raise NetworkError(failures.TRANSPORT_ENDED, come)
        self._complete(RebindingAgreed(old.token, old.shown.servtd_ext))


def _read(certificate: PeerCertificate | None) -> PeerCertificate:
    if certificate is None:
        raise SecureSessionError(failures.INTERNAL, "the mode looks at a certificate that it did not read")
    return certificate


def _servtd_ext(presented: PresentedCertificate) -> bytes:
    """SERVTD_EXT as the old MigTD showed it: there, long enough, current attributes 0 (policy.md 6.2)."""
    shown = read_certificate(presented).extensions.get(OID_SERVTD_EXT, b"")
    attributes = pull_servtd_ext(shown).current_attr
    if attributes:
        raise InvalidParameter(failures.SERVTD_ATTR, f"the current attributes in SERVTD_EXT are {attributes:#x}")
    return shown[:SERVTD_EXT_SIZE]
