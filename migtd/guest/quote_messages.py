# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The buffer of GetQuote and the messages in it, push and pull of both directions (policy.md 4.6, ghci-ratls.md 8).

    version u64 = 1 | status u64 | in_len u32 | out_len u32 | data

Data is a bare TDREPORT, or a QGS message behind its size as u32 **big-endian**. Everything else is little-endian.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final, TypeAlias

QUOTE_HEADER: Final = struct.Struct("<QQII")
"""version u64, status u64, in_len u32, out_len u32."""
QUOTE_VERSION: Final = 1
TDREPORT_SIZE: Final = 1024

_BE_SIZE: Final = struct.Struct(">I")
_QGS: Final = struct.Struct("<HHIII")
_QUOTE_SIZES: Final = struct.Struct("<II")
_COLLATERAL_SIZES: Final = struct.Struct("<II")
_FORM: Final = struct.Struct("<HHI")
_PACKED_HEAD: Final = struct.Struct("<HH7I")
_VERSION_1_0: Final = (1, 0)
_VERSION_1_1: Final = (1, 1)
_FMSPC_SIZE: Final = 6
_CA: Final = b"platform\0"
_PADDING: Final = bytes(4)
"""The announced size of a collateral answer is 4 more than its content."""


class QuoteForm(enum.Enum):
    """How a quote is asked for: form 1 (the reference's igvm-attest) or form 3 (policy.md 4.6)."""

    BARE = "bare"
    QGS = "qgs"


class QuoteStatus(enum.IntEnum):
    """Status of a GetQuote buffer. A guest takes ERROR as busy: it is all that the interface has for that."""

    SUCCESS = 0
    IN_FLIGHT = 0xFFFFFFFF_FFFFFFFF
    ERROR = 0x8000000000000000


class QgsType(enum.IntEnum):
    """Message types of QGS."""

    GET_QUOTE_REQUEST = 0
    GET_QUOTE_ANSWER = 1
    GET_COLLATERAL_REQUEST = 2
    GET_COLLATERAL_ANSWER = 3


class QgsError(enum.IntEnum):
    """Error field of a QGS answer, as far as the emulated service uses it."""

    SUCCESS = 0
    UNEXPECTED = 0x12001
    INVALID_PARAMETER = 0x12003


class MessageMalformed(ValueError):
    """A message breaks its layout. Each end turns it into what it tells the other."""


class QgsRefused(Exception):
    """A well-formed QGS answer that carries an error; `code` is its error field."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


# --- requests ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class BareReport:
    """Form 1: the TDREPORT, 1024 bytes. Answered with the bare quote."""

    report: bytes


@dataclass(frozen=True, slots=True)
class CollateralRequest:
    """Form 2, type 2. `fmspc` (6 bytes) names the platform; None leaves the choice to the host: its own."""

    fmspc: bytes | None = None


@dataclass(frozen=True, slots=True)
class QuoteRequest:
    """Form 3, type 0: the TDREPORT, 1024 bytes, in a QGS message."""

    report: bytes


Request: TypeAlias = BareReport | CollateralRequest | QuoteRequest


def push_request(request: Request) -> bytes:
    """The data of a GetQuote buffer. Raises ValueError on a TDREPORT or FMSPC of another size."""
    match request:
        case BareReport(report):
            return _sized("TDREPORT", report, TDREPORT_SIZE)
        case QuoteRequest(report):
            content = _QUOTE_SIZES.pack(TDREPORT_SIZE, 0) + _sized("TDREPORT", report, TDREPORT_SIZE)
            return _push_qgs(_VERSION_1_1, QgsType.GET_QUOTE_REQUEST, content)
        case CollateralRequest(fmspc):
            content = _COLLATERAL_SIZES.pack(0, 0)
            if fmspc is not None:
                content = _COLLATERAL_SIZES.pack(_FMSPC_SIZE, len(_CA)) + _sized("FMSPC", fmspc, _FMSPC_SIZE) + _CA
            return _push_qgs(_VERSION_1_1, QgsType.GET_COLLATERAL_REQUEST, content)


def pull_request(data: bytes) -> Request:
    """What a guest asks for. Raises MessageMalformed.

    The data is a QGS message if bytes 4 to 12 read as version 1.1 and type 0 or 2, else form 1. The content of a
    collateral request is only looked at for an FMSPC; what holds none asks for the host's own.
    """
    kind = _FORM.unpack_from(data, _BE_SIZE.size) if len(data) >= _BE_SIZE.size + _FORM.size else None
    if kind == (*_VERSION_1_1, QgsType.GET_COLLATERAL_REQUEST):
        return CollateralRequest(_fmspc_in(data[_BE_SIZE.size + _QGS.size :]))
    if kind == (*_VERSION_1_1, QgsType.GET_QUOTE_REQUEST):
        return QuoteRequest(_pull_report(data))
    if len(data) != TDREPORT_SIZE:
        raise MessageMalformed(f"a bare TDREPORT of {len(data)} bytes")
    return BareReport(data)


def _fmspc_in(content: bytes) -> bytes | None:
    if len(content) < _COLLATERAL_SIZES.size + _FMSPC_SIZE:
        return None
    fmspc_size, _ = _COLLATERAL_SIZES.unpack_from(content)
    start = _COLLATERAL_SIZES.size
    return content[start : start + _FMSPC_SIZE] if fmspc_size == _FMSPC_SIZE else None


def _pull_report(data: bytes) -> bytes:
    content = _qgs_content(data)
    if len(content) < _QUOTE_SIZES.size:
        raise MessageMalformed(f"a quote request of {len(content)} bytes")
    report_size, id_list_size = _QUOTE_SIZES.unpack_from(content)
    if report_size != TDREPORT_SIZE or len(content) != _QUOTE_SIZES.size + report_size + id_list_size:
        raise MessageMalformed(f"report_size {report_size}, id_list_size {id_list_size} in {len(content)} bytes")
    return content[_QUOTE_SIZES.size : _QUOTE_SIZES.size + TDREPORT_SIZE]


# --- answers -------------------------------------------------------------------------------------------------------
def push_quote_answer(quote: bytes) -> bytes:
    """Answer to form 3, for out_len bytes."""
    return _push_qgs(_VERSION_1_1, QgsType.GET_QUOTE_ANSWER, _QUOTE_SIZES.pack(0, len(quote)) + quote)


def push_quote_refusal(error: QgsError) -> bytes:
    """Answer to form 3 without a quote."""
    return _push_qgs(_VERSION_1_1, QgsType.GET_QUOTE_ANSWER, _QUOTE_SIZES.pack(0, 0), error)


def push_collateral_answer(packed: bytes) -> bytes:
    """Answer to form 2 with a packed set; it announces, and ends in, 4 bytes more than its content."""
    return _push_qgs(_VERSION_1_0, QgsType.GET_COLLATERAL_ANSWER, packed + _PADDING)


def pull_quote_answer(data: bytes) -> bytes:
    """The quote in an answer to form 3. Raises MessageMalformed, QgsRefused."""
    content = _pull_answer(data, _VERSION_1_1, QgsType.GET_QUOTE_ANSWER)
    if len(content) < _QUOTE_SIZES.size:
        raise MessageMalformed(f"a quote answer of {len(content)} bytes")
    id_size, quote_size = _QUOTE_SIZES.unpack_from(content)
    if len(content) != _QUOTE_SIZES.size + id_size + quote_size:
        raise MessageMalformed(f"selected_id_size {id_size}, quote_size {quote_size} in {len(content)} bytes")
    return content[_QUOTE_SIZES.size + id_size :]


def pull_collateral_answer(data: bytes) -> bytes:
    """The packed set in an answer to form 2, without what follows its blobs. Raises MessageMalformed, QgsRefused."""
    content = _pull_answer(data, _VERSION_1_0, QgsType.GET_COLLATERAL_ANSWER)
    if len(content) < _PACKED_HEAD.size:
        raise MessageMalformed(f"a collateral answer of {len(content)} bytes")
    _, _, *sizes = _PACKED_HEAD.unpack_from(content)
    end = _PACKED_HEAD.size + sum(sizes)
    if not end <= len(content) <= end + len(_PADDING) or any(content[end:]):
        raise MessageMalformed(f"blobs up to byte {end} in {len(content)} bytes")
    return content[:end]


def _push_qgs(version: tuple[int, int], kind: QgsType, content: bytes, error: QgsError = QgsError.SUCCESS) -> bytes:
    size = _QGS.size + len(content)
    return _BE_SIZE.pack(size) + _QGS.pack(*version, kind, size, error) + content


def _pull_answer(data: bytes, version: tuple[int, int], kind: QgsType) -> bytes:
    content = _qgs_content(data)
    major, minor, found, _, error = _QGS.unpack_from(data, _BE_SIZE.size)
    if (major, minor) != version or found != kind:
        raise MessageMalformed(f"QGS message {major}.{minor} of type {found}")
    if error:
        raise QgsRefused(error)
    return content


def _qgs_content(data: bytes) -> bytes:
    start = _BE_SIZE.size + _QGS.size
    if len(data) < start:
        raise MessageMalformed(f"a QGS message of {len(data)} bytes")
    announced = _QGS.unpack_from(data, _BE_SIZE.size)[3]
    outer = _BE_SIZE.unpack_from(data)[0]
    if outer != announced or announced != len(data) - _BE_SIZE.size:
        raise MessageMalformed(f"QGS sizes {outer} and {announced} in {len(data) - _BE_SIZE.size} bytes")
    return data[start:]


def _sized(name: str, data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise ValueError(f"{name} of {len(data)} bytes, {size} needed")
    return data
