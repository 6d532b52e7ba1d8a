# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Certificates of the SGX PKI: ECDSA P-256 with SHA-256, judged by their exact bytes (policy.md 4.3).

Only names, keys and signatures count here. Dates are handed on as data; nothing looks at a clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from migtd.attestation.quote import failures
from migtd.attestation.quote.der import pull_common_name, pull_names, pull_signed
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.pem import CERTIFICATE, pull_pem
from migtd.errors import FailureKind

POINT_SIZE: Final = 65
"""Uncompressed P-256 point: 04, x 32, y 32."""
UNREADABLE: Final = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What cryptography raises on certificates and CRLs that it does not read."""

_ECDSA_SHA256: Final = ec.ECDSA(SHA256())


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate taken apart.

    Its DER, the signed part and the signature over it; the two names encoded; the common name, empty if there is not
    exactly one; the key; validity in seconds since 1970.
    """

    der: bytes
    signed: bytes
    signature: bytes
    subject: bytes
    issuer: bytes
    common_name: str
    serial_number: int
    key: ec.EllipticCurvePublicKey
    not_before: int
    not_after: int

    @property
    def self_issued(self) -> bool:
        """Whether issuer and subject are the same name: the mark of a root."""
        return self.subject == self.issuer


def pull_certificates(chain: bytes, count: int, kind: FailureKind) -> list[Certificate]:
    """The certificates of a PEM chain; raises QuoteError (`kind`) unless it holds exactly `count` readable ones."""
    ders = pull_pem(chain, CERTIFICATE, kind)
    if len(ders) != count:
        raise QuoteError(kind, f"{len(ders)} certificates in the place of {count}")
    return [pull_certificate(der, kind) for der in ders]


def pull_certificate(der: bytes, kind: FailureKind) -> Certificate:
    """Read one certificate with a P-256 key, signed with ecdsa-with-SHA256; raises QuoteError (`kind`)."""
    try:
        signed, signature = pull_signed(der)
        issuer, subject = pull_names(signed)
        parsed = x509.load_der_x509_certificate(der)
        return Certificate(
            der,
            signed,
            signature,
            subject,
            issuer,
            pull_common_name(subject),
            parsed.serial_number,
            _p256(parsed.public_key()),
            int(parsed.not_valid_before_utc.timestamp()),
            int(parsed.not_valid_after_utc.timestamp()),
        )
    except UNREADABLE as error:
        raise QuoteError(kind, f"a certificate cannot be read: {error}") from error


def root_key_of(certificate_der: bytes) -> bytes:
    """The 65-byte P-256 point of a root CA certificate; raises QuoteError (MIGTD-COLLATERAL-ROOT-CA-INVALID)."""
    return point_of(pull_certificate(certificate_der, failures.COLLATERAL_ROOT_CA_INVALID).key)


def point_of(key: ec.EllipticCurvePublicKey) -> bytes:
    """The uncompressed point of a key."""
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def expect_issued_by(subject: Certificate, issuer: Certificate, kind: FailureKind) -> None:
    """Refuse a certificate that does not name `issuer` or is not signed by it; raises QuoteError (`kind`)."""
    if subject.issuer != issuer.subject:
        raise QuoteError(kind, f"{subject.common_name!r} is not issued by {issuer.common_name!r}")
    if not signed_by(issuer.key, subject.signature, subject.signed):
        raise QuoteError(kind, f"{subject.common_name!r} is not signed by {issuer.common_name!r}")


def signed_by(key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes) -> bool:
    """Whether a DER signature (ECDSA P-256, SHA-256) over `message` is by `key`."""
    try:
        key.verify(signature, message, _ECDSA_SHA256)
    except InvalidSignature:
        return False
    return True


def raw_signed_by(key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes) -> bool:
    """The same for a signature of 64 bytes, r then s, big-endian."""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    return signed_by(key, encode_dss_signature(r, s), message)


def _p256(key: object) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("its key is not on P-256")  # noqa: TRY004 - one of UNREADABLE, as a key that cannot be read
    return key
