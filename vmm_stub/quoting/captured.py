# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Quotes from elsewhere: the same quote for every TDREPORT, and the TDREPORT that belongs to it (policy.md 6.4)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from migtd.attestation.quote.collateral import CollateralSet, push_packed
from migtd.attestation.quote.layout import BODY_1_5_SIZE, BODY_SIZE, HEADER_SIZE, VERSIONS, BodyType
from migtd.guest.quote_messages import (
    BareReport,
    CollateralRequest,
    MessageMalformed,
    QuoteRequest,
    QuoteStatus,
    pull_request,
    push_collateral_answer,
    push_quote_answer,
)
from vmm_stub import failures
from vmm_stub.quoting.errors import QuotingError
from vmm_stub.quoting.interface import Answered

MOCK_MAC: Final = b"\xbb" * 32
"""MAC of a mock report: no platform made it."""
_VALID: Final = b"\x01".ljust(8, b"\0")
_TEE_TYPE_AT: Final = 4
_DESCRIPTOR_SIZE: Final = 6
_LENGTH_SIZE: Final = 4
_BODY_SIZES: Final[Mapping[int, int]] = {BodyType.TDX_1_0: BODY_SIZE, BodyType.TDX_1_5: BODY_1_5_SIZE}
# Parts of a body (policy.md 4.7) that stand in a TDREPORT in the same order.
_SVN_PART: Final = slice(0, 16)
_TCB_INFO_PART: Final = slice(0, 120)
_TDINFO_PART: Final = slice(120, 520)
_REPORT_DATA_PART: Final = slice(520, 584)
_SERVTD_PART: Final = slice(600, 648)


class CapturedQuoting:
    """Answers every quote request with one fixed quote and, where there is one, every collateral request with a set.

    Whether they verify is for the guests to find out; only what holds no TD report body at all is a QuotingError
    (VMM-QUOTING-QUOTE-FILE).
    """

    def __init__(self, quote: bytes, collateral: CollateralSet | None = None) -> None:
        mock_report(quote)
        self._quote = quote
        self._collateral = collateral

    def get_quote(self, request: bytes, answered: Answered) -> None:
        """Answer one request; the TDREPORT in it makes no difference. Raises QuotingError (VMM-QUOTING-REQUEST)."""
        try:
            pulled = pull_request(request)
        except MessageMalformed as error:
            raise QuotingError(failures.QUOTING_REQUEST, str(error)) from error
        match pulled:
            case BareReport():
                answered(QuoteStatus.SUCCESS, self._quote)
            case QuoteRequest():
                answered(QuoteStatus.SUCCESS, push_quote_answer(self._quote))
            case CollateralRequest():
                if self._collateral is None:
                    raise QuotingError(failures.QUOTING_REQUEST, "this host has no collateral")
                answered(QuoteStatus.SUCCESS, push_collateral_answer(push_packed(self._collateral)))


def mock_report(quote: bytes) -> bytes:
    """The 1024-byte TDREPORT that a captured quote stands for; what certifies the quote is not looked at.

    Its version byte is the quote's version, its CPUSVN the quote's TEE_TCB_SVN, its MAC MOCK_MAC, its REPORTDATA the
    quote's. Raises QuotingError (VMM-QUOTING-QUOTE-FILE) unless it is a quote of version 4, or 5 with body type 2 or 3.
    """
    version, body, servtd_hash = _body_of(quote)
    tdinfo = body[_TDINFO_PART] + servtd_hash + bytes(64)
    tcb_info = _VALID + body[_TCB_INFO_PART] + bytes(16 + 95)
    mac_struct = b"".join(
        (
            bytes([quote[_TEE_TYPE_AT], 0, version, 0]),
            bytes(12),
            body[_SVN_PART],
            hashlib.sha384(tcb_info).digest(),
            hashlib.sha384(tdinfo).digest(),
            body[_REPORT_DATA_PART],
            bytes(32),
            MOCK_MAC,
        )
    )
    return mac_struct + tcb_info + bytes(17) + tdinfo


def _body_of(quote: bytes) -> tuple[int, bytes, bytes]:
    """Version, the 584 bytes that all bodies share, and the 48 of the service TD hash (zero where there is none)."""
    version = int.from_bytes(quote[:2], "little")
    start, size = HEADER_SIZE, BODY_SIZE
    if version == VERSIONS[1]:
        kind = int.from_bytes(quote[start : start + 2], "little")
        start += _DESCRIPTOR_SIZE
        size = _BODY_SIZES.get(kind, 0)
    if version not in VERSIONS or not size or len(quote) < start + size + _LENGTH_SIZE:
        raise QuotingError(failures.QUOTING_QUOTE_FILE, f"version {version}, {len(quote)} bytes")
    body = quote[start : start + size]
    return version, body[:BODY_SIZE], body[_SERVTD_PART].ljust(48, b"\0")
