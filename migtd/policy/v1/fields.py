# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What property names of a v1 policy stand for: bytes of the 822-byte record, and events (policy.md 1.5, 1.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from migtd.event_log import EventName

RECORD_SIZE: Final = 822


@dataclass(frozen=True, slots=True)
class RecordField:
    """Bytes `start` to `end`, excluded, of the record; ANDed with `mask`, if there is one, before they are compared."""

    start: int
    end: int
    mask: bytes | None = None

    def value(self, record: bytes) -> bytes:
        """The field as it is compared."""
        value = record[self.start : self.end]
        return value if self.mask is None else masked(value, self.mask)

    def __str__(self) -> str:
        return f"record bytes {self.start} to {self.end}{'' if self.mask is None else f' & {self.mask.hex()}'}"


def masked(value: bytes, mask: bytes) -> bytes:
    """The bits of `value` that `mask` keeps; both of one length."""
    return bytes(each & kept for each, kept in zip(value, mask, strict=True))


FMSPC: Final = RecordField(584, 590)

PLATFORM: Final[Mapping[str, RecordField]] = {
    "fmspc": FMSPC,
    "tdxtcbcomponents": RecordField(590, 606),
    "pcesvn": RecordField(606, 608),
    "sgxtcbcomponents": RecordField(608, 624),
}
QE: Final[Mapping[str, RecordField]] = {
    "MISCSELECT": RecordField(626, 630),
    "ATTRIBUTES": RecordField(634, 650),
    "MRSIGNER": RecordField(698, 730),
    "ISVPRODID": RecordField(730, 732),
    "ISVSVN": RecordField(732, 734),
}
"""MRENCLAVE is in the record and has no name here, as in the reference (decision D4)."""
TDX_MODULE: Final[Mapping[str, RecordField]] = {
    "TDXModuleMajorVersion": RecordField(624, 625),
    "TDXModuleSVN": RecordField(625, 626),
    "MRSEAM": RecordField(16, 64),
    "MRSIGNERSEAM": RecordField(64, 112),
    "ATTRIBUTES": RecordField(112, 120),
}
TDINFO: Final[Mapping[str, RecordField]] = {
    # Debug and profiling bits 0 to 15, SEPT_VE_DISABLE 28, MIGRATABLE 29, TPA 62.
    "ATTRIBUTES": RecordField(120, 128, bytes.fromhex("ffff003000000040")),
    # FP, SSE, CET.
    "XFAM": RecordField(128, 136, bytes.fromhex("0318000000000000")),
    "MRTD": RecordField(136, 184),
    "MRCONFIGID": RecordField(184, 232),
    "MROWNER": RecordField(232, 280),
    "MROWNERCONFIG": RecordField(280, 328),
    "RTMR0": RecordField(328, 376),
    "RTMR1": RecordField(376, 424),
    "RTMR2": RecordField(424, 472),
    "RTMR3": RecordField(472, 520),
}

EVENTS: Final[Mapping[str, EventName | None]] = {
    "Digest.TdShim": None,  # a policy may name it; nothing ever measures it
    "Digest.SecureBootKey": EventName.SecureBootKey,
    "Digest.MigTdCore": EventName.MigTdCore,
    "Digest.MigTdCoreSvn": EventName.MigTdCoreSvn,
    "Digest.MigTdPolicy": EventName.MigTdPolicy,
    "Digest.MigTdSgxRootKey": EventName.SgxRootKey,
}
