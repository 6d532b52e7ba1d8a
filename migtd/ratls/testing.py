# SPDX-License-Identifier: BSD-2-Clause-Patent
"""For tests: sessions and strangers that meet in memory, without transport, task or clock."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding

from migtd import failures
from migtd.attestation.mode import AttestationMode, Evidence
from migtd.checks import Check, CheckRunner
from migtd.errors import MigTDError, SecureSessionError
from migtd.migration.data import ExchangeInformation
from migtd.migration.session import (
    EvidenceNeeded,
    PeerInformation,
    RebindingAgreed,
    SessionContext,
    SessionEvent,
    SessionFactory,
    SessionProtocol,
)
from migtd.ratls.certificate import OID_EKU_MIGTD, OID_EVENT_LOG, OID_QUOTE


@dataclass(slots=True)
class Side:
    """One end. It answers EvidenceNeeded by itself and remembers what happened.

    `events` holds every event in order, `error` what ended the session if anything did, `sent` all bytes for the peer.
    """

    session: SessionProtocol
    evidence: Evidence | MigTDError
    checks: list[Check]
    events: list[SessionEvent] = field(default_factory=list)
    error: MigTDError | None = None
    sent: bytes = field(default=b"", repr=False)

    @property
    def information(self) -> ExchangeInformation | None:
        """What the peer sent, once the session is complete."""
        return next((event.information for event in self.events if isinstance(event, PeerInformation)), None)

    @property
    def agreed(self) -> RebindingAgreed | None:
        """What a rebinding agreed on, once the session is complete."""
        return next((event for event in self.events if isinstance(event, RebindingAgreed)), None)

    @property
    def ended(self) -> bool:
        """Whether the session is complete or has failed."""
        return self.error is not None or self.information is not None or self.agreed is not None

    def start(self) -> None:
        """Take the first events; a client then has something to send."""
        self._drain()

    def receive(self, data: bytes) -> None:
        """Hand over bytes, or `b""` for the end of the stream. A session that has failed gets nothing more."""
        if self.error is not None:
            return
        try:
            self.session.receive_data(data)
        except MigTDError as error:
            self.error = error
        self._drain()

    def take(self) -> bytes:
        """What waits to be sent."""
        data = self.session.data_to_send()
        self.sent += data
        return data

    def _drain(self) -> None:
        while (event := self.session.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, EvidenceNeeded):
                self.answer()

    def answer(self) -> None:
        """Answer EvidenceNeeded with `evidence`."""
        if isinstance(self.evidence, MigTDError):
            self.session.evidence_failed(self.evidence)
        else:
            self.session.provide_evidence(self.evidence)


def make_side(
    factory: SessionFactory,
    mode: AttestationMode,
    evidence: Evidence | MigTDError,
    local: ExchangeInformation,
    *,
    is_source: bool,
) -> Side:
    """A new session of `factory` with a check runner that keeps what it makes in `Side.checks`."""
    checks: list[Check] = []
    context = SessionContext(is_source, local, mode, CheckRunner(mode.skips, checks.append))
    return Side(factory(context), evidence, checks)


async def attested_side(
    factory: SessionFactory,
    mode: AttestationMode,
    local: ExchangeInformation,
    *,
    is_source: bool,
) -> Side:
    """A new session that shows what its mode has for it.

    A mode that has none fails the session with its error, at its place in the order.
    """
    side = make_side(factory, mode, SecureSessionError(failures.INTERNAL), local, is_source=is_source)
    needed = side.session.next_event()
    if not isinstance(needed, EvidenceNeeded):
        raise TypeError(needed)
    side.events.append(needed)
    try:
        side.evidence = await mode.local_evidence(needed.report_data)
    except MigTDError as error:
        side.evidence = error
    side.answer()
    return side


Cut = Callable[[bytes], Iterable[bytes]]
"""How bytes on the way are cut into portions, or changed."""


def uncut(data: bytes) -> Iterable[bytes]:
    """One portion."""
    return (data,)


@dataclass(slots=True)
class ConnectionPair:
    """Two ends and the link between them."""

    source: Side
    destination: Side

    def run(self, to_destination: Cut = uncut, to_source: Cut = uncut) -> ConnectionPair:
        """Carry bytes until nobody has more to say, then end the stream for whoever still waits."""
        self.source.start()
        self.destination.start()
        while self._carry(self.source, self.destination, to_destination) or self._carry(
            self.destination, self.source, to_source
        ):
            pass
        for side in (self.source, self.destination):
            if not side.ended:
                side.receive(b"")
        return self

    def _carry(self, sender: Side, receiver: Side, cut: Cut) -> bool:
        data = sender.take()
        if data:
            for portion in cut(data):
                receiver.receive(portion)
        return bool(data)


class Peer(Protocol):
    """A TLS endpoint without a socket."""

    def turn(self, data: bytes) -> bytes:
        """Take bytes from our side and act; returns the bytes for our side, `b""` if there are none."""


def converse(side: Side, peer: Peer) -> Side:
    """Carry bytes between the two until both are silent, then end the stream for our side."""
    side.start()
    to_us = peer.turn(b"")
    while True:
        if to_us:
            side.receive(to_us)
        to_peer = side.take()
        if not to_us and not to_peer:
            break
        to_us = peer.turn(to_peer)
    if not side.ended:
        side.receive(b"")
    return side


def stranger_certificate(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    *,
    eku: Iterable[str] = (OID_EKU_MIGTD,),
    quote: bytes | None = bytes(822),
    log: bytes | None = bytes(200),
    since: int = 1970,
    until: int = 2100,
) -> bytes:
    """A self-signed certificate as a general builder makes it, DER; what is empty or None is left out.

    `since` and `until` are the years of its validity.
    """
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a peer")])
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(dt.datetime(since, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(until, 1, 1, tzinfo=dt.UTC))
    )
    usages = [x509.ObjectIdentifier(usage) for usage in eku]
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    for oid, value in ((OID_EVENT_LOG, log), (OID_QUOTE, quote)):
        if value is not None:
            extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
            builder = builder.add_extension(extension, critical=False)
    digest = SHA384() if isinstance(key, ec.EllipticCurvePrivateKey) else SHA256()
    return builder.sign(key, digest).public_bytes(Encoding.DER)
