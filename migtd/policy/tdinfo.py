# SPDX-License-Identifier: BSD-2-Clause-Patent
"""TDINFO as policies see it: its RTMRs, and the hash that SERVTD_ATTR leaves of it (policy.md 6.1, 6.2)."""

from __future__ import annotations

import hashlib
from typing import Final

from migtd.policy.errors import PolicyError, PolicyErrorName

TDINFO_SIZE: Final = 512

_RTMRS_OFFSET: Final = 208
_RTMR_SIZE: Final = 48
_RTMR_COUNT: Final = 4

_FIRST_IGNORE_BIT: Final = 32
_IGNORED_FIELDS: Final = (
    (0, 8),  # attributes, bit 32
    (8, 16),  # xfam
    (16, 64),  # mrtd
    (64, 112),  # mrconfigid
    (112, 160),  # mrowner
    (160, 208),  # mrownerconfig
    (208, 256),  # rtmr0
    (256, 304),
    (304, 352),
    (352, 400),  # rtmr3, bit 41
)


def tdinfo_rtmrs(tdinfo: bytes) -> tuple[bytes, ...]:
    """RTMR 0 to 3, 48 bytes each. Raises PolicyError (InvalidParameter) on fewer than 512 bytes."""
    _expect_tdinfo(tdinfo)
    starts = range(_RTMRS_OFFSET, _RTMRS_OFFSET + _RTMR_COUNT * _RTMR_SIZE, _RTMR_SIZE)
    return tuple(tdinfo[start : start + _RTMR_SIZE] for start in starts)


def masked_tdinfo(tdinfo: bytes, servtd_attr: int) -> bytes:
    """The first 512 bytes with the fields zeroed that the IGNORE bits of SERVTD_ATTR, u64, name.

    Raises PolicyError (InvalidParameter) on fewer than 512 bytes.
    """
    _expect_tdinfo(tdinfo)
    kept = bytearray(tdinfo[:TDINFO_SIZE])
    for bit, (start, end) in enumerate(_IGNORED_FIELDS, _FIRST_IGNORE_BIT):
        if servtd_attr >> bit & 1:
            kept[start:end] = bytes(end - start)
    return bytes(kept)


def verify_servtd_info_hash(tdinfo: bytes, servtd_attr: int, info_hash: bytes) -> bytes:
    """The masked TDINFO, if `info_hash`, 48 bytes, is the SHA-384 of it (policy.md 2.9, servtd_ext hash).

    Raises PolicyError: InvalidParameter on fewer than 512 bytes, InvalidTdReport on another hash.
    """
    masked = masked_tdinfo(tdinfo, servtd_attr)
    found = hashlib.sha384(masked).digest()
    if found != info_hash:
        detail = f"servtd_info_hash is {found.hex()}, {info_hash.hex()} was approved"
        raise PolicyError(PolicyErrorName.InvalidTdReport, detail)
    return masked


def _expect_tdinfo(tdinfo: bytes) -> None:
    if len(tdinfo) < TDINFO_SIZE:
        detail = f"a TDINFO has {TDINFO_SIZE} bytes, not {len(tdinfo)}"
        raise PolicyError(PolicyErrorName.InvalidParameter, detail)
