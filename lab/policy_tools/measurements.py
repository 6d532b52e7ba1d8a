# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a quote or TDREPORT says of its TD, as the JSON of the reference's report extraction (policy.md 5.7, 6.1, 6.4).

Nothing is verified: the file is taken at its word, and so is a quote whose signature data is missing or padded.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Final

from lab.policy_tools import failures
from lab.policy_tools.errors import ToolError
from migtd.attestation.quote.layout import BODY_1_5_SIZE, BODY_SIZE, HEADER_SIZE, TEE_TYPE_TDX, BodyType

TDREPORT_SIZE: Final = 1024

_TDINFO_OFFSET: Final = 512
_QUOTE_HEAD: Final = struct.Struct("<HHI")
_DESCRIPTOR: Final = struct.Struct("<HI")
_SIGNATURE_SIZE: Final = 4
_V4, _V5 = 4, 5
_BODY_SIZES: Final = {BodyType.TDX_1_0: BODY_SIZE, BodyType.TDX_1_5: BODY_1_5_SIZE}
_BODY_TD_ATTRIBUTES: Final = 120
_SERVTD_HASH_IN_BODY: Final = 600
_TDINFO: Final = (
    ("attributes", 8),
    ("xfam", 8),
    ("mrtd", 48),
    ("mrConfigId", 48),
    ("mrOwner", 48),
    ("mrOwnerConfig", 48),
    ("rtmr0", 48),
    ("rtmr1", 48),
    ("rtmr2", 48),
    ("rtmr3", 48),
)
"""In a TDINFO from its start, in a quote's body from the TD's attributes on: the same fields in the same order."""
_FIELDS_SIZE: Final = sum(size for _, size in _TDINFO)
_ORDER: Final = (
    "mrtd",
    "rtmr0",
    "rtmr1",
    "rtmr2",
    "rtmr3",
    "xfam",
    "attributes",
    "mrConfigId",
    "mrOwner",
    "mrOwnerConfig",
)


@dataclass(frozen=True, slots=True)
class Measurements:
    """Fields of a TDINFO by their names in measurement files, as bytes; `servtd_hash` 48 bytes, zero where unknown."""

    fields: dict[str, bytes]
    servtd_hash: bytes

    def document(self) -> dict[str, str | int]:
        """As measurement files give them: upper-case hex, product 0, SVN 1."""
        texts = {name: self.fields[name].hex().upper() for name in _ORDER}
        return {**texts, "servtdHash": self.servtd_hash.hex().upper(), "isvProdId": 0, "isvsvn": 1}


def pull_measurements(data: bytes) -> Measurements:
    """The measurements in a quote of version 4 or 5, or in a TDREPORT of 1024 bytes.

    Raises ToolError (LAB-TOOL-EVIDENCE-UNREADABLE).
    """
    if len(data) == TDREPORT_SIZE and data[0] == TEE_TYPE_TDX:
        start = _TDINFO_OFFSET
        servtd_hash = data[start + _FIELDS_SIZE : start + _FIELDS_SIZE + 48]
    else:
        body_type, body = _quote_body(data)
        start = body + _BODY_TD_ATTRIBUTES
        at = body + _SERVTD_HASH_IN_BODY
        servtd_hash = data[at : at + 48] if body_type is BodyType.TDX_1_5 else bytes(48)
    fields = {}
    for name, size in _TDINFO:
        fields[name] = data[start : start + size]
        start += size
    return Measurements(fields, servtd_hash)


def push_measurements(measured: Measurements) -> bytes:
    """The measurement file, indented, without a final newline."""
    return json.dumps(measured.document(), indent=2).encode()


def _quote_body(data: bytes) -> tuple[BodyType, int]:
    """Type of the body and where it starts; the body and the size of what follows it are there."""
    if len(data) < HEADER_SIZE + _DESCRIPTOR.size:
        raise _unreadable(f"{len(data)} bytes")
    version, _, tee_type = _QUOTE_HEAD.unpack_from(data)
    if version not in (_V4, _V5) or tee_type != TEE_TYPE_TDX:
        raise _unreadable(f"it has version {version} and TEE type {tee_type:#x}")
    kind, start = BodyType.TDX_1_0, HEADER_SIZE
    if version == _V5:
        number, _ = _DESCRIPTOR.unpack_from(data, HEADER_SIZE)
        if number not in tuple(BodyType):
            raise _unreadable(f"it has body type {number}")
        kind, start = BodyType(number), HEADER_SIZE + _DESCRIPTOR.size
    if len(data) < start + _BODY_SIZES[kind] + _SIGNATURE_SIZE:
        raise _unreadable(f"its {len(data)} bytes end within the body")
    return kind, start


def _unreadable(detail: str) -> ToolError:
    return ToolError(failures.EVIDENCE_UNREADABLE, detail)
