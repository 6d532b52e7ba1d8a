# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Issuer chains in PEM, leaf first: their signatures, and what a peer's must share with the own (policy.md 2.1, 2.7).

Certificates are read leniently, as the reference reads them. Dates, issuer names and key usage count for nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from asn1crypto import crl, x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384

from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.pem import CERTIFICATE, X509_CRL, pull_pem
from migtd.policy.errors import PolicyError, PolicyErrorName
from migtd.policy.failures import KINDS

_ECDSA_WITH_SHA384: Final = "1.2.840.10045.4.3.3"
_BASIC_CONSTRAINTS: Final = "2.5.29.19"
_CRL_NUMBER: Final = "2.5.29.20"
_POINT_SIZE: Final = 97
_U32_MAX: Final = 2**32 - 1
MAX_CHAIN: Final = 1 << 18
"""Bytes of a chain in PEM; a longer one is refused unread. Real ones have three certificates in some 3,000 bytes."""
_UNREADABLE: Final = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)
"""What asn1crypto raises on what it does not read."""


class Certificate:
    """One certificate of a chain, read with its raw bytes kept. Raises PolicyError (`name`) if it cannot be read.

    `der` is all of it, `signed` the part that is signed, `subject` the encoded name, `point` the content of the key's
    bit string: 97 bytes, `04 | x | y`, where it is of P-384.
    """

    def __init__(self, der: bytes, name: PolicyErrorName) -> None:
        self.der = der
        self._name = name
        try:
            parsed = x509.Certificate.load(der, strict=True)
            signed = parsed["tbs_certificate"]
            self.signed: bytes = signed.dump()
            self.subject: bytes = signed["subject"].dump()
            self.algorithm: str = parsed["signature_algorithm"]["algorithm"].dotted
            self._signature = _bits(parsed["signature_value"])
            self.point: bytes = _bits(signed["subject_public_key_info"]["public_key"])
            self._extensions: list[Any] = list(signed["extensions"])
            version: str = signed["version"].native
        except _UNREADABLE as error:
            raise PolicyError(name, f"a certificate cannot be read: {error}") from error
        if version == "v1":
            self._refuse("a certificate is of X.509 version 1")

    def verify(self, issuer: Certificate) -> None:
        """Raise PolicyError unless the issuer's key signed this one with ecdsa-with-SHA384."""
        self._expect_algorithm()
        issuer.verify_message(self._signature, self.signed)

    def verify_document(self, signature: bytes, message: bytes) -> None:
        """As `verify_message`, for what a leaf signs: its own signature's algorithm is looked at too, not its key's."""
        self._expect_algorithm()
        self.verify_message(signature, message)

    def verify_message(self, signature: bytes, message: bytes) -> None:
        """Raise PolicyError unless `signature`, DER, is this key's over SHA-384 of `message`."""
        if len(self.point) != _POINT_SIZE:
            self._refuse(f"a key of {len(self.point)} bytes is no uncompressed P-384 point")
        try:
            key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), self.point)
            key.verify(signature, message, ec.ECDSA(SHA384()))
        except (ValueError, InvalidSignature) as error:
            raise PolicyError(self._name, str(error) or "a signature is wrong") from error

    @property
    def is_ca(self) -> bool:
        """Whether its BasicConstraints say so; False without any. Raises PolicyError if they cannot be read."""
        try:
            found = [each for each in self._extensions if each["extn_id"].dotted == _BASIC_CONSTRAINTS]
            return bool(found and found[0]["extn_value"].parsed["ca"].native)
        except _UNREADABLE as error:
            raise PolicyError(self._name, f"BasicConstraints cannot be read: {error}") from error

    def _expect_algorithm(self) -> None:
        if self.algorithm != _ECDSA_WITH_SHA384:
            self._refuse(f"a certificate is signed with {self.algorithm}, not with ecdsa-with-SHA384")

    def _refuse(self, why: str) -> NoReturn:
        raise PolicyError(self._name, why)


def pull_chain(pem: bytes, name: PolicyErrorName = PolicyErrorName.SignatureVerificationFailed) -> list[Certificate]:
    """The certificates of a chain, one at least. Raises PolicyError (`name`)."""
    if len(pem) > MAX_CHAIN:
        raise PolicyError(name, f"a chain of {len(pem)} bytes, the most are {MAX_CHAIN}")
    ders = _sections(pem, CERTIFICATE, name)
    if not ders:
        raise PolicyError(name, "there is no certificate in the chain")
    return [Certificate(der, name) for der in ders]


def verify_chain(pem: bytes, name: PolicyErrorName = PolicyErrorName.SignatureVerificationFailed) -> list[Certificate]:
    """The chain, if each certificate is signed by the next one's key. Raises PolicyError (`name`)."""
    chain = pull_chain(pem, name)
    for certificate, issuer in itertools.pairwise(chain):
        certificate.verify(issuer)
    return chain


def validate_peer_chain(local_pem: bytes, peer_pem: bytes) -> None:
    """Accept a peer's chain beside the own one of the same purpose. Raises PolicyError (PeerCertChainValidation)."""
    name = PolicyErrorName.PeerCertChainValidation
    peer = verify_chain(peer_pem, name)
    validate_peer_certificates(pull_chain(local_pem, name), peer)


def validate_peer_certificates(local: Sequence[Certificate], peer: Sequence[Certificate]) -> None:
    """The same of chains that are read, the peer's also verified. Raises PolicyError (PeerCertChainValidation)."""
    name = PolicyErrorName.PeerCertChainValidation
    if local[-1].der != peer[-1].der:
        raise PolicyError(name, "the chains end in different certificates")
    if local[0].subject != peer[0].subject:
        raise PolicyError(name, "the leaf certificates have different subjects")
    for certificate in peer[1:]:
        try:
            is_ca = certificate.is_ca
        except PolicyError as error:
            raise PolicyError(name, error.detail) from error
        if not is_ca:
            raise PolicyError(name, "a certificate behind the leaf is none of a CA")


def crl_number(pem: bytes) -> int:
    """The CRL number, u32, of the first CRL in a PEM text. Raises PolicyError (InvalidCollateral)."""
    name = PolicyErrorName.InvalidCollateral
    ders = _sections(pem, X509_CRL, name)
    if not ders:
        raise PolicyError(name, "there is no CRL")
    try:
        parsed = crl.CertificateList.load(ders[0], strict=True)
        extensions = parsed["tbs_cert_list"]["crl_extensions"]
        numbers = [each["extn_value"].parsed.native for each in extensions if each["extn_id"].dotted == _CRL_NUMBER]
    except _UNREADABLE as error:
        raise PolicyError(name, f"the CRL cannot be read: {error}") from error
    if not numbers or not 0 <= numbers[0] <= _U32_MAX:
        raise PolicyError(name, "the CRL has no number of 32 bits")
    return int(numbers[0])


def _sections(pem: bytes, label: str, name: PolicyErrorName) -> list[bytes]:
    try:
        return pull_pem(pem, label, KINDS[name])
    except QuoteError as error:
        raise PolicyError(name, error.detail) from error


def _bits(value: Any) -> bytes:
    """The bytes of a BIT STRING, whatever asn1crypto takes them for."""
    contents: bytes = value.contents
    if contents[0]:
        raise ValueError("a bit string that does not end with a byte")
    return contents[1:]
