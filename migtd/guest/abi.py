# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Numbers of the TDX guest interface: TDCALL leaves, TDVMCALL leaves, fields, vectors, completion statuses.

TDX Module ABI 1.5 (TDCALL), GHCI 1.5 (TDG.VP.VMCALL), ghci-ratls.md 2. Names are those of the specifications.
"""

from __future__ import annotations

import enum
from typing import Final

PAGE_SIZE: Final = 4096


class TdCallLeaf(enum.IntEnum):
    """RAX of a TDCALL (TDX Module ABI, guest-side leaf numbers)."""

    VP_VMCALL = 0
    VP_INFO = 1
    MR_RTMR_EXTEND = 2
    MR_REPORT = 4
    VM_WR = 8
    SYS_RD = 11
    SERVTD_RD = 18
    SERVTD_WR = 20
    SERVTD_REBIND_APPROVE = 21
    """A number of this emulation: the documents that we follow name the leaf without one."""
    MR_VERIFYREPORT = 22


class VmCallLeaf(enum.IntEnum):
    """R11 of a TDG.VP.VMCALL with R10 = 0 (GHCI 1.5)."""

    GET_QUOTE = 0x10002
    REPORT_FATAL_ERROR = 0x10003
    SETUP_EVENT_NOTIFY_INTERRUPT = 0x10004
    SERVICE = 0x10005
    MIGTD = 0x10006


class MigTdLeaf(enum.IntEnum):
    """Low 16 bits of R12 of a TDG.VP.VMCALL<Service.MigTD>; bits 16..23 are the interface version."""

    WAIT_FOR_REQUEST = 1
    REPORT_STATUS = 2
    SEND = 3
    RECEIVE = 4


MIGTD_API_VERSION: Final = 1

TDX_SUCCESS: Final = 0
TDX_OPERAND_INVALID: Final = 0xC0000100_00000000
"""Completion status in RAX; the low 32 bits name the operand (0 RAX, 1 RCX, 2 RDX, 8 R8 …)."""
TDX_OPERAND_BUSY: Final = 0x80000200_00000000
TDX_INVALID_REPORTMACSTRUCT: Final = 0xC0001001_00000000
"""TDG.MR.VERIFYREPORT: the MAC is not this platform's."""

TDG_VP_VMCALL_SUCCESS: Final = 0
TDG_VP_VMCALL_RETRY: Final = 1
TDG_VP_VMCALL_INVALID_OPERAND: Final = 0x8000000000000000
TDG_VP_VMCALL_GPA_INUSE: Final = 0x8000000000000001
TDG_VP_VMCALL_ALIGN_ERROR: Final = 0x8000000000000002

VMCALL_SERVICE_VECTOR: Final = 0x50
"""Interrupt for WaitForRequest and ReportStatus (ghci-ratls.md 2)."""
QUOTE_VECTOR: Final = 0x51
"""Interrupt for GetQuote, given to SetupEventNotifyInterrupt (ghci-ratls.md 8)."""
TRANSPORT_VECTOR: Final = 0x52
"""Interrupt for Send and Receive (ghci-ratls.md 2)."""

GPAW: Final = 48
"""Guest physical address width of an emulated TD; bit GPAW - 1 of a GPA marks shared memory."""
SHARED_BIT: Final = 1 << (GPAW - 1)


class Field(enum.IntEnum):
    """Metadata field identifiers (ghci-ratls.md 2). Element i of a field is field + i."""

    MIG_DEC_KEY = 0x9810000300000010
    MIG_ENC_KEY = 0x9810000300000018
    MIG_VERSION = 0x9810000100000020
    SERVTD_INIT_SERVTD_INFO_HASH = 0x191000030000020E
    SERVTD_INIT_ATTR = 0x191000030000020D
    INIT_CPUSVN = 0x1110000300000060
    INIT_TEE_TCB_SVN = 0x1110000300000062
    INIT_TEE_MODEL = 0x1110000200000064
    SERVTD_INFO_HASH = 0x1910000300000207
    SERVTD_ATTR = 0x1910000300000202
    REBIND_ACCEPT_TOKEN = 0x191000030000021E
    REBIND_ATTR = 0x1910000300000222
    ACCEPT_SERVTD_EXT_HASH = 0x1910000300000214
    MIN_EXPORT_VERSION = 0x2000000100000001
    MAX_EXPORT_VERSION = 0x2000000100000002
    MIN_IMPORT_VERSION = 0x2000000100000003
    MAX_IMPORT_VERSION = 0x2000000100000004


MSK_ELEMENTS: Final = 4
"""A migration session key is 4 elements of 64 bits."""
REBIND_TOKEN_ELEMENTS: Final = 4
"""So is the token of a rebinding."""
REBIND_TOKEN_SIZE: Final = 8 * REBIND_TOKEN_ELEMENTS
