# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The SGX extension of PCK certificates, and the FMSPC of a quote that is not verified yet (policy.md 4.8, 4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from asn1crypto import core

from migtd.attestation.quote import failures
from migtd.attestation.quote.der import Element, pull_elements, pull_extension_value, pull_signed
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.pem import CERTIFICATE, pull_pem

OID_SGX: Final = "1.2.840.113741.1.13.1"
COMPONENTS: Final = 16
FMSPC_SIZE: Final = 6
PCEID_SIZE: Final = 2

_INTEGER: Final = 0x02
_OCTET_STRING: Final = 0x04
_OBJECT_IDENTIFIER: Final = 0x06
_SEQUENCE: Final = 0x30


def _encoded(oid: str) -> bytes:
    encoded: bytes = core.ObjectIdentifier(oid).dump()
    return encoded


_OID_SGX_DER: Final = _encoded(OID_SGX)
_TCB: Final = "2"
_PCESVN: Final = "2.17"
_PCEID: Final = "3"
_FMSPC: Final = "4"
_COMPONENTS: Final = tuple(f"2.{index}" for index in range(1, COMPONENTS + 1))
_OIDS: Final = {part: _encoded(f"{OID_SGX}.{part}") for part in (_TCB, _PCESVN, _PCEID, _FMSPC, *_COMPONENTS)}
"""What is read of the extension: its place below OID_SGX -> encoded OID."""


@dataclass(frozen=True, slots=True)
class PckExtension:
    """What the certificate says of its platform: 16 component SVNs, PCESVN, PCEID (2 bytes) and FMSPC (6 bytes)."""

    components: tuple[int, ...]
    pcesvn: int
    pceid: bytes
    fmspc: bytes


def pull_extension(tbs_certificate: bytes) -> PckExtension:
    """Read the SGX extension in the signed part of a certificate.

    Raises QuoteError (MIGTD-QUOTE-PCK-EXTENSION-INVALID).
    """
    try:
        value = pull_extension_value(tbs_certificate, _OID_SGX_DER)
        if value is None:
            raise _invalid("there is none")
        (extension,) = pull_elements(value)
        fields = _entries(extension)
        tcb = _entries(_field(fields, _TCB))
        return PckExtension(
            tuple(_integer(tcb, part, 0xFF) for part in _COMPONENTS),
            _integer(tcb, _PCESVN, 0xFFFF),
            _octets(fields, _PCEID, PCEID_SIZE),
            _octets(fields, _FMSPC, FMSPC_SIZE),
        )
    except ValueError as error:
        raise _invalid(str(error)) from error


def quote_fmspc(quote: bytes) -> str:
    """The FMSPC of a quote as 12 upper-case hex digits, to look collateral up with; nothing is verified.

    It is that of the first certificate in the bytes (policy.md 4.1). Raises QuoteError: MIGTD-QUOTE-MALFORMED,
    MIGTD-QUOTE-PCK-EXTENSION-INVALID.
    """
    begin, end = b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n"
    start = quote.find(begin)
    stop = quote.find(end, start)
    if start < 0 or stop < 0:
        raise QuoteError(failures.QUOTE_MALFORMED, "there is no certificate in it")
    ders = pull_pem(quote[start : stop + len(end)], CERTIFICATE, failures.QUOTE_MALFORMED)
    try:
        signed, _ = pull_signed(ders[0])
    except ValueError as error:
        raise QuoteError(failures.QUOTE_MALFORMED, f"its certificate cannot be read: {error}") from error
    return pull_extension(signed).fmspc.hex().upper()


def _entries(sequence: Element) -> dict[bytes, Element]:
    """The values of a SEQUENCE of SEQUENCE {OID, value}, by encoded OID."""
    if sequence.tag != _SEQUENCE:
        raise _invalid("no sequence of fields")
    fields: dict[bytes, Element] = {}
    for entry in pull_elements(sequence.content):
        oid, *values = pull_elements(entry.content)
        if entry.tag != _SEQUENCE or oid.tag != _OBJECT_IDENTIFIER or len(values) != 1:
            raise _invalid("a field is no pair of OID and value")
        if oid.encoded in fields:
            raise _invalid("a field is repeated")
        fields[oid.encoded] = values[0]
    return fields


def _field(fields: dict[bytes, Element], part: str) -> Element:
    value = fields.get(_OIDS[part])
    if value is None:
        raise _invalid(f"{OID_SGX}.{part} is missing")
    return value


def _integer(fields: dict[bytes, Element], part: str, maximum: int) -> int:
    value = _field(fields, part)
    number = int.from_bytes(value.content, "big", signed=True)
    if value.tag != _INTEGER or not value.content or not 0 <= number <= maximum:
        raise _invalid(f"{OID_SGX}.{part} is no integer up to {maximum}")
    return number


def _octets(fields: dict[bytes, Element], part: str, size: int) -> bytes:
    value = _field(fields, part)
    if value.tag != _OCTET_STRING or len(value.content) != size:
        raise _invalid(f"{OID_SGX}.{part} has not {size} octets")
    return value.content


def _invalid(detail: str) -> QuoteError:
    return QuoteError(failures.QUOTE_PCK_EXTENSION_INVALID, detail)
