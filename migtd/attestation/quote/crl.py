# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Certificate revocation lists (policy.md 4.3): PEM, and as the reference takes them also DER and DER in hex."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from migtd.attestation.quote import failures
from migtd.attestation.quote.certificates import UNREADABLE, Certificate, signed_by
from migtd.attestation.quote.der import pull_crl_issuer, pull_signed
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.pem import X509_CRL, pull_pem

_HEX: Final = re.compile(rb"(?:[0-9A-Fa-f]{2})+")
_SEQUENCE: Final = b"\x30"


@dataclass(frozen=True, slots=True)
class Crl:
    """A CRL that verified: the signed part, the signature over it, its issuer's name encoded.

    `number` is its CRL number; the two times are seconds since 1970.
    """

    parsed: x509.CertificateRevocationList
    signed: bytes
    signature: bytes
    issuer: bytes
    number: int
    this_update: int
    next_update: int

    def revokes(self, certificate: Certificate) -> bool:
        """Whether the serial number of `certificate` is listed."""
        return self.parsed.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None


def verify_crl(data: bytes, issuer: Certificate) -> Crl:
    """Read a CRL of `issuer` that carries CRL number, authority key identifier and nextUpdate.

    Raises QuoteError (MIGTD-COLLATERAL-CRL-INVALID).
    """
    der = _der_of(data)
    try:
        signed, signature = pull_signed(der)
        name = pull_crl_issuer(signed)
        parsed = x509.load_der_x509_crl(der)
    except UNREADABLE as error:
        raise _invalid(f"it cannot be read: {error}") from error
    _expect_issuer(name, signed, signature, issuer)
    try:
        number = parsed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        parsed.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except (*UNREADABLE, x509.ExtensionNotFound) as error:
        raise _invalid(f"it has not the extensions of a CRL: {error}") from error
    if parsed.next_update_utc is None:
        raise _invalid("it has no nextUpdate")
    this_update, next_update = parsed.last_update_utc.timestamp(), parsed.next_update_utc.timestamp()
    return Crl(parsed, signed, signature, name, number, int(this_update), int(next_update))


def expect_crl_of(crl: Crl, issuer: Certificate) -> None:
    """Refuse a CRL that does not name `issuer` or is not signed by it.

    Raises QuoteError (MIGTD-COLLATERAL-CRL-INVALID).
    """
    _expect_issuer(crl.issuer, crl.signed, crl.signature, issuer)


def _expect_issuer(name: bytes, signed: bytes, signature: bytes, issuer: Certificate) -> None:
    if name != issuer.subject:
        raise _invalid(f"it is not issued by {issuer.common_name!r}")
    if not signed_by(issuer.key, signature, signed):
        raise _invalid(f"it is not signed by {issuer.common_name!r}")


def _der_of(data: bytes) -> bytes:
    if data.startswith(_SEQUENCE):
        return data
    if _HEX.fullmatch(data):
        return bytes.fromhex(data.decode("ascii"))
    sections = pull_pem(data, X509_CRL, failures.COLLATERAL_CRL_INVALID)
    if len(sections) != 1:
        raise _invalid(f"{len(sections)} CRLs in the place of one")
    return sections[0]


def _invalid(detail: str) -> QuoteError:
    return QuoteError(failures.COLLATERAL_CRL_INVALID, detail)
