# SPDX-License-Identifier: BSD-2-Clause-Patent
"""TDX quotes, versions 4 and 5: pull and push (policy.md 4.7). All integers little-endian.

    header 48 | v5: body type u16, body size u32 | body 584 or 648 | u32 n | signature data n | zeros

Version 4 always has the 584-byte body. The quote signature covers everything before the u32 (`Quote.signed`).
"""

from __future__ import annotations

import enum
import struct
from dataclasses import astuple, dataclass
from typing import Final

from migtd.attestation.quote import failures
from migtd.attestation.quote.errors import QuoteError

HEADER_SIZE: Final = 48
BODY_SIZE: Final = 584
"""TD report body of TDX 1.0: the first bytes of a supplemental record."""
BODY_1_5_SIZE: Final = 648
QE_REPORT_SIZE: Final = 384
SIGNATURE_SIZE: Final = 64
ATTESTATION_KEY_SIZE: Final = 64

VERSIONS: Final = (4, 5)
ATTESTATION_KEY_ECDSA_P256: Final = 2
TEE_TYPE_TDX: Final = 0x81
QE_VENDOR_INTEL: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
CERTIFICATION_QE_REPORT: Final = 6
"""Certification data type: QE report, its signature, auth data and inner certification data."""
CERTIFICATION_PCK_CHAIN: Final = 5
"""Inner certification data type: PEM chain PCK, PCK CA, root."""

_HEADER: Final = struct.Struct("<HHI4s16s20s")
_DESCRIPTOR: Final = struct.Struct("<HI")
_BODY: Final = struct.Struct("<16s48s48s8s8s8s48s48s48s48s48s48s48s48s64s")
_BODY_1_5: Final = struct.Struct(_BODY.format + "16s48s")
_QE_REPORT: Final = struct.Struct("<16sI28s16s32s32s32s96sHH60s64s")
_SIGNATURE_HEAD: Final = struct.Struct("<64s64sHI")
_CERTIFICATION_HEAD: Final = struct.Struct("<384s64sH")
_TYPE_AND_SIZE: Final = struct.Struct("<HI")
_U32: Final = struct.Struct("<I")


class BodyType(enum.IntEnum):
    """Body type of a version 5 quote; a version 4 quote has the body of `TDX_1_0` without saying so."""

    TDX_1_0 = 2
    TDX_1_5 = 3


@dataclass(frozen=True, slots=True)
class QuoteHeader:
    """The 48 bytes of a quote header; `reserved` 4 bytes (QE SVN, PCE SVN), `user_data` 20 bytes."""

    version: int
    attestation_key_type: int = ATTESTATION_KEY_ECDSA_P256
    tee_type: int = TEE_TYPE_TDX
    reserved: bytes = bytes(4)
    qe_vendor_id: bytes = QE_VENDOR_INTEL
    user_data: bytes = bytes(20)


@dataclass(frozen=True, slots=True)
class QuoteBody:
    """The TD report body, fields in the order of the layout.

    `tee_tcb_svn` and `tee_tcb_svn2` 16 bytes; attributes and `xfam` 8; `report_data` 64; everything else 48. The last
    two fields are of TDX 1.5 (body type 3) and empty in a body of TDX 1.0.
    """

    tee_tcb_svn: bytes
    mrseam: bytes
    mrsignerseam: bytes
    seam_attributes: bytes
    td_attributes: bytes
    xfam: bytes
    mrtd: bytes
    mrconfigid: bytes
    mrowner: bytes
    mrownerconfig: bytes
    rtmr0: bytes
    rtmr1: bytes
    rtmr2: bytes
    rtmr3: bytes
    report_data: bytes
    tee_tcb_svn2: bytes = b""
    mrservicetd: bytes = b""


@dataclass(frozen=True, slots=True)
class QeReport:
    """SGX report body of the quoting enclave, the fields that are judged (384 bytes encoded).

    `cpusvn` and `attributes` 16 bytes, `mrenclave` and `mrsigner` 32, `report_data` 64; `miscselect` u32, `isvprodid`
    and `isvsvn` u16. `reserved` holds the bytes between the fields: 28, 32, 96 and 60.
    """

    cpusvn: bytes
    miscselect: int
    attributes: bytes
    mrenclave: bytes
    mrsigner: bytes
    isvprodid: int
    isvsvn: int
    report_data: bytes
    reserved: tuple[bytes, bytes, bytes, bytes] = (bytes(28), bytes(32), bytes(96), bytes(60))


@dataclass(frozen=True, slots=True)
class SignatureData:
    """What certifies a quote.

    `signature` is r, s over `Quote.signed` by `attestation_key` (x, y); `qe_report` are the 384 bytes as signed;
    `qe_report_signature` r, s by the PCK key; `pck_chain` PEM text without its NUL.
    """

    signature: bytes
    attestation_key: bytes
    qe_report: bytes
    qe_report_signature: bytes
    qe_auth_data: bytes
    pck_chain: bytes


@dataclass(frozen=True, slots=True)
class Quote:
    """A quote taken apart; `signed` are its bytes up to the end of the body."""

    header: QuoteHeader
    body_type: BodyType
    body: QuoteBody
    signature_data: SignatureData
    signed: bytes

    @property
    def body_bytes(self) -> bytes:
        """The encoded body: 584 or 648 bytes."""
        return self.signed[-(BODY_SIZE if self.body_type is BodyType.TDX_1_0 else BODY_1_5_SIZE) :]


# --- pull ----------------------------------------------------------------------------------------------------------
def pull_quote(data: bytes) -> Quote:
    """Take a quote apart; every length must agree, and what follows the signature data must be zero (C6).

    Raises QuoteError: MIGTD-QUOTE-MALFORMED, MIGTD-QUOTE-UNSUPPORTED (version, key type, TEE type, QE vendor, body type
    or certification data type), MIGTD-QUOTE-TRAILING-DATA.
    """
    header = _pull_header(data)
    body_type, start = _pull_descriptor(header, data)
    size = BODY_SIZE if body_type is BodyType.TDX_1_0 else BODY_1_5_SIZE
    end = start + size
    if len(data) < end + _U32.size:
        raise _malformed(f"{len(data)} bytes end before the signature data at {end}")
    (length,) = _U32.unpack_from(data, end)
    rest = end + _U32.size + length
    if rest > len(data):
        raise _malformed(f"signature data of {length} bytes, {len(data) - end - _U32.size} are there")
    if any(data[rest:]):
        raise QuoteError(failures.QUOTE_TRAILING_DATA, f"behind byte {rest}")
    layout = _BODY if body_type is BodyType.TDX_1_0 else _BODY_1_5
    return Quote(
        header,
        body_type,
        QuoteBody(*layout.unpack_from(data, start)),
        _pull_signature_data(data[end + _U32.size : rest]),
        bytes(data[:end]),
    )


def pull_qe_report(data: bytes) -> QeReport:
    """Decode a QE report of exactly 384 bytes; raises QuoteError (MIGTD-QUOTE-MALFORMED) on another size."""
    if len(data) != QE_REPORT_SIZE:
        raise _malformed(f"a QE report of {len(data)} bytes")
    cpusvn, misc, gap0, attributes, mrenclave, gap1, mrsigner, gap2, prod, svn, gap3, report_data = _QE_REPORT.unpack(
        data
    )
    return QeReport(
        cpusvn, misc, attributes, mrenclave, mrsigner, prod, svn, report_data, reserved=(gap0, gap1, gap2, gap3)
    )


def _pull_header(data: bytes) -> QuoteHeader:
    if len(data) < HEADER_SIZE:
        raise _malformed(f"{len(data)} bytes, the header alone has {HEADER_SIZE}")
    header = QuoteHeader(*_HEADER.unpack_from(data))
    expected: tuple[tuple[str, bool, object], ...] = (
        ("version", header.version in VERSIONS, header.version),
        (
            "attestation key type",
            header.attestation_key_type == ATTESTATION_KEY_ECDSA_P256,
            header.attestation_key_type,
        ),
        ("TEE type", header.tee_type == TEE_TYPE_TDX, hex(header.tee_type)),
        ("QE vendor id", header.qe_vendor_id == QE_VENDOR_INTEL, header.qe_vendor_id.hex()),
    )
    for name, known, found in expected:
        if not known:
            raise QuoteError(failures.QUOTE_UNSUPPORTED, f"{name} {found}")
    return header


def _pull_descriptor(header: QuoteHeader, data: bytes) -> tuple[BodyType, int]:
    """The type of the body and where it starts."""
    if header.version == VERSIONS[0]:
        return BodyType.TDX_1_0, HEADER_SIZE
    if len(data) < HEADER_SIZE + _DESCRIPTOR.size:
        raise _malformed(f"{len(data)} bytes end before the body descriptor")
    number, size = _DESCRIPTOR.unpack_from(data, HEADER_SIZE)
    if number not in (BodyType.TDX_1_0, BodyType.TDX_1_5):
        raise QuoteError(failures.QUOTE_UNSUPPORTED, f"body type {number}")
    body_type = BodyType(number)
    if size != (BODY_SIZE if body_type is BodyType.TDX_1_0 else BODY_1_5_SIZE):
        raise _malformed(f"body type {number} with {size} bytes")
    return body_type, HEADER_SIZE + _DESCRIPTOR.size


def _pull_signature_data(data: bytes) -> SignatureData:
    if len(data) < _SIGNATURE_HEAD.size:
        raise _malformed(f"signature data of {len(data)} bytes")
    signature, key, kind, size = _SIGNATURE_HEAD.unpack_from(data)
    _expect_certification(kind, CERTIFICATION_QE_REPORT)
    certification = data[_SIGNATURE_HEAD.size :]
    if size != len(certification) or size < _CERTIFICATION_HEAD.size:
        raise _malformed(f"certification data of {size} bytes in {len(certification)}")
    qe_report, qe_signature, auth_size = _CERTIFICATION_HEAD.unpack_from(certification)
    inner = _CERTIFICATION_HEAD.size + auth_size
    if len(certification) < inner + _TYPE_AND_SIZE.size:
        raise _malformed(f"QE authentication data of {auth_size} bytes")
    kind, size = _TYPE_AND_SIZE.unpack_from(certification, inner)
    _expect_certification(kind, CERTIFICATION_PCK_CHAIN)
    chain = certification[inner + _TYPE_AND_SIZE.size :]
    if size != len(chain):
        raise _malformed(f"PCK certificate chain of {size} bytes in {len(chain)}")
    return SignatureData(
        signature,
        key,
        qe_report,
        qe_signature,
        certification[_CERTIFICATION_HEAD.size : inner],
        chain.rstrip(b"\0"),
    )


def _expect_certification(kind: int, wanted: int) -> None:
    if kind != wanted:
        raise QuoteError(failures.QUOTE_UNSUPPORTED, f"certification data type {kind} in the place of {wanted}")


def _malformed(detail: str) -> QuoteError:
    return QuoteError(failures.QUOTE_MALFORMED, detail)


# --- push ----------------------------------------------------------------------------------------------------------
def push_signed_part(header: QuoteHeader, body_type: BodyType, body: QuoteBody) -> bytes:
    """What the attestation key signs: header, descriptor (version 5 only) and body.

    Raises ValueError where a field has not the size of its layout, or a version 4 quote is to have another body than
    TDX 1.0: a caller's mistake.
    """
    encoded = push_body(body)
    if len(encoded) != (BODY_SIZE if body_type is BodyType.TDX_1_0 else BODY_1_5_SIZE):
        raise ValueError(f"a body of {len(encoded)} bytes is not of {body_type.name}")
    if header.version == VERSIONS[0]:
        if body_type is not BodyType.TDX_1_0:
            raise ValueError("a version 4 quote has a body of TDX 1.0")
        return push_header(header) + encoded
    return push_header(header) + _DESCRIPTOR.pack(body_type, len(encoded)) + encoded


def push_header(header: QuoteHeader) -> bytes:
    """Encode a header, 48 bytes; raises ValueError on a field of another size."""
    _expect_sizes("header", (header.reserved, header.qe_vendor_id, header.user_data), (4, 16, 20))
    return _HEADER.pack(*astuple(header))


def push_body(body: QuoteBody) -> bytes:
    """Encode a body: 648 bytes if it has the fields of TDX 1.5, else 584; raises ValueError on a wrong field size."""
    sizes = (16, 48, 48, 8, 8, 8, *(48,) * 8, 64)
    fields = astuple(body)
    if body.tee_tcb_svn2 or body.mrservicetd:
        _expect_sizes("body", fields, (*sizes, 16, 48))
        return _BODY_1_5.pack(*fields)
    fields = fields[: len(sizes)]
    _expect_sizes("body", fields, sizes)
    return _BODY.pack(*fields)


def push_qe_report(report: QeReport) -> bytes:
    """Encode a QE report, 384 bytes; raises ValueError on a field of another size."""
    gap0, gap1, gap2, gap3 = report.reserved
    fixed = (report.cpusvn, gap0, report.attributes, report.mrenclave, gap1, report.mrsigner, gap2, gap3)
    _expect_sizes("QE report", (*fixed, report.report_data), (16, 28, 16, 32, 32, 32, 96, 60, 64))
    return _QE_REPORT.pack(
        report.cpusvn,
        report.miscselect,
        gap0,
        report.attributes,
        report.mrenclave,
        gap1,
        report.mrsigner,
        gap2,
        report.isvprodid,
        report.isvsvn,
        gap3,
        report.report_data,
    )


def push_signature_data(data: SignatureData) -> bytes:
    """Encode signature data; the PCK chain gets its NUL. Raises ValueError on a field of a wrong size."""
    _expect_sizes(
        "signature data",
        (data.signature, data.attestation_key, data.qe_report, data.qe_report_signature),
        (SIGNATURE_SIZE, ATTESTATION_KEY_SIZE, QE_REPORT_SIZE, SIGNATURE_SIZE),
    )
    chain = data.pck_chain + b"\0"
    certification = (
        _CERTIFICATION_HEAD.pack(data.qe_report, data.qe_report_signature, len(data.qe_auth_data))
        + data.qe_auth_data
        + _TYPE_AND_SIZE.pack(CERTIFICATION_PCK_CHAIN, len(chain))
        + chain
    )
    head = _SIGNATURE_HEAD.pack(data.signature, data.attestation_key, CERTIFICATION_QE_REPORT, len(certification))
    return head + certification


def push_quote(signed: bytes, data: SignatureData) -> bytes:
    """A quote of its signed part (`push_signed_part`) and its signature data, without padding."""
    encoded = push_signature_data(data)
    return signed + _U32.pack(len(encoded)) + encoded


def _expect_sizes(what: str, fields: tuple[bytes, ...], sizes: tuple[int, ...]) -> None:
    found = tuple(len(field) for field in fields)
    if found != sizes:
        raise ValueError(f"{what}: fields of {found} bytes, they have {sizes}")
