# SPDX-License-Identifier: BSD-2-Clause-Patent
"""TDREPORT and its parts, a dataclass with push and pull each, and who may have made one (policy.md 6.1, 6.2).

    TDREPORT 1024 = REPORTMACSTRUCT 256 | TEE_TCB_INFO 239 | 17 zero | TDINFO 512

Integers are little-endian. Pulling is strict: exact size, known type, zero where the layout says zero.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from vmm_stub import failures
from vmm_stub.tdx_module.errors import ReportMalformed
from vmm_stub.tdx_module.platform import Platform

TDINFO_SIZE: Final = 512
TEE_TCB_INFO_SIZE: Final = 239
REPORT_MAC_STRUCT_SIZE: Final = 256
TDREPORT_SIZE: Final = 1024
REPORT_DATA_SIZE: Final = 64
REPORT_CPUSVN: Final = slice(16, 32)
REPORT_TEE_TCB_SVN: Final = slice(264, 280)
"""Where a TDREPORT has CPUSVN and TEE_TCB_SVN."""
MACED_SIZE: Final = 224
"""The MAC covers this much of a REPORTMACSTRUCT, from its start."""

REPORT_TYPE: Final = bytes.fromhex("81000000")
"""Type 0x81 (TDX), subtype 0, version 0, reserved."""
TEE_TCB_INFO_VALID: Final = 0x301FF
"""VALID of TEE_TCB_INFO as real machines set it."""

_ZERO48: Final = bytes(48)
_TDINFO: Final = struct.Struct("<QQ" + "48s" * 9 + "64s")
_TEE_TCB_INFO: Final = struct.Struct("<Q16s48s48sQ16s95s")
_REPORT_MAC_STRUCT: Final = struct.Struct("<4s12s16s48s48s64s32s32s")
_TEE_TCB_INFO_OFFSET: Final = REPORT_MAC_STRUCT_SIZE
_TDINFO_OFFSET: Final = TDREPORT_SIZE - TDINFO_SIZE
_SERVTD_HASH_INPUT: Final = struct.Struct("<48sHQ")
_SERVTD_TYPE_MIGTD: Final = 0


@dataclass(frozen=True, slots=True)
class TdInfo:
    """TDINFO, 512 bytes: attributes and xfam are u64, the rest 48 bytes each."""

    attributes: int = 0
    xfam: int = 0
    mrtd: bytes = _ZERO48
    mrconfigid: bytes = _ZERO48
    mrowner: bytes = _ZERO48
    mrownerconfig: bytes = _ZERO48
    rtmr0: bytes = _ZERO48
    rtmr1: bytes = _ZERO48
    rtmr2: bytes = _ZERO48
    rtmr3: bytes = _ZERO48
    servtd_hash: bytes = _ZERO48

    def push(self) -> bytes:
        """Encode to 512 bytes. Raises ValueError on a field of another size."""
        return _pack(_TDINFO, self, reserved=64)

    @classmethod
    def pull(cls, data: bytes) -> TdInfo:
        """Decode exactly 512 bytes. Raises ReportMalformed (VMM-REPORT-MALFORMED)."""
        *values, reserved = _unpack(_TDINFO, "TDINFO", data)
        _require_zero("TDINFO", reserved)
        return cls(*values)


@dataclass(frozen=True, slots=True)
class TeeTcbInfo:
    """TEE_TCB_INFO, 239 bytes: the TDX module. valid and attributes are u64, SVNs 16 bytes, measurements 48."""

    valid: int
    tee_tcb_svn: bytes
    mrseam: bytes
    mrsignerseam: bytes
    attributes: int
    tee_tcb_svn2: bytes

    def push(self) -> bytes:
        """Encode to 239 bytes. Raises ValueError on a field of another size."""
        return _pack(_TEE_TCB_INFO, self, reserved=95)

    @classmethod
    def pull(cls, data: bytes) -> TeeTcbInfo:
        """Decode exactly 239 bytes. Raises ReportMalformed (VMM-REPORT-MALFORMED)."""
        *values, reserved = _unpack(_TEE_TCB_INFO, "TEE_TCB_INFO", data)
        _require_zero("TEE_TCB_INFO", reserved)
        return cls(*values)


@dataclass(frozen=True, slots=True)
class ReportMacStruct:
    """REPORTMACSTRUCT, 256 bytes: cpusvn 16, two SHA-384 of 48 bytes, report_data 64, mac 32."""

    cpusvn: bytes
    tee_tcb_info_hash: bytes
    tdinfo_hash: bytes
    report_data: bytes
    mac: bytes

    def push(self) -> bytes:
        """Encode to 256 bytes. Raises ValueError on a field of another size."""
        sizes = [len(getattr(self, each.name)) for each in fields(self)]
        if sizes != [16, 48, 48, REPORT_DATA_SIZE, 32]:
            raise ValueError(f"REPORTMACSTRUCT with fields of {sizes} bytes")
        return _REPORT_MAC_STRUCT.pack(
            REPORT_TYPE,
            bytes(12),
            self.cpusvn,
            self.tee_tcb_info_hash,
            self.tdinfo_hash,
            self.report_data,
            bytes(32),
            self.mac,
        )

    @classmethod
    def pull(cls, data: bytes) -> ReportMacStruct:
        """Decode exactly 256 bytes of type 81000000. Raises ReportMalformed (VMM-REPORT-MALFORMED)."""
        name = "REPORTMACSTRUCT"
        kind, reserved1, cpusvn, tcb_hash, tdinfo_hash, report_data, reserved2, mac = _unpack(
            _REPORT_MAC_STRUCT, name, data
        )
        if kind != REPORT_TYPE:
            raise ReportMalformed(failures.REPORT_MALFORMED, f"{name} has type {kind.hex()}")
        _require_zero(name, reserved1 + reserved2)
        return cls(cpusvn, tcb_hash, tdinfo_hash, report_data, mac)


@dataclass(frozen=True, slots=True)
class TdReport:
    """TDREPORT, 1024 bytes. The hashes inside are the maker's word: `verify_report_mac` and comparing them prove it."""

    report_mac_struct: ReportMacStruct
    tee_tcb_info: TeeTcbInfo
    tdinfo: TdInfo

    def push(self) -> bytes:
        """Encode to 1024 bytes. Raises ValueError on a field of another size."""
        tcb_area = self.tee_tcb_info.push().ljust(_TDINFO_OFFSET - _TEE_TCB_INFO_OFFSET, b"\0")
        return self.report_mac_struct.push() + tcb_area + self.tdinfo.push()

    @classmethod
    def pull(cls, data: bytes) -> TdReport:
        """Decode exactly 1024 bytes. Neither MAC nor hashes are judged.

        Raises ReportMalformed (VMM-REPORT-MALFORMED).
        """
        if len(data) != TDREPORT_SIZE:
            raise ReportMalformed(failures.REPORT_MALFORMED, f"TDREPORT of {len(data)} bytes")
        tcb_end = _TEE_TCB_INFO_OFFSET + TEE_TCB_INFO_SIZE
        _require_zero("TDREPORT", data[tcb_end:_TDINFO_OFFSET])
        return cls(
            ReportMacStruct.pull(data[:REPORT_MAC_STRUCT_SIZE]),
            TeeTcbInfo.pull(data[_TEE_TCB_INFO_OFFSET:tcb_end]),
            TdInfo.pull(data[_TDINFO_OFFSET:]),
        )


def make_report(platform: Platform, tdinfo: TdInfo, report_data: bytes) -> TdReport:
    """TDG.MR.REPORT: a report of a TD on this platform with its 64 bytes of REPORTDATA.

    Raises ValueError if REPORTDATA has another size.
    """
    tcb_info = TeeTcbInfo(
        valid=TEE_TCB_INFO_VALID,
        tee_tcb_svn=platform.tee_tcb_svn,
        mrseam=platform.mrseam,
        mrsignerseam=platform.mrsignerseam,
        attributes=platform.seam_attributes,
        tee_tcb_svn2=platform.tee_tcb_svn,
    )
    unsealed = ReportMacStruct(
        cpusvn=platform.cpusvn,
        tee_tcb_info_hash=hashlib.sha384(tcb_info.push()).digest(),
        tdinfo_hash=hashlib.sha384(tdinfo.push()).digest(),
        report_data=report_data,
        mac=bytes(32),
    )
    sealed = replace(unsealed, mac=_mac(platform, unsealed.push()))
    return TdReport(sealed, tcb_info, tdinfo)


def verify_report_mac(platform: Platform, report_mac_struct: bytes) -> bool:
    """TDG.MR.VERIFYREPORT: whether this platform made the 256-byte REPORTMACSTRUCT. Takes the same time either way.

    Raises ReportMalformed (VMM-REPORT-MALFORMED) on another size.
    """
    if len(report_mac_struct) != REPORT_MAC_STRUCT_SIZE:
        raise ReportMalformed(failures.REPORT_MALFORMED, f"REPORTMACSTRUCT of {len(report_mac_struct)} bytes")
    return hmac.compare_digest(_mac(platform, report_mac_struct), report_mac_struct[MACED_SIZE:])


def servtd_info_hash(tdinfo: TdInfo, servtd_attr: int) -> bytes:
    """First-level hash, 48 bytes: SHA-384 of the TDINFO without the fields that the attribute ignores (policy.md 6.2).

    Bits 32..41 of the attribute stand for attributes, xfam, mrtd, mrconfigid, mrowner, mrownerconfig, rtmr0..rtmr3.
    """
    maskable = [each.name for each in fields(TdInfo)][:-1]
    ignored = {name for bit, name in enumerate(maskable, start=32) if servtd_attr >> bit & 1}
    kept = {name: getattr(tdinfo, name) for name in maskable if name not in ignored}
    return hashlib.sha384(TdInfo(**kept, servtd_hash=tdinfo.servtd_hash).push()).digest()


def servtd_hash(info_hash: bytes, servtd_attr: int) -> bytes:
    """Second-level hash, 48 bytes, over 58: info hash, type u16 = 0 (MigTD), attribute u64 (policy.md 6.2)."""
    return hashlib.sha384(_SERVTD_HASH_INPUT.pack(info_hash, _SERVTD_TYPE_MIGTD, servtd_attr)).digest()


def _mac(platform: Platform, report_mac_struct: bytes) -> bytes:
    return hmac.digest(platform.report_key, report_mac_struct[:MACED_SIZE], "sha256")


def _pack(layout: struct.Struct, value: TdInfo | TeeTcbInfo, *, reserved: int) -> bytes:
    """Pack all fields in order; struct would pad or cut a byte string, so the sizes are compared afterwards."""
    values = [getattr(value, each.name) for each in fields(value)]
    try:
        packed = layout.pack(*values, bytes(reserved))
    except struct.error as error:
        raise ValueError(f"{type(value).__name__}: {error}") from error
    if list(layout.unpack(packed)[:-1]) != values:
        raise ValueError(f"a field of {type(value).__name__} has the wrong size")
    return packed


def _unpack(layout: struct.Struct, name: str, data: bytes) -> tuple[Any, ...]:
    if len(data) != layout.size:
        raise ReportMalformed(failures.REPORT_MALFORMED, f"{name} of {len(data)} bytes, {layout.size} needed")
    return layout.unpack(data)


def _require_zero(name: str, reserved: bytes) -> None:
    if any(reserved):
        raise ReportMalformed(failures.REPORT_MALFORMED, f"reserved bytes of {name} are not zero")
