# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The certificate that a MigTD makes, field by field, and the reader of its peer's."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable

import pytest
from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from migtd import failures
from migtd.attestation.mode import Evidence
from migtd.errors import SecureSessionError
from migtd.ratls.certificate import (
    OID_ECDSA_WITH_SHA384,
    OID_EKU_MIGTD,
    OID_EVENT_LOG,
    OID_QUOTE,
    make_certificate,
    migration_extensions,
    public_point,
    report_data,
)
from migtd.ratls.reader import MAX_CERTIFICATE, PeerCertificate, pull_certificate, verify_self_signature

KEY = ec.generate_private_key(ec.SECP384R1())
QUOTE = bytes(822)
EVENT_LOG = b"event log" * 40 + b"\0"
DER = make_certificate(KEY, migration_extensions(Evidence(QUOTE, EVENT_LOG)))
NAME = (
    "3042"
    "310b3009060355040613025858"
    "3115301306035504070c0c" + b"Default City".hex() + "311c301a060355040a0c13" + b"Default Company Ltd".hex()
)
MIGTD_ARC = "060b2a864886f84d0105050101"


def der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    if len(content) < 128:
        return bytes((tag, len(content))) + content
    length = len(content).to_bytes(-(-len(content).bit_length() // 8), "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def oid(dotted: str) -> bytes:
    return bytes(core.ObjectIdentifier(dotted).dump())


def handmade(
    *,
    key: ec.EllipticCurvePrivateKey = KEY,
    extensions: tuple[bytes, ...] = (),
    version: bytes = b"\xa0\x03\x02\x01\x02",
    point: bytes | None = None,
    curve: str = "1.3.132.0.34",
    inner_algorithm: str = OID_ECDSA_WITH_SHA384,
    after_key: bytes = b"",
) -> bytes:
    """A certificate whose every part can be wrong, signed correctly."""
    algorithm = der(0x30, oid(OID_ECDSA_WITH_SHA384))
    name = bytes.fromhex(NAME)
    dates = der(0x30, der(0x18, b"19700101000000Z"), der(0x18, b"99991231235959Z"))
    spki = der(
        0x30,
        der(0x30, oid("1.2.840.10045.2.1"), oid(curve)),
        der(0x03, b"\0", point if point is not None else public_point(key.public_key())),
    )
    block = der(0xA3, der(0x30, *extensions)) if extensions else b""
    tbs = der(
        0x30, version, b"\x02\x01\x01", der(0x30, oid(inner_algorithm)), name, dates, name, spki, after_key, block
    )
    return der(0x30, tbs, algorithm, der(0x03, b"\0", key.sign(tbs, ec.ECDSA(SHA384()))))


def extension(dotted: str, value: bytes, critical: bytes = b"") -> bytes:
    return der(0x30, oid(dotted), critical, der(0x04, value))


def assert_malformed(data: bytes) -> None:
    with pytest.raises(SecureSessionError) as refused:
        pull_certificate(data)
    assert refused.value.kind is failures.CERTIFICATE_MALFORMED


def test_certificate_has_the_bytes_of_the_profile_in_every_field() -> None:
    key_usage = "300e0603551d0f0101ff040403020780"
    ext_key_usage = "302a0603551d250423" + "3021" + "06082b06010505070301" + "06082b06010505070302" + MIGTD_ARC
    event_log = der(0x30, bytes.fromhex(MIGTD_ARC)[:-1] + b"\x03", der(0x04, EVENT_LOG))
    quote = der(0x30, bytes.fromhex(MIGTD_ARC)[:-1] + b"\x02", der(0x04, QUOTE))
    expected = (
        bytes.fromhex("a003020102" + "020101" + "300a06082a8648ce3d040303" + NAME)
        + bytes.fromhex("3022" + "180f" + b"19700101000000Z".hex() + "180f" + b"99991231235959Z".hex() + NAME)
        + bytes.fromhex("3076301006072a8648ce3d020106052b81040022036200")
        + KEY.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        + der(0xA3, der(0x30, bytes.fromhex(key_usage + ext_key_usage), event_log, quote))
    )
    tbs = der(0x30, expected)
    assert pull_certificate(DER).tbs == tbs
    assert der(0x30, tbs + bytes.fromhex("300a06082a8648ce3d040303") + DER[4 + len(tbs) + 12 :]) == DER


def test_an_independent_strict_reader_accepts_the_certificate_and_its_signature() -> None:
    certificate = x509.load_der_x509_certificate(DER)
    assert certificate.version is x509.Version.v3
    assert certificate.serial_number == 1
    assert certificate.issuer == certificate.subject
    assert certificate.subject.rfc4514_string() == "O=Default Company Ltd,L=Default City,C=XX"
    assert certificate.not_valid_before_utc == dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    assert certificate.not_valid_after_utc == dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
    assert certificate.signature_algorithm_oid.dotted_string == OID_ECDSA_WITH_SHA384
    assert [(each.oid.dotted_string, each.critical) for each in certificate.extensions] == [
        ("2.5.29.15", True),
        ("2.5.29.37", False),
        ("1.2.840.113741.1.5.5.1.3", False),
        ("1.2.840.113741.1.5.5.1.2", False),
    ]
    raw = [each.value.value for each in certificate.extensions if isinstance(each.value, x509.UnrecognizedExtension)]
    assert raw == [EVENT_LOG, QUOTE]
    certificate.verify_directly_issued_by(certificate)


def test_reader_gives_what_was_put_in() -> None:
    certificate = pull_certificate(DER)
    assert certificate.public_point == public_point(KEY.public_key())
    assert certificate.extended_key_usage == ("1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2", OID_EKU_MIGTD)
    assert certificate.extensions[OID_QUOTE] == QUOTE
    assert certificate.extensions[OID_EVENT_LOG] == EVENT_LOG
    verify_self_signature(certificate)


def test_report_data_is_the_digest_of_the_point_and_zeros() -> None:
    point = public_point(KEY.public_key())
    assert len(point) == 97
    assert report_data(point) == hashlib.sha384(point).digest() + bytes(16)


def test_an_event_log_of_64_kib_fits() -> None:
    log = bytes(range(256)) * 256
    certificate = pull_certificate(make_certificate(KEY, migration_extensions(Evidence(QUOTE, log))))
    assert certificate.extensions[OID_EVENT_LOG] == log


def test_explicit_critical_false_is_read_and_verifies_although_it_is_not_der() -> None:
    loose = handmade(extensions=(extension(OID_QUOTE, QUOTE, b"\x01\x01\x00"), extension(OID_EVENT_LOG, EVENT_LOG)))
    with pytest.raises(ValueError, match="EncodedDefault"):
        _ = x509.load_der_x509_certificate(loose).extensions
    certificate = pull_certificate(loose)
    assert certificate.extensions == {OID_QUOTE: QUOTE, OID_EVENT_LOG: EVENT_LOG}
    verify_self_signature(certificate)


def test_a_certificate_without_extensions_is_read_as_having_none() -> None:
    certificate = pull_certificate(handmade())
    assert certificate.extensions == {}
    assert certificate.extended_key_usage == ()


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"\x30",
        b"\x30\x80\x00\x00",
        b"\xff" * 200,
        DER[:-1],
        DER + b"\0",
        bytes(MAX_CERTIFICATE + 1),
        handmade(version=b""),
        handmade(version=b"\xa0\x03\x02\x01\x01"),
        handmade(point=b"\x04" + bytes(96)),
        handmade(point=b""),
        handmade(point=public_point(KEY.public_key())[:49]),
        handmade(curve="1.2.840.10045.3.1.7"),
        handmade(inner_algorithm="1.2.840.10045.4.3.2"),
        handmade(after_key=b"\x05\x00"),
        handmade(extensions=(extension(OID_QUOTE, QUOTE), extension(OID_QUOTE, QUOTE))),
        handmade(extensions=(extension(OID_QUOTE, QUOTE, b"\x01\x01\x00\x01\x01\x00"),)),
        handmade(extensions=(extension(OID_QUOTE, QUOTE, b"\x01\x02\x00\x00"),)),
        handmade(extensions=(extension(OID_QUOTE, QUOTE, b"\x02\x01\x00"),)),
        handmade(extensions=(extension("2.5.29.37", b"\x04\x00"),)),
        handmade(extensions=tuple(extension(f"1.2.3.{n}", b"") for n in range(100))),
        handmade(extensions=(der(0x30, b"\x06\x81\xff" + b"\x81" * 254 + b"\x01", der(0x04, b"")),)),
        handmade(extensions=(der(0x30, b"\x06\x02\x2a\x81", der(0x04, b"")),)),
        handmade(extensions=(b"\x1f" + b"\x81" * 50_000 + b"\x01\x00",)),
    ],
)
def test_anything_else_is_malformed(broken: bytes) -> None:
    assert_malformed(broken)


def other_key(make: Callable[[], rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey]) -> bytes:
    key = make()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "other")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1)
    dated = builder.not_valid_before(dt.datetime(1970, 1, 1)).not_valid_after(dt.datetime(2100, 1, 1))  # noqa: DTZ001 - the builder wants naive UTC
    return dated.sign(key, SHA256()).public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    "make",
    [lambda: rsa.generate_private_key(65537, 2048), lambda: ec.generate_private_key(ec.SECP256R1())],
    ids=["rsa", "p-256"],
)
def test_certificates_of_other_kinds_of_keys_are_malformed(
    make: Callable[[], rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey],
) -> None:
    assert_malformed(other_key(make))


def changed(certificate: PeerCertificate, **values: object) -> PeerCertificate:
    fields = {name: getattr(certificate, name) for name in PeerCertificate.__slots__}
    return PeerCertificate(**(fields | values))


@pytest.mark.parametrize(
    "values",
    [
        {"tbs": pull_certificate(DER).tbs[:-1] + b"\1"},
        {"signature": b""},
        {"signature": b"\x30\x06\x02\x01\x01\x02\x01\x01"},
        {"signature_algorithm": "1.2.840.10045.4.3.2"},
        {"public_point": public_point(ec.generate_private_key(ec.SECP384R1()).public_key())},
    ],
)
def test_wrong_self_signatures_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(SecureSessionError) as refused:
        verify_self_signature(changed(pull_certificate(DER), **values))
    assert refused.value.kind is failures.CERTIFICATE_SIGNATURE
