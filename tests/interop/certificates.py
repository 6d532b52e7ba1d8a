# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Certificates that peers show: the reference's bytes, written by hand, and what general builders make."""

from __future__ import annotations

import datetime as dt

from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

EKU_MIGTD = "1.2.840.113741.1.5.5.1.1"
QUOTE = "1.2.840.113741.1.5.5.1.2"
EVENT_LOG = "1.2.840.113741.1.5.5.1.3"
SERVER_AUTH, CLIENT_AUTH = "1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"


def reference_certificate(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The profile of ghci-ratls.md 5 as the reference encodes it: with an explicit `critical FALSE`, so no DER."""
    algorithm = _der(0x30, _oid("1.2.840.10045.4.3.3"))
    name = _der(
        0x30,
        _der(0x31, _der(0x30, _oid("2.5.4.6"), _der(0x13, b"XX"))),
        _der(0x31, _der(0x30, _oid("2.5.4.7"), _der(0x0C, b"Default City"))),
        _der(0x31, _der(0x30, _oid("2.5.4.10"), _der(0x0C, b"Default Company Ltd"))),
    )
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    usages = _der(0x30, _oid(SERVER_AUTH), _oid(CLIENT_AUTH), _oid(EKU_MIGTD))
    tbs = _der(
        0x30,
        b"\xa0\x03\x02\x01\x02\x02\x01\x01",
        algorithm,
        name,
        _der(0x30, _der(0x18, b"19700101000000Z"), _der(0x18, b"99991231235959Z")),
        name,
        _der(0x30, _der(0x30, _oid("1.2.840.10045.2.1"), _oid("1.3.132.0.34")), _der(0x03, b"\0", point)),
        _der(
            0xA3,
            _der(
                0x30,
                _extension("2.5.29.15", b"\x03\x02\x07\x80", critical=True),
                _extension("2.5.29.37", usages),
                _extension(EVENT_LOG, bytes(200)),
                _extension(QUOTE, bytes(822)),
            ),
        ),
    )
    return _der(0x30, tbs, algorithm, _der(0x03, b"\0", key.sign(tbs, ec.ECDSA(SHA384()))))


def builder_certificate(key: ec.EllipticCurvePrivateKey, *, eku: tuple[str, ...] = (EKU_MIGTD,)) -> bytes:
    """What a general builder makes, for a key on any curve; `eku` is the extended key usage."""
    usages = x509.ExtendedKeyUsage([x509.ObjectIdentifier(usage) for usage in eku])
    builder = _builder("a peer", "a peer", key).add_extension(usages, critical=False)
    for oid, value in ((EVENT_LOG, bytes(200)), (QUOTE, bytes(822))):
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, SHA384()).public_bytes(Encoding.DER)


def chain(key: ec.EllipticCurvePrivateKey) -> tuple[bytes, bytes]:
    """A certificate for `key` and that of its issuer."""
    issuer_key = ec.generate_private_key(ec.SECP384R1())
    leaf = _builder("issuer", "a peer", key)
    issuer = _builder("issuer", "issuer", issuer_key).add_extension(x509.BasicConstraints(True, None), critical=True)  # noqa: FBT003 - the library's own
    first, second = (each.sign(issuer_key, SHA384()).public_bytes(Encoding.DER) for each in (leaf, issuer))
    return first, second


def _builder(issuer: str, subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    return (
        x509.CertificateBuilder(name(issuer), name(subject), key.public_key(), 1)
        .not_valid_before(dt.datetime(1970, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2100, 1, 1, tzinfo=dt.UTC))
    )


def _der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    if len(content) < 128:
        return bytes((tag, len(content))) + content
    length = len(content).to_bytes(-(-len(content).bit_length() // 8), "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def _oid(dotted: str) -> bytes:
    return bytes(core.ObjectIdentifier(dotted).dump())


def _extension(dotted: str, value: bytes, *, critical: bool = False) -> bytes:
    return _der(0x30, _oid(dotted), b"\x01\x01" + (b"\xff" if critical else b"\0"), _der(0x04, value))
