# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A TDREPORT as evidence in rebinding: what its REPORTMACSTRUCT vouches for (policy.md 2.9, 6.1)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from migtd.policy.errors import PolicyError, PolicyErrorName
from migtd.policy.tdinfo import tdinfo_rtmrs
from migtd.policy.v2.servtd import Measurements

REPORT_SIZE: Final = 1024
MAC_STRUCT_SIZE: Final = 256

_TEE_TCB_INFO: Final = slice(256, 495)
_TDINFO: Final = slice(512, 1024)
_TEE_TCB_INFO_HASH: Final = slice(32, 80)
_TDINFO_HASH: Final = slice(80, 128)
_REPORT_DATA: Final = slice(128, 192)
_MRTD: Final = slice(16, 64)
_MROWNER: Final = slice(112, 160)
_MROWNERCONFIG: Final = slice(160, 208)


@dataclass(frozen=True, slots=True)
class TdReport:
    """A TDREPORT, 1024 bytes, not verified by itself."""

    data: bytes = field(repr=False)

    @property
    def mac_struct(self) -> bytes:
        """REPORTMACSTRUCT, 256 bytes: what TDG.MR.VERIFYREPORT takes."""
        return self.data[:MAC_STRUCT_SIZE]

    @property
    def report_data(self) -> bytes:
        """REPORTDATA, 64 bytes."""
        return self.data[_REPORT_DATA]

    @property
    def tdinfo(self) -> bytes:
        """TDINFO, 512 bytes."""
        return self.data[_TDINFO]

    def verify_hashes(self) -> None:
        """Raise PolicyError (InvalidTdReport) unless REPORTMACSTRUCT holds the hashes of TEE_TCB_INFO and TDINFO."""
        if not any(self.data[_TDINFO_HASH]):
            raise PolicyError(PolicyErrorName.InvalidTdReport, "the hash of TDINFO is zero")
        for name, part, place in (
            ("TEE_TCB_INFO", _TEE_TCB_INFO, _TEE_TCB_INFO_HASH),
            ("TDINFO", _TDINFO, _TDINFO_HASH),
        ):
            if hashlib.sha384(self.data[part]).digest() != self.data[place]:
                raise PolicyError(PolicyErrorName.InvalidTdReport, f"{name} is not what the report's hash is of")


def pull_report(data: bytes) -> TdReport:
    """A TDREPORT; more than 1024 bytes are cut. Raises PolicyError (InvalidTdReport) on fewer."""
    if len(data) < REPORT_SIZE:
        raise PolicyError(PolicyErrorName.InvalidTdReport, f"a TDREPORT has {REPORT_SIZE} bytes, not {len(data)}")
    return TdReport(bytes(data[:REPORT_SIZE]))


def tdinfo_measurements(tdinfo: bytes) -> Measurements:
    """MRTD, RTMR0 and RTMR1 of a TDINFO; the others stay unknown (policy.md 2.6).

    Raises PolicyError (InvalidParameter) on fewer than 512 bytes.
    """
    rtmrs = tdinfo_rtmrs(tdinfo)
    return Measurements(tdinfo[_MRTD], rtmrs[0], rtmrs[1])


def tdinfo_owner(tdinfo: bytes) -> tuple[bytes, bytes]:
    """MROWNER and MROWNERCONFIG of a TDINFO, 48 bytes each."""
    return tdinfo[_MROWNER], tdinfo[_MROWNERCONFIG]
