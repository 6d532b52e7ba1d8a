# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Peers that break the profile, played by bare TLS endpoints that see what a refused peer gets to see."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from migtd import failures
from migtd.attestation.accept_all import AcceptAll
from migtd.attestation.mode import Evidence
from migtd.checks import CheckStatus
from migtd.errors import FailureKind, InvalidParameter, NetworkError, SecureSessionError
from migtd.migration.data import ExchangeInformation, push_exchange_information
from migtd.observer import Phase
from migtd.ratls import certificate as certificate_module
from migtd.ratls.certificate import make_certificate, migration_extensions
from migtd.ratls.reader import pull_certificate
from migtd.ratls.session import RaTls
from migtd.ratls.testing import ConnectionPair, Side, converse, make_side, stranger_certificate
from migtd.ratls.tls import Alert
from migtd.testing_session import ScriptedMode

OURS = ExchangeInformation(b"our secret key of 32 bytes here!", 1, 2)
THEIRS = ExchangeInformation(bytes(range(32)), 1, 1)
EVIDENCE = Evidence(bytes(822), b"log\0")
KEY = ec.generate_private_key(ec.SECP384R1())
GOOD = make_certificate(KEY, migration_extensions(EVIDENCE))
PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
BOTH_ROLES = pytest.mark.parametrize("is_source", [True, False], ids=["our-client", "our-server"])


def our_side(*, is_source: bool) -> Side:
    return make_side(RaTls(), AcceptAll(lambda: b"log\0"), EVIDENCE, OURS, is_source=is_source)


@dataclass(slots=True)
class RawPeer:
    """A TLS endpoint that follows no profile of ours. `application_data` and `alerts` are what it got to see."""

    is_client: bool
    key: PrivateKey | None = KEY
    certificate: bytes = GOOD
    extra: tuple[bytes, ...] = ()
    configure: Callable[[SSL.Context], None] = lambda _: None
    say: tuple[bytes, ...] = ()
    close: bool = False
    application_data: bytes = b""
    alerts: list[int] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    done: bool = False
    connection: SSL.Connection = field(init=False)

    def __post_init__(self) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD if self.is_client else SSL.TLS_SERVER_METHOD)
        context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
        if self.key is not None:
            context.use_certificate(x509.load_der_x509_certificate(self.certificate))
            context.use_privatekey(self.key)
            for extra in self.extra:
                context.add_extra_chain_cert(x509.load_der_x509_certificate(extra))
        self.configure(context)
        self.connection = SSL.Connection(context)
        self.connection.set_info_callback(self._on_info)
        if self.is_client:
            self.connection.set_connect_state()
        else:
            self.connection.set_accept_state()

    def _on_info(self, _connection: SSL.Connection, where: int, code: int) -> None:
        if where == SSL.SSL_CB_READ_ALERT:
            self.alerts.append(code & 0xFF)

    def turn(self, data: bytes) -> bytes:
        """Take bytes, act, return what is to be sent."""
        if data:
            self.connection.bio_write(data)
        try:
            self._act()
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            self.reasons.append(repr(error))
        try:
            return self.connection.bio_read(1 << 20)
        except SSL.WantReadError:
            return b""

    def _act(self) -> None:
        if not self.done:
            self.connection.do_handshake()
            self.done = True
            for portion in self.say:
                self.connection.send(portion)
            if self.close:
                self.connection.shutdown()
        while True:
            self.application_data += self.connection.recv(65_536)


def assert_refused(side: Side, peer: RawPeer, kind: FailureKind) -> None:
    """We refused, the peer got an alert, and nothing of our key."""
    assert isinstance(side.error, SecureSessionError)
    assert side.error.kind is kind
    assert side.information is None
    assert Phase.EXCHANGE not in [getattr(event, "phase", None) for event in side.events]
    assert peer.application_data == b""
    assert peer.alerts
    assert Alert.close_notify not in peer.alerts


RSA_KEY = rsa.generate_private_key(65537, 2048)
P256_KEY = ec.generate_private_key(ec.SECP256R1())


@BOTH_ROLES
def test_a_well_behaved_stranger_is_accepted(*, is_source: bool) -> None:
    peer = RawPeer(not is_source, certificate=stranger_certificate(KEY), say=(push_exchange_information(THEIRS),))
    side = converse(our_side(is_source=is_source), peer)
    assert side.information == THEIRS
    assert peer.application_data == push_exchange_information(OURS)


@BOTH_ROLES
def test_a_certificate_with_explicit_critical_false_is_accepted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, is_source: bool
) -> None:
    strict = certificate_module._extension

    def loose(oid: str, value: bytes, *, critical: bytes = b"\x01\x01\x00") -> bytes:
        return strict(oid, value, critical=critical)

    with monkeypatch.context() as patch:
        patch.setattr(certificate_module, "_extension", loose)
        not_der = make_certificate(KEY, migration_extensions(EVIDENCE))
    assert not_der.count(b"\x01\x01\x00\x04") == 3
    file = tmp_path / "certificate.der"
    file.write_bytes(not_der)

    def use_file(context: SSL.Context) -> None:
        # OpenSSL reads it, pyca would not.
        context.use_certificate_file(str(file), crypto.FILETYPE_ASN1)

    peer = RawPeer(not is_source, configure=use_file, say=(push_exchange_information(THEIRS),))
    assert converse(our_side(is_source=is_source), peer).information == THEIRS


@BOTH_ROLES
@pytest.mark.parametrize(
    ("key", "certificate", "kind"),
    [
        (KEY, stranger_certificate(KEY, eku=()), failures.CERTIFICATE_NO_EKU),
        (KEY, stranger_certificate(KEY, eku=("1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2")), failures.CERTIFICATE_NO_EKU),
        (KEY, stranger_certificate(KEY, eku=("1.2.840.113741.1.5.5.1.2",)), failures.CERTIFICATE_NO_EKU),
        (KEY, stranger_certificate(KEY, quote=None), failures.CERTIFICATE_NO_EVIDENCE),
        (KEY, stranger_certificate(KEY, log=None), failures.CERTIFICATE_NO_EVIDENCE),
        (RSA_KEY, stranger_certificate(RSA_KEY), failures.CERTIFICATE_MALFORMED),
        (P256_KEY, stranger_certificate(P256_KEY), failures.CERTIFICATE_MALFORMED),
    ],
    ids=["no-eku", "tls-eku-only", "other-eku", "no-quote", "no-log", "rsa", "p-256"],
)
def test_a_bad_certificate_is_refused_before_any_key_is_written(
    key: PrivateKey, certificate: bytes, kind: FailureKind, *, is_source: bool
) -> None:
    peer = RawPeer(not is_source, key, certificate, say=(push_exchange_information(THEIRS),))
    side = converse(our_side(is_source=is_source), peer)
    assert_refused(side, peer, kind)
    assert side.checks[-1].status is CheckStatus.FAILED


@BOTH_ROLES
def test_a_certificate_signed_by_another_key_is_refused_by_a_mode_that_looks(*, is_source: bool) -> None:
    forged = pull_certificate(GOOD).tbs
    signature = ec.generate_private_key(ec.SECP384R1()).sign(forged, ec.ECDSA(SHA384()))
    content = forged + bytes.fromhex("300a06082a8648ce3d04030303") + bytes((len(signature) + 1, 0)) + signature
    certificate = b"\x30\x82" + len(content).to_bytes(2) + content
    peer = RawPeer(not is_source, certificate=certificate, say=(push_exchange_information(THEIRS),))
    side = converse(make_side(RaTls(), ScriptedMode(), EVIDENCE, OURS, is_source=is_source), peer)
    assert_refused(side, peer, failures.CERTIFICATE_SIGNATURE)


@BOTH_ROLES
def test_a_second_certificate_is_refused_with_an_alert_before_any_key_is_written(*, is_source: bool) -> None:
    peer = RawPeer(not is_source, extra=(stranger_certificate(KEY),), say=(push_exchange_information(THEIRS),))
    side = converse(our_side(is_source=is_source), peer)
    assert_refused(side, peer, failures.CERTIFICATE_COUNT)


@BOTH_ROLES
def test_a_chain_is_refused_although_its_certificates_belong_together(*, is_source: bool) -> None:
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "leaf")])
    issuer_key = ec.generate_private_key(ec.SECP384R1())

    def make(name: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> bytes:
        builder = x509.CertificateBuilder(issuer, name, key.public_key(), 7)
        dated = builder.not_valid_before(dt.datetime(1970, 1, 1, tzinfo=dt.UTC)).not_valid_after(
            dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
        )
        constrained = dated.add_extension(x509.BasicConstraints(ca, None), critical=True)
        return constrained.sign(issuer_key, SHA384()).public_bytes(Encoding.DER)

    chain = make(issuer, issuer_key, ca=True)
    peer = RawPeer(not is_source, KEY, make(subject, KEY, ca=False), (chain,))
    side = converse(our_side(is_source=is_source), peer)
    assert_refused(side, peer, failures.CERTIFICATE_COUNT)


def test_a_client_without_a_certificate_is_refused() -> None:
    peer = RawPeer(is_client=True, key=None, say=(push_exchange_information(THEIRS),))
    side = converse(our_side(is_source=False), peer)
    assert_refused(side, peer, failures.TLS_PROTOCOL)
    assert peer.alerts == [Alert.certificate_required]


def only_tls_1_2(context: SSL.Context) -> None:
    context.set_max_proto_version(SSL.TLS1_2_VERSION)


def only_another_suite(context: SSL.Context) -> None:
    context.set_tls13_ciphersuites(b"TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256")


def only_another_group(context: SSL.Context) -> None:
    context.set_tmp_ecdh(ec.SECP256R1())


OTHER_PARAMETERS = pytest.mark.parametrize("configure", [only_tls_1_2, only_another_suite, only_another_group])


@OTHER_PARAMETERS
def test_a_client_with_other_parameters_only_is_refused(configure: Callable[[SSL.Context], None]) -> None:
    peer = RawPeer(is_client=True, configure=configure, say=(push_exchange_information(THEIRS),))
    side = converse(our_side(is_source=False), peer)
    assert_refused(side, peer, failures.TLS_PROTOCOL)
    assert side.error is not None
    assert side.error.detail
    assert side.checks == []


@OTHER_PARAMETERS
def test_a_server_with_other_parameters_only_refuses_what_we_offer(configure: Callable[[SSL.Context], None]) -> None:
    peer = RawPeer(is_client=False, configure=configure)
    side = converse(our_side(is_source=True), peer)
    assert isinstance(side.error, SecureSessionError)
    assert side.error.kind is failures.TLS_ALERT
    assert "(" in side.error.detail
    assert peer.application_data == b""


def test_a_client_that_offers_more_is_led_to_our_group_and_suite() -> None:
    peer = RawPeer(is_client=True, say=(push_exchange_information(THEIRS),))
    side = converse(our_side(is_source=False), peer)
    assert side.information == THEIRS
    assert peer.connection.get_group_name() == "secp384r1"
    assert peer.connection.get_cipher_name() == "TLS_AES_256_GCM_SHA384"


def test_our_client_offers_one_version_one_suite_one_group_and_no_name() -> None:
    side = our_side(is_source=True)
    side.start()
    hello = side.take()
    position = 9 + 2 + 32
    position += 1 + hello[position]
    suites = hello[position + 2 : position + 2 + int.from_bytes(hello[position : position + 2])]
    position += 2 + len(suites)
    position += 1 + hello[position] + 2
    extensions: dict[int, bytes] = {}
    while position < len(hello):
        size = int.from_bytes(hello[position + 2 : position + 4])
        extensions[int.from_bytes(hello[position : position + 2])] = hello[position + 4 : position + 4 + size]
        position += 4 + size
    assert suites == b"\x13\x02"
    assert extensions[43] == b"\x02\x03\x04"
    assert extensions[10] == b"\x00\x02\x00\x18"
    assert extensions[51][:6] == b"\x00\x65\x00\x18\x00\x61"
    for absent in (0, 16, 35, 41, 42):  # server_name, ALPN, session_ticket, pre_shared_key, early_data
        assert absent not in extensions


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\x13\x02\x00", b"\x13\x01\x00"),
        (b"\x00\x33\x00\x65\x00\x18", b"\x00\x33\x00\x65\x00\x1d"),
        (b"\x00\x2b\x00\x02\x03\x04", b"\x00\x2b\x00\x02\x03\x03"),
    ],
    ids=["suite", "group", "version"],
)
def test_our_client_refuses_a_server_hello_that_chooses_what_was_not_offered(old: bytes, new: bytes) -> None:
    def forge(data: bytes) -> Iterable[bytes]:
        return (data.replace(old, new, 1),)

    pair = ConnectionPair(our_side(is_source=True), our_side(is_source=False)).run(to_source=forge)
    assert isinstance(pair.source.error, SecureSessionError)
    assert pair.source.error.kind is failures.TLS_PROTOCOL
    assert isinstance(pair.destination.error, SecureSessionError)
    assert pair.destination.error.kind is failures.TLS_ALERT


def test_our_server_refuses_a_client_hello_with_x25519_only() -> None:
    def forge(data: bytes) -> Iterable[bytes]:
        groups = data.replace(b"\x00\x0a\x00\x04\x00\x02\x00\x18", b"\x00\x0a\x00\x04\x00\x02\x00\x1d", 1)
        return (groups.replace(b"\x00\x65\x00\x18\x00\x61", b"\x00\x65\x00\x1d\x00\x61", 1),)

    pair = ConnectionPair(our_side(is_source=True), our_side(is_source=False)).run(to_destination=forge)
    assert isinstance(pair.destination.error, SecureSessionError)
    assert pair.destination.error.kind is failures.TLS_PROTOCOL
    assert isinstance(pair.source.error, SecureSessionError)
    assert pair.source.error.kind is failures.TLS_ALERT
    assert pair.source.error.detail == "handshake_failure (40)"


@BOTH_ROLES
@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", bytes(64), b"\xff" * 70_000, b"\x16\x03\x03\xff\xff" + bytes(10), b"\x80\x2e\x01" * 50],
)
def test_garbage_instead_of_a_handshake_is_a_protocol_failure(garbage: bytes, *, is_source: bool) -> None:
    side = our_side(is_source=is_source)
    side.start()
    side.receive(garbage)
    assert isinstance(side.error, SecureSessionError)
    assert side.error.kind is failures.TLS_PROTOCOL


@BOTH_ROLES
def test_a_record_of_garbage_after_the_handshake_is_a_protocol_failure(*, is_source: bool) -> None:
    peer = RawPeer(not is_source)
    side = our_side(is_source=is_source)
    side.start()
    to_us = peer.turn(b"")
    for _ in range(4):
        side.session.receive_data(to_us) if to_us else None
        to_us = peer.turn(side.take())
    side.receive(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert isinstance(side.error, SecureSessionError)
    assert side.error.kind is failures.TLS_PROTOCOL


@BOTH_ROLES
@pytest.mark.parametrize("close", [True, False], ids=["close-notify", "end-of-stream"])
@pytest.mark.parametrize("size", [0, 1, 39])
def test_a_short_exchange_is_a_network_error(size: int, *, close: bool, is_source: bool) -> None:
    say = (push_exchange_information(THEIRS)[:size],) if size else ()
    side = converse(our_side(is_source=is_source), RawPeer(not is_source, say=say, close=close))
    assert isinstance(side.error, NetworkError)
    assert side.error.kind is failures.TRANSPORT_ENDED
    assert side.information is None


@BOTH_ROLES
@pytest.mark.parametrize("position", range(36, 40))
def test_reserved_bytes_that_are_not_zero_are_refused(position: int, *, is_source: bool) -> None:
    message = bytearray(push_exchange_information(THEIRS))
    message[position] = 1
    side = converse(our_side(is_source=is_source), RawPeer(not is_source, say=(bytes(message),)))
    assert isinstance(side.error, InvalidParameter)
    assert side.error.kind is failures.EXCHANGE_RESERVED
    assert side.checks[-1].status is CheckStatus.FAILED


@BOTH_ROLES
def test_the_exchange_may_come_in_portions_and_what_follows_is_ignored(*, is_source: bool) -> None:
    message = push_exchange_information(THEIRS)
    say = (*(message[n : n + 1] for n in range(39)), message[39:] + b"and more", b"and more")
    side = converse(our_side(is_source=is_source), RawPeer(not is_source, say=say, close=True))
    assert side.error is None
    assert side.information == THEIRS
