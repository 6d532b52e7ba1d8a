# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The self-signed certificate that carries a MigTD's evidence (ghci-ratls.md 5).

Written as DER by hand: the profile wants GeneralizedTime in both dates, extensions in a fixed order, and private
extension values without an inner DER wrapper, which the certificate builders at hand do not give together.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from typing import Final, TypeAlias

from asn1crypto import core
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from migtd.attestation.mode import REPORT_DATA_SIZE, Evidence
from migtd.migration.session import TargetHistory

OID_KEY_USAGE: Final = "2.5.29.15"
OID_EXT_KEY_USAGE: Final = "2.5.29.37"
OID_QUOTE: Final = "1.2.840.113741.1.5.5.1.2"
"""Private extension: the TDX quote (migration)."""
OID_EVENT_LOG: Final = "1.2.840.113741.1.5.5.1.3"
"""Private extension: the CCEL event log with one spare byte."""
OID_PEER_DATA_HASH: Final = "1.2.840.113741.1.5.5.1.4"
"""Private extension: SHA-384 of the own PEER DATA blob (policy v2)."""
OID_TDREPORT: Final = "1.2.840.113741.1.5.5.1.5"
"""Private extension: the TDREPORT, 1024 bytes (rebinding, in the place of the quote)."""
OID_SERVTD_EXT: Final = "1.2.840.113741.1.5.5.1.6"
"""Private extension: SERVTD_EXT of the target TD, 272 bytes (rebinding, old MigTD)."""
OID_INITIAL_TDINFO: Final = "1.2.840.113741.1.5.5.1.7"
"""Private extension: initial TDINFO of the target TD, 512 bytes (rebinding, old MigTD)."""

OID_SERVER_AUTH: Final = "1.3.6.1.5.5.7.3.1"
OID_CLIENT_AUTH: Final = "1.3.6.1.5.5.7.3.2"
OID_EKU_MIGTD: Final = "1.2.840.113741.1.5.5.1.1"
"""Extended key usage of a MigTD's certificate."""

OID_EC_PUBLIC_KEY: Final = "1.2.840.10045.2.1"
OID_SECP384R1: Final = "1.3.132.0.34"
OID_ECDSA_WITH_SHA384: Final = "1.2.840.10045.4.3.3"

PUBLIC_POINT_SIZE: Final = 97
"""Uncompressed P-384 point: 04, x 48, y 48."""

PrivateExtension: TypeAlias = tuple[str, bytes]
"""OID and raw value of a private extension."""

_NOT_BEFORE: Final = b"19700101000000Z"
_NOT_AFTER: Final = b"99991231235959Z"

_BOOLEAN: Final = 0x01
_INTEGER: Final = 0x02
_BIT_STRING: Final = 0x03
_OCTET_STRING: Final = 0x04
_UTF8_STRING: Final = 0x0C
_PRINTABLE_STRING: Final = 0x13
_GENERALIZED_TIME: Final = 0x18
_SEQUENCE: Final = 0x30
_SET: Final = 0x31
_EXPLICIT_0: Final = 0xA0
_EXPLICIT_3: Final = 0xA3
_LONG_LENGTH: Final = 0x80


def public_point(key: ec.EllipticCurvePublicKey) -> bytes:
    """The uncompressed point of a P-384 key, 97 bytes."""
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def report_data(point: bytes) -> bytes:
    """REPORTDATA that binds a quote to a 97-byte public point: its SHA-384, then 16 zero bytes; 64 in all."""
    return hashlib.sha384(point).digest().ljust(REPORT_DATA_SIZE, b"\0")


def migration_extensions(evidence: Evidence) -> tuple[PrivateExtension, ...]:
    """The private extensions of a migration with policy v1, in the order of the profile: event log, then quote."""
    return ((OID_EVENT_LOG, evidence.event_log), (OID_QUOTE, evidence.quote))


def migration_v2_extensions(evidence: Evidence, peer_data: bytes) -> tuple[PrivateExtension, ...]:
    """Of a migration with policy v2; `peer_data` is the blob that this side sent before the session."""
    return (*migration_extensions(evidence), (OID_PEER_DATA_HASH, peer_data_hash(peer_data)))


def rebinding_extensions(
    evidence: Evidence, peer_data: bytes, shown: TargetHistory | None
) -> tuple[PrivateExtension, ...]:
    """Of a rebinding, where the evidence is a TDREPORT; `shown` is what the old MigTD has to show besides."""
    extensions = (
        (OID_EVENT_LOG, evidence.event_log),
        (OID_TDREPORT, evidence.quote),
        (OID_PEER_DATA_HASH, peer_data_hash(peer_data)),
    )
    if shown is None:
        return extensions
    return (*extensions, (OID_SERVTD_EXT, shown.servtd_ext), (OID_INITIAL_TDINFO, shown.initial_tdinfo))


def peer_data_hash(peer_data: bytes) -> bytes:
    """SHA-384 of a PEER DATA blob, 48 bytes: what a certificate says of it."""
    return hashlib.sha384(peer_data).digest()


def make_certificate(key: ec.EllipticCurvePrivateKey, private_extensions: Iterable[PrivateExtension]) -> bytes:
    """The self-signed certificate for a P-384 key, strict DER.

    Version 3, serial 1, issuer = subject, valid from 1970 to 9999, keyUsage (critical) and extKeyUsage, then
    `private_extensions` in the order given, signed with ecdsa-with-SHA384.
    """
    algorithm = _der(_SEQUENCE, _oid(OID_ECDSA_WITH_SHA384))
    name = _name()
    extensions = (
        _extension(OID_KEY_USAGE, _key_usage(), critical=_der(_BOOLEAN, b"\xff")),
        _extension(OID_EXT_KEY_USAGE, _ext_key_usage()),
        *(_extension(oid, value) for oid, value in private_extensions),
    )
    tbs = _der(
        _SEQUENCE,
        _der(_EXPLICIT_0, _der(_INTEGER, b"\x02")),
        _der(_INTEGER, b"\x01"),
        algorithm,
        name,
        _der(_SEQUENCE, _der(_GENERALIZED_TIME, _NOT_BEFORE), _der(_GENERALIZED_TIME, _NOT_AFTER)),
        name,
        _public_key_info(public_point(key.public_key())),
        _der(_EXPLICIT_3, _der(_SEQUENCE, *extensions)),
    )
    return _der(_SEQUENCE, tbs, algorithm, _bit_string(key.sign(tbs, ec.ECDSA(SHA384()))))


def _name() -> bytes:
    return _der(
        _SEQUENCE,
        _relative_name("2.5.4.6", _PRINTABLE_STRING, b"XX"),
        _relative_name("2.5.4.7", _UTF8_STRING, b"Default City"),
        _relative_name("2.5.4.10", _UTF8_STRING, b"Default Company Ltd"),
    )


def _relative_name(oid: str, tag: int, text: bytes) -> bytes:
    return _der(_SET, _der(_SEQUENCE, _oid(oid), _der(tag, text)))


def _public_key_info(point: bytes) -> bytes:
    algorithm = _der(_SEQUENCE, _oid(OID_EC_PUBLIC_KEY), _oid(OID_SECP384R1))
    return _der(_SEQUENCE, algorithm, _bit_string(point))


def _key_usage() -> bytes:
    # digitalSignature is bit 0 of a named bit list: one bit used, seven left over.
    return _der(_BIT_STRING, b"\x07\x80")


def _ext_key_usage() -> bytes:
    return _der(_SEQUENCE, _oid(OID_SERVER_AUTH), _oid(OID_CLIENT_AUTH), _oid(OID_EKU_MIGTD))


def _extension(oid: str, value: bytes, *, critical: bytes = b"") -> bytes:
    # DER leaves out a default value, so an extension that is not critical has no BOOLEAN at all.
    return _der(_SEQUENCE, _oid(oid), critical, _der(_OCTET_STRING, value))


@functools.cache  # of constants of this project only
def _oid(dotted: str) -> bytes:
    encoded: bytes = core.ObjectIdentifier(dotted).dump()
    return encoded


def _bit_string(data: bytes) -> bytes:
    return _der(_BIT_STRING, b"\0", data)


def _der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < _LONG_LENGTH:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, _LONG_LENGTH | len(length))) + length + content
