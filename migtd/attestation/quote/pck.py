# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The SGX extension of PCK certificates, and the FMSPC of a quote that is not verified yet (policy.md 4.8, 4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from asn1crypto import core

from migtd.attestation.quote import failures
from migtd.attestation.quote.der import pull_extension_value, pull_signed
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.pem import CERTIFICATE, pull_pem

OID_SGX: Final = "1.2.840.113741.1.13.1"
COMPONENTS: Final = 16
FMSPC_SIZE: Final = 6
PCEID_SIZE: Final = 2

_OID_SGX_DER: Final[bytes] = core.ObjectIdentifier(OID_SGX).dump()
_OID_TCB: Final = f"{OID_SGX}.2"
_OID_PCESVN: Final = f"{OID_SGX}.2.17"
_OID_PCEID: Final = f"{OID_SGX}.3"
_OID_FMSPC: Final = f"{OID_SGX}.4"


@dataclass(frozen=True, slots=True)
class PckExtension:
    """What the certificate says of its platform: 16 component SVNs, PCESVN, PCEID (2 bytes) and FMSPC (6 bytes)."""

    components: tuple[int, ...]
    pcesvn: int
    pceid: bytes
    fmspc: bytes


class _Entry(core.Sequence):  # type: ignore[misc] # asn1crypto has no types
    _fields = [("id", core.ObjectIdentifier), ("value", core.Any)]  # noqa: RUF012 - asn1crypto's own way


class _Entries(core.SequenceOf):  # type: ignore[misc]
    _child_spec = _Entry


def pull_extension(tbs_certificate: bytes) -> PckExtension:
    """Read the SGX extension in the signed part of a certificate.

    Raises QuoteError (MIGTD-QUOTE-PCK-EXTENSION-INVALID).
    """
    try:
        value = pull_extension_value(tbs_certificate, _OID_SGX_DER)
        if value is None:
            raise _invalid("there is none")
        fields = _entries(value)
        tcb = _entries(_field(fields, _OID_TCB).dump())
        return PckExtension(
            tuple(_integer(tcb, f"{_OID_TCB}.{index}", 0xFF) for index in range(1, COMPONENTS + 1)),
            _integer(tcb, _OID_PCESVN, 0xFFFF),
            _octets(fields, _OID_PCEID, PCEID_SIZE),
            _octets(fields, _OID_FMSPC, FMSPC_SIZE),
        )
    except (ValueError, TypeError) as error:
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


def _entries(data: bytes) -> dict[str, core.Asn1Value]:
    sequence = _Entries.load(data, strict=True)
    fields = {entry["id"].native: entry["value"].parse() for entry in sequence}
    if len(fields) != len(sequence):
        raise _invalid("a field is repeated")
    return fields


def _field(fields: dict[str, core.Asn1Value], oid: str) -> core.Asn1Value:
    if oid not in fields:
        raise _invalid(f"{oid} is missing")
    return fields[oid]


def _integer(fields: dict[str, core.Asn1Value], oid: str, maximum: int) -> int:
    value = _field(fields, oid)
    if not isinstance(value, core.Integer) or not 0 <= value.native <= maximum:
        raise _invalid(f"{oid} is no integer up to {maximum}")
    return int(value.native)


def _octets(fields: dict[str, core.Asn1Value], oid: str, size: int) -> bytes:
    value = _field(fields, oid)
    if not isinstance(value, core.OctetString) or len(value.native) != size:
        raise _invalid(f"{oid} has not {size} octets")
    return bytes(value.native)


def _invalid(detail: str) -> QuoteError:
    return QuoteError(failures.QUOTE_PCK_EXTENSION_INVALID, detail)
