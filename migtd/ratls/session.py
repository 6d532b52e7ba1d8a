# SPDX-License-Identifier: BSD-2-Clause-Patent
"""RA-TLS as a session protocol (ghci-ratls.md 5, policy v1): bytes and evidence in, bytes and events out.

The source is the TLS client. Each side checks the other inside the TLS verify callback, that is before it finishes
its own handshake, and writes its key only after that (design.md, I1).
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import Final, NoReturn, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec

from migtd import failures
from migtd.attestation.mode import Evidence, Judge, PeerEvidence
from migtd.checks import CheckName
from migtd.errors import MigTDError, NetworkError, SecureSessionError
from migtd.migration.data import (
    EXCHANGE_SIZE,
    ExchangeInformation,
    pull_exchange_information,
    push_exchange_information,
)
from migtd.migration.session import (
    EvidenceNeeded,
    PeerInformation,
    PhaseEntered,
    SessionContext,
    SessionEvent,
)
from migtd.observer import Phase
from migtd.ratls.certificate import (
    OID_EKU_MIGTD,
    OID_EVENT_LOG,
    OID_QUOTE,
    make_certificate,
    migration_extensions,
    public_point,
    report_data,
)
from migtd.ratls.reader import PeerCertificate, pull_certificate, verify_self_signature
from migtd.ratls.tls import PROFILE, PresentedCertificate, RecordCutter, TlsEndpoint, TlsRole, weakly

T = TypeVar("T")

MAX_EARLY: Final = 65_536
"""Most bytes kept from a peer that speaks before our evidence is there; it can have only a ClientHello to say."""


class _State(enum.Enum):
    EVIDENCE = enum.auto()
    HANDSHAKE = enum.auto()
    EXCHANGE = enum.auto()
    COMPLETE = enum.auto()
    FAILED = enum.auto()


class RaTlsSession:
    """One side of one RA-TLS session (migtd.migration.session.SessionProtocol).

    Errors of `receive_data`: the MigTDError of the first check that failed here; SecureSessionError where either side
    refused the handshake; NetworkError where the stream ended before the 40 bytes; InvalidParameter where their
    reserved bytes are not zero.
    """

    def __init__(self, context: SessionContext) -> None:
        self._context = context
        # Made by the TLS library, like every other random number of the TLS session.
        self._key = ec.generate_private_key(ec.SECP384R1())
        self._report_data = report_data(public_point(self._key.public_key()))
        self._events: deque[SessionEvent] = deque([EvidenceNeeded(self._report_data)])
        self._state = _State.EVIDENCE
        self._judge: Judge | None = None
        self._evidence_error: MigTDError | None = None
        self._tls: TlsEndpoint | None = None
        self._cutter = RecordCutter()
        self._early = b""
        self._exchange = b""

    def next_event(self) -> SessionEvent | None:
        """The next event in order, or None: feed more."""
        return self._events.popleft() if self._events else None

    def data_to_send(self) -> bytes:
        """Bytes for the peer, at most once each; after an error only an alert can be left."""
        return self._tls.data_to_send() if self._tls is not None else b""

    def provide_evidence(self, evidence: Evidence) -> None:
        """Put the evidence into the certificate and start the handshake."""
        context = self._context
        self._judge = context.mode.judge(evidence, is_source=context.is_source, checks=context.checks)
        self._start(make_certificate(self._key, migration_extensions(evidence)))

    def evidence_failed(self, error: MigTDError) -> None:
        """Start the handshake with nothing to show: `error` is raised when the peer's certificate would be checked.

        It is raised as well when the peer refuses us for it before.
        """
        self._evidence_error = error
        self._start(make_certificate(self._key, ()))

    def receive_data(self, data: bytes) -> None:
        """Bytes from the peer, in any portions; `b""` is the end of the stream. Ignored once complete."""
        if self._state is _State.FAILED:
            raise RuntimeError("the session has failed")
        if self._state is _State.COMPLETE:
            return
        try:
            if not data:
                self._end()
            elif self._tls is None:
                self._keep(data)
            else:
                self._receive(self._tls, data)
        except BaseException:
            self._state = _State.FAILED
            raise

    def _start(self, certificate: bytes) -> None:
        if self._state is not _State.EVIDENCE:
            raise RuntimeError("evidence was given before, or the session has failed")
        role = TlsRole.CLIENT if self._context.is_source else TlsRole.SERVER
        self._tls = TlsEndpoint(role, self._key, certificate, weakly(self._check_peer))
        self._state = _State.HANDSHAKE
        self._events.append(PhaseEntered(Phase.HANDSHAKE))
        early, self._early = self._early, b""
        if self._context.is_source:
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
                    self._check_local_quote()
                raise
            if self._state is _State.COMPLETE:
                return

    def _advance(self, tls: TlsEndpoint) -> None:
        if self._state is _State.HANDSHAKE and tls.handshake():
            self._enter_exchange(tls)
        if self._state is not _State.EXCHANGE:
            return
        while portion := tls.read(EXCHANGE_SIZE - len(self._exchange)):
            self._exchange += portion
            if len(self._exchange) == EXCHANGE_SIZE:
                self._complete()
                return

    def _enter_exchange(self, tls: TlsEndpoint) -> None:
        count = tls.peer_certificate_count
        if count != 1:
            # A client saw this inside the callback; a server can see it only now, still before any application data.
            tls.refuse()
            raise SecureSessionError(failures.CERTIFICATE_COUNT, f"{count} certificates")
        if not tls.peer_saw_certificate:
            tls.refuse()
            raise SecureSessionError(failures.CERTIFICATE_UNASKED)
        self._state = _State.EXCHANGE
        self._events.append(PhaseEntered(Phase.EXCHANGE))
        tls.write(push_exchange_information(self._context.local))

    def _complete(self) -> None:
        information = self._make(CheckName.EXCHANGE_INFORMATION, self._pull_information)
        self._state = _State.COMPLETE
        self._events.append(PeerInformation(information))

    def _end(self) -> NoReturn:
        come = f"{len(self._exchange)} of {EXCHANGE_SIZE} bytes of the exchange information came"
        detail = come if self._state is _State.EXCHANGE else "the handshake was not complete"
        raise NetworkError(failures.TRANSPORT_ENDED, detail)

    # --- checks: called inside the TLS verify callback, in the order of ghci-ratls.md 5 ---------------------------

    def _check_peer(self, presented: PresentedCertificate) -> None:
        checks = self._context.checks
        checks.run(CheckName.TLS_PARAMETERS, self._expect_profile)
        judge = self._check_local_quote()
        certificate = self._make(CheckName.CERTIFICATE, lambda: _read_certificate(presented))
        checks.run(CheckName.CERTIFICATE_EKU, lambda: _expect_eku(certificate))
        evidence = self._make(CheckName.EVIDENCE_PRESENT, lambda: _find_evidence(certificate))
        judge.verify_quote(evidence)
        checks.run(CheckName.CERTIFICATE_SIGNATURE, lambda: verify_self_signature(certificate))
        judge.evaluate_policy()

    def _make(self, name: CheckName, check: Callable[[], T]) -> T:
        """Make a check that every mode makes, because the session cannot go on without what it finds."""
        found = self._context.checks.run(name, check)
        if found is None:
            raise SecureSessionError(failures.INTERNAL, f"the mode leaves out {name}, which no mode can")
        return found

    def _expect_profile(self) -> None:
        negotiated = self._tls.negotiated if self._tls is not None else None
        if negotiated != PROFILE:
            raise SecureSessionError(failures.TLS_PARAMETERS, str(negotiated))

    def _check_local_quote(self) -> Judge:
        if self._judge is not None:
            self._judge.verify_local()
            return self._judge
        error = self._evidence_error or SecureSessionError(failures.INTERNAL, "a handshake without evidence")

        def fail() -> None:
            raise error

        self._context.checks.run(CheckName.QUOTE_LOCAL, fail)
        # A mode that does not verify its own quote still needs evidence to show.
        raise error

    def _pull_information(self) -> ExchangeInformation:
        return pull_exchange_information(self._exchange)


class RaTls:
    """Makes RA-TLS sessions (migtd.migration.session.SessionFactory)."""

    name: Final = "ra-tls"

    def __call__(self, context: SessionContext) -> RaTlsSession:
        """A new session with a fresh P-384 key, which waits for evidence."""
        return RaTlsSession(context)


def _read_certificate(presented: PresentedCertificate) -> PeerCertificate:
    if presented.count != 1:
        raise SecureSessionError(failures.CERTIFICATE_COUNT, f"{presented.count} certificates")
    certificate = pull_certificate(presented.der)
    if certificate.public_point != presented.public_point:
        # Two readers of one certificate: what the evidence is bound to must be the key that TLS uses.
        raise SecureSessionError(failures.CERTIFICATE_MALFORMED, "its key is read differently by the TLS library")
    return certificate


def _expect_eku(certificate: PeerCertificate) -> None:
    if OID_EKU_MIGTD not in certificate.extended_key_usage:
        listed = ", ".join(certificate.extended_key_usage) or "none"
        raise SecureSessionError(failures.CERTIFICATE_NO_EKU, f"listed: {listed}")


def _find_evidence(certificate: PeerCertificate) -> PeerEvidence:
    quote = certificate.extensions.get(OID_QUOTE)
    event_log = certificate.extensions.get(OID_EVENT_LOG)
    if not quote or not event_log:
        missing = " and ".join(name for name, value in (("quote", quote), ("event log", event_log)) if not value)
        raise SecureSessionError(failures.CERTIFICATE_NO_EVIDENCE, f"no {missing}")
    return PeerEvidence(quote, event_log, report_data(certificate.public_point))
