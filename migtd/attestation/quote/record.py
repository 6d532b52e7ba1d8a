# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The supplemental record, 822 bytes: what a verified quote says, as policies see it (policy.md 4.2)."""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass, fields
from types import MappingProxyType
from typing import Final

from migtd.attestation.quote import failures
from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.layout import BODY_SIZE

RECORD_SIZE: Final = 822
STATUS_SIZE: Final = 32
"""A status text is at most 31 bytes of ASCII, padded with NULs."""

_RECORD: Final = struct.Struct("<584s6s16sH16sBB4s4s16s16s32s32sHHq32sqq32s")

_SIZES: Final = (
    ("tee_tcb_svn", 16),
    ("mrseam", 48),
    ("mrsignerseam", 48),
    ("seam_attributes", 8),
    ("td_attributes", 8),
    ("xfam", 8),
    ("mrtd", 48),
    ("mrconfigid", 48),
    ("mrowner", 48),
    ("mrownerconfig", 48),
    ("rtmr0", 48),
    ("rtmr1", 48),
    ("rtmr2", 48),
    ("rtmr3", 48),
    ("report_data", 64),
    ("fmspc", 6),
    ("tdx_components", 16),
    ("pcesvn", 2),
    ("sgx_components", 16),
    ("module_major", 1),
    ("module_svn", 1),
    ("qe_miscselect", 4),
    ("qe_miscselect_mask", 4),
    ("qe_attributes", 16),
    ("qe_attributes_mask", 16),
    ("qe_mrenclave", 32),
    ("qe_mrsigner", 32),
    ("qe_isvprodid", 2),
    ("qe_isvsvn", 2),
    ("tcb_date", 8),
    ("platform_status", 32),
    ("platform_tcb_date", 8),
    ("qe_tcb_date", 8),
    ("qe_status", 32),
)


def _ranges() -> dict[str, slice]:
    ranges, start = {}, 0
    for name, size in _SIZES:
        ranges[name] = slice(start, start + size)
        start += size
    return ranges


RANGES: Final = MappingProxyType(_ranges())
"""Field name -> its bytes in a record."""


@dataclass(frozen=True, slots=True)
class SupplementalRecord:
    """The record's fields in order.

    `body` 584 bytes (the TD report body of TDX 1.0); `fmspc` 6; components 16 each, one byte a component; `pcesvn`,
    `qe_isvprodid` and `qe_isvsvn` u16; `module_major` and `module_svn` u8; the QE's MISCSELECT, ATTRIBUTES and their
    masks as bytes (4, 16), MRENCLAVE and MRSIGNER 32. Dates in seconds since 1970, UTC. `tdx_components`, `pcesvn`,
    `sgx_components`, `module_svn` and `qe_isvsvn` are those of the matched levels.
    """

    body: bytes
    fmspc: bytes
    tdx_components: bytes
    pcesvn: int
    sgx_components: bytes
    module_major: int
    module_svn: int
    qe_miscselect: bytes
    qe_miscselect_mask: bytes
    qe_attributes: bytes
    qe_attributes_mask: bytes
    qe_mrenclave: bytes
    qe_mrsigner: bytes
    qe_isvprodid: int
    qe_isvsvn: int
    tcb_date: int
    platform_status: str
    platform_tcb_date: int
    qe_tcb_date: int
    qe_status: str


def push_record(record: SupplementalRecord) -> bytes:
    """Encode a record, 822 bytes.

    Raises QuoteError: MIGTD-QUOTE-STATUS-TOO-LONG, MIGTD-QUOTE-RECORD-MALFORMED (a value does not fit its field, or a
    status is not ASCII).
    """
    values = [_push_status(value) if isinstance(value, str) else value for value in astuple(record)]
    for value, size in zip(values, _byte_sizes(), strict=True):
        if isinstance(value, bytes) and len(value) != size:
            raise QuoteError(failures.QUOTE_RECORD_MALFORMED, f"a field of {len(value)} bytes has {size}")
    try:
        return _RECORD.pack(*values)
    except struct.error as error:
        raise QuoteError(failures.QUOTE_RECORD_MALFORMED, str(error)) from error


def pull_record(data: bytes) -> SupplementalRecord:
    """Decode a record of exactly 822 bytes; raises QuoteError (MIGTD-QUOTE-RECORD-MALFORMED)."""
    if len(data) != RECORD_SIZE:
        raise QuoteError(failures.QUOTE_RECORD_MALFORMED, f"{len(data)} bytes")
    values = _RECORD.unpack(data)
    names = (field.name for field in fields(SupplementalRecord))
    read = dict(zip(names, values, strict=True))
    for name in ("platform_status", "qe_status"):
        read[name] = _pull_status(read[name])
    return SupplementalRecord(**read)


def _byte_sizes() -> tuple[int, ...]:
    return (BODY_SIZE, *(size for name, size in _SIZES if RANGES[name].start >= BODY_SIZE))


def _push_status(text: str) -> bytes:
    if not text.isascii():
        raise QuoteError(failures.QUOTE_RECORD_MALFORMED, f"status {text!r}")
    if len(text) >= STATUS_SIZE:
        raise QuoteError(failures.QUOTE_STATUS_TOO_LONG, f"{text!r}")
    return text.encode("ascii").ljust(STATUS_SIZE, b"\0")


def _pull_status(field: bytes) -> str:
    text = field.rstrip(b"\0")
    if len(text) == STATUS_SIZE or b"\0" in text or not text.isascii():
        raise QuoteError(failures.QUOTE_RECORD_MALFORMED, f"status {field!r}")
    return text.decode("ascii")
