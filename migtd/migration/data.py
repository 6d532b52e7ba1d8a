# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the two sides swap once they trust each other: session keys and version ranges (ghci-ratls.md 5)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from migtd import failures
from migtd.errors import InvalidParameter

EXCHANGE_SIZE: Final = 40
MSK_SIZE: Final = 32
_EXCHANGE: Final = struct.Struct("<32sHHI")


@dataclass(frozen=True, slots=True)
class ExchangeInformation:
    """The 40 bytes of one side: MSK 32 (4 x u64), min version u16, max version u16, reserved 4 zero.

    `msk` is a secret: it is kept out of the representation.
    """

    msk: bytes = field(repr=False)
    min_version: int
    max_version: int


def push_exchange_information(info: ExchangeInformation) -> bytes:
    """Encode to 40 bytes."""
    return _EXCHANGE.pack(info.msk, info.min_version, info.max_version, 0)


def pull_exchange_information(data: bytes) -> ExchangeInformation:
    """Decode exactly 40 bytes (the session layer collects them; fewer is its NetworkError).

    Raises InvalidParameter (MIGTD-EXCHANGE-RESERVED) if the last four bytes are not zero.
    """
    msk, min_version, max_version, reserved = _EXCHANGE.unpack(data)
    if reserved:
        raise InvalidParameter(failures.EXCHANGE_RESERVED)
    return ExchangeInformation(msk, min_version, max_version)


@dataclass(frozen=True, slots=True)
class VersionRange:
    """Migration versions that one side can export (source) or import (destination), both ends included."""

    minimum: int
    maximum: int


def negotiate_version(export: VersionRange, imported: VersionRange) -> int:
    """The migration version that both sides use: min(max export, max import).

    Raises InvalidParameter (MIGTD-VERSION-RANGE) if a range is not ordered or the version is below either minimum.
    """
    version = min(export.maximum, imported.maximum)
    if export.minimum > export.maximum or imported.minimum > imported.maximum:
        raise InvalidParameter(failures.VERSION_RANGE, f"unordered: export {export}, import {imported}")
    if version < export.minimum or version < imported.minimum:
        raise InvalidParameter(failures.VERSION_RANGE, f"export {export}, import {imported}")
    return version
