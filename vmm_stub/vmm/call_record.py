# SPDX-License-Identifier: BSD-2-Clause-Patent
"""How a call of a guest stands in the history: named leaf, registers that are not zero, data as hex; never a key."""

from __future__ import annotations

from typing import Any, Final

from migtd.guest.abi import MigTdLeaf, TdCallLeaf, VmCallLeaf
from migtd.guest.channel import REGISTER_NAMES, Registers
from vmm_stub.tdx_module.metadata import carries_secret, carries_secret_data

REDACTED: Final = "redacted"

_TDCALL_NAMES: Final[dict[int, str]] = {
    TdCallLeaf.VP_INFO: "TDG.VP.INFO",
    TdCallLeaf.MR_RTMR_EXTEND: "TDG.MR.RTMR.EXTEND",
    TdCallLeaf.MR_REPORT: "TDG.MR.REPORT",
    TdCallLeaf.VM_WR: "TDG.VM.WR",
    TdCallLeaf.SYS_RD: "TDG.SYS.RD",
    TdCallLeaf.SERVTD_RD: "TDG.SERVTD.RD",
    TdCallLeaf.SERVTD_WR: "TDG.SERVTD.WR",
    TdCallLeaf.SERVTD_REBIND_APPROVE: "TDG.SERVTD.REBIND.APPROVE",
    TdCallLeaf.MR_VERIFYREPORT: "TDG.MR.VERIFYREPORT",
}
_VMCALL_NAMES: Final[dict[int, str]] = {
    VmCallLeaf.GET_QUOTE: "GetQuote",
    VmCallLeaf.REPORT_FATAL_ERROR: "ReportFatalError",
    VmCallLeaf.SETUP_EVENT_NOTIFY_INTERRUPT: "SetupEventNotifyInterrupt",
    VmCallLeaf.SERVICE: "Service",
}
_MIGTD_NAMES: Final[dict[int, str]] = {
    MigTdLeaf.WAIT_FOR_REQUEST: "Service.MigTD.WaitForRequest",
    MigTdLeaf.REPORT_STATUS: "Service.MigTD.ReportStatus",
    MigTdLeaf.SEND: "Service.MigTD.Send",
    MigTdLeaf.RECEIVE: "Service.MigTD.Receive",
}


def leaf_name(registers: Registers) -> str:
    """The specifications' name of a call, or its numbers where it has none."""
    if registers.rax != TdCallLeaf.VP_VMCALL:
        return _TDCALL_NAMES.get(registers.rax) or f"TDCALL {registers.rax:#x}"
    if registers.r11 == VmCallLeaf.MIGTD:
        number = registers.r12 & 0xFFFF
        name = _MIGTD_NAMES.get(number) or f"Service.MigTD {number:#x}"
    else:
        name = _VMCALL_NAMES.get(registers.r11) or f"{registers.r11:#x}"
    return f"TDG.VP.VMCALL<{name}>"


def describe_call(before: Registers, data: bytes, after: Registers, answer: bytes) -> dict[str, Any]:
    """One call as history data: `leaf`, `in` and `out` (registers that are not zero, hex), `data`, `answer` (hex).

    The value of a secret field is replaced by REDACTED both ways, and so is the token of a rebinding.
    """
    given, returned = _shown(before), _shown(after)
    if carries_secret(before):
        given["r8"] = returned["r8"] = REDACTED
    described: dict[str, Any] = {"leaf": leaf_name(before), "in": given, "out": returned}
    if data:
        described["data"] = REDACTED if carries_secret_data(before) else data.hex()
    if answer:
        described["answer"] = answer.hex()
    return described


def _shown(registers: Registers) -> dict[str, str]:
    return {name: hex(value) for name, value in zip(REGISTER_NAMES, registers.values(), strict=True) if value}
