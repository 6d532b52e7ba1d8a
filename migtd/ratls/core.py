# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What all RA-TLS sessions have in common (ghci-ratls.md 5): evidence, handshake, and the peer's certificate.

The source is the TLS client. Each side checks the other inside the TLS verify callback, that is before it finishes its
own handshake. What is checked there, and what is said afterwards, is for the sessions that are made of this.
"""

from __future__ import annotations

import abc
import enum
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NoReturn, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec

from migtd import failures
from migtd.attestation.mode import Evidence
from migtd.checks import CheckName, CheckRunner
from migtd.errors import InvalidPolicyError, MigTDError, NetworkError, SecureSessionError
from migtd.migration.session import EvidenceNeeded, PhaseEntered, SessionEvent
from migtd.observer import Phase
from migtd.ratls.certificate import (
    OID_EKU_MIGTD,
    PrivateExtension,
    make_certificate,
    peer_data_hash,
    public_point,
    report_data,
)
from migtd.ratls.reader import PeerCertificate, pull_certificate
from migtd.ratls.tls import PROFILE, PresentedCertificate, RecordCutter, TlsEndpoint, TlsRole, weakly

T = TypeVar("T")

MAX_EARLY: Final = 65_536
"""Most bytes kept from a peer that speaks before our evidence is there; it can have only a ClientHello to say."""


class SessionState(enum.Enum):
    """Where a session is. EXCHANGE: the handshake is done, and with it every check of the peer."""

    EVIDENCE = enum.auto()
    HANDSHAKE = enum.auto()
    EXCHANGE = enum.auto()
    COMPLETE = enum.auto()
    FAILED = enum.auto()


class RaTlsCore(abc.ABC):
    """One side of one RA-TLS session (migtd.migration.session.SessionProtocol).

    Errors of `receive_data`: the MigTDError of the first check that failed here; SecureSessionError where either side
    refused the handshake; NetworkError where the stream ended too early.
    """

    def __init__(self, checks: CheckRunner, *, is_source: bool) -> None:
        self._checks = checks
        self._is_source = is_source
        # Made by the TLS library, like every other random number of the TLS session.
        self._key = ec.generate_private_key(ec.SECP384R1())
        self._report_data = report_data(public_point(self._key.public_key()))
        self._events: deque[SessionEvent] = deque([EvidenceNeeded(self._report_data)])
        self._state = SessionState.EVIDENCE
        self._evidence_error: MigTDError | None = None
        self._tls: TlsEndpoint | None = None
        self._cutter = RecordCutter()
        self._early = b""

    # --- what a session adds ---------------------------------------------------------------------------------------

    @abc.abstractmethod
    def _take_evidence(self, evidence: Evidence) -> Sequence[PrivateExtension]:
        """Keep the own evidence; the extensions of the certificate that shows it."""

    @abc.abstractmethod
    def _check_peer(self, presented: PresentedCertificate) -> None:
        """Make the checks of the peer's certificate, in order. Called inside the TLS verify callback."""

    @abc.abstractmethod
    def _refuse_without_evidence(self) -> NoReturn:
        """Raise why there is no evidence of our own, at its place in the order of checks."""

    @abc.abstractmethod
    def _entered(self, tls: TlsEndpoint) -> None:
        """The handshake is done: say what is to be said first."""

    @abc.abstractmethod
    def _exchange_on(self, tls: TlsEndpoint) -> None:
        """Read what there is after the handshake; `_complete` when that is all."""

    @abc.abstractmethod
    def _ended(self) -> None:
        """The stream ended after the handshake, before the session was complete: complete it, or raise."""

    # --- SessionProtocol -------------------------------------------------------------------------------------------

    def next_event(self) -> SessionEvent | None:
        """The next event in order, or None: feed more."""
        return self._events.popleft() if self._events else None

    def data_to_send(self) -> bytes:
        """Bytes for the peer, at most once each; after an error only an alert can be left."""
        return self._tls.data_to_send() if self._tls is not None else b""

    def provide_evidence(self, evidence: Evidence) -> None:
        """Put the evidence into the certificate and start the handshake."""
        self._start(make_certificate(self._key, self._take_evidence(evidence)))

    def evidence_failed(self, error: MigTDError) -> None:
        """Start the handshake with nothing to show: `error` is raised when the peer's certificate would be checked.

        It is raised as well when the peer refuses us for it before.
        """
        self._evidence_error = error
        self._start(make_certificate(self._key, ()))

    def receive_data(self, data: bytes) -> None:
        """Bytes from the peer, in any portions; `b""` is the end of the stream. Ignored once complete."""
        if self._state is SessionState.FAILED:
            raise RuntimeError("the session has failed")
        if self._state is SessionState.COMPLETE:
            return
        try:
            if not data:
                self._end()
            elif self._tls is None:
                self._keep(data)
            else:
                self._receive(self._tls, data)
        except BaseException:
            self._state = SessionState.FAILED
            raise

    # --- inside ----------------------------------------------------------------------------------------------------

    def _start(self, certificate: bytes) -> None:
        if self._state is not SessionState.EVIDENCE:
            raise RuntimeError("evidence was given before, or the session has failed")
        role = TlsRole.CLIENT if self._is_source else TlsRole.SERVER
        self._tls = TlsEndpoint(role, self._key, certificate, weakly(self._check_peer))
        self._state = SessionState.HANDSHAKE
        self._events.append(PhaseEntered(Phase.HANDSHAKE))
        early, self._early = self._early, b""
        if self._is_source:
            self._tls.handshake()
        if early:
            self.receive_data(early)

    def _keep(self, data: bytes) -> None:
        self._early += data
        if len(self._early) > MAX_EARLY:
            raise SecureSessionError(failures.TLS_PROTOCOL, f"more than {MAX_EARLY} bytes before the handshake began")

    def _receive(self, tls: TlsEndpoint, data: bytes) -> None:
        for piece in self._cutter.cut(data):
            tls.feed(piece)
            try:
                self._advance(tls)
            except SecureSessionError as error:
                if error.kind is failures.TLS_ALERT and self._evidence_error is not None:
                    # The peer saw that we have nothing to show; why is for us to tell.
                    self._refuse_without_evidence()
                raise
            if self._state is SessionState.COMPLETE:
                return

    def _advance(self, tls: TlsEndpoint) -> None:
        if self._state is SessionState.HANDSHAKE and tls.handshake():
            self._expect_certificates(tls)
            self._state = SessionState.EXCHANGE
            self._events.append(PhaseEntered(Phase.EXCHANGE))
            self._entered(tls)
        if self._state is SessionState.EXCHANGE:
            self._exchange_on(tls)

    def _expect_certificates(self, tls: TlsEndpoint) -> None:
        count = tls.peer_certificate_count
        if count != 1:
            # A client saw this inside the callback; a server can see it only now, still before any application data.
            tls.refuse()
            raise SecureSessionError(failures.CERTIFICATE_COUNT, f"{count} certificates")
        if not tls.peer_saw_certificate:
            tls.refuse()
            raise SecureSessionError(failures.CERTIFICATE_UNASKED)

    def _complete(self, event: SessionEvent) -> None:
        self._state = SessionState.COMPLETE
        self._events.append(event)

    def _end(self) -> None:
        if self._state is not SessionState.EXCHANGE:
            raise NetworkError(failures.TRANSPORT_ENDED, "the handshake was not complete")
        self._ended()

    def _make(self, name: CheckName, check: Callable[[], T]) -> T:
        """Make a check that every mode makes, because the session cannot go on without what it finds."""
        found = self._checks.run(name, check)
        if found is None:
            raise SecureSessionError(failures.INTERNAL, f"the mode leaves out {name}, which no mode can")
        return found

    def _expect_profile(self) -> None:
        negotiated = self._tls.negotiated if self._tls is not None else None
        if negotiated != PROFILE:
            raise SecureSessionError(failures.TLS_PARAMETERS, str(negotiated))


def read_certificate(presented: PresentedCertificate) -> PeerCertificate:
    """The one certificate of the peer. Raises SecureSessionError (MIGTD-CERTIFICATE-COUNT, -MALFORMED)."""
    if presented.count != 1:
        raise SecureSessionError(failures.CERTIFICATE_COUNT, f"{presented.count} certificates")
    certificate = pull_certificate(presented.der)
    if certificate.public_point != presented.public_point:
        # Two readers of one certificate: what the evidence is bound to must be the key that TLS uses.
        raise SecureSessionError(failures.CERTIFICATE_MALFORMED, "its key is read differently by the TLS library")
    return certificate


def expect_eku(certificate: PeerCertificate) -> None:
    """It names the MigTD key usage. Raises SecureSessionError (MIGTD-CERTIFICATE-NO-EKU)."""
    if OID_EKU_MIGTD not in certificate.extended_key_usage:
        listed = ", ".join(certificate.extended_key_usage) or "none"
        raise SecureSessionError(failures.CERTIFICATE_NO_EKU, f"listed: {listed}")


def find_extensions(certificate: PeerCertificate, names: dict[str, str]) -> dict[str, bytes]:
    """Values of the extensions that `names` has (name by OID), none empty.

    Raises SecureSessionError (MIGTD-CERTIFICATE-NO-EVIDENCE), which names all that are missing.
    """
    found = {oid: certificate.extensions.get(oid, b"") for oid in names}
    missing = [name for oid, name in names.items() if not found[oid]]
    if missing:
        raise SecureSessionError(failures.CERTIFICATE_NO_EVIDENCE, f"no {' and '.join(missing)}")
    return found


def expect_peer_data(shown: bytes, remote: bytes) -> None:
    """The certificate's hash is that of the blob which came. Raises InvalidPolicyError (MIGTD-PEER-DATA-MISMATCH)."""
    if shown != peer_data_hash(remote):
        detail = f"the certificate has {shown[:8].hex()}…, {peer_data_hash(remote)[:8].hex()}… came"
        raise InvalidPolicyError(failures.PEER_DATA_MISMATCH, detail)
