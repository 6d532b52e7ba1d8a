# SPDX-License-Identifier: BSD-2-Clause-Patent
"""TDCALL and TDVMCALL of an emulated TD: registers over a channel (TDX Module ABI 1.5, GHCI 1.5)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

from migtd import failures
from migtd.errors import FailureKind, InvalidParameter, OutOfResource, TdxModuleError, VmmInternalError
from migtd.guest.abi import (
    MIGTD_API_VERSION,
    PAGE_SIZE,
    REBIND_TOKEN_SIZE,
    TDG_VP_VMCALL_SUCCESS,
    TDX_SUCCESS,
    MigTdLeaf,
    TdCallLeaf,
    VmCallLeaf,
)
from migtd.guest.channel import Registers
from migtd.guest.interfaces import SharedBuffer, SharedMemory, TargetTd, VpInfo

REPORT_DATA_SIZE: Final = 64
TDREPORT_SIZE: Final = 1024
REPORT_MAC_STRUCT_SIZE: Final = 256
DIGEST_SIZE: Final = 48

_ALL_BITS: Final = (1 << 64) - 1
_GPA_OF_MESSAGE: Final = 1 << 63
"""R12 of ReportFatalError: R13 holds the shared GPA of a zero-terminated string."""

Leave = Callable[[Registers, bytes], tuple[Registers, bytes]]
"""`Channel.call`."""


class ChannelTdCall:
    """Implements `migtd.guest.interfaces.TdCall`. `leave` is the channel's `call`.

    Besides TdxModuleError each method raises what `leave` does, and VmmInternalError (MIGTD-CHANNEL-MALFORMED) if data
    of another size than the leaf's came back. An operand of the wrong size is a ValueError.
    """

    def __init__(self, leave: Leave) -> None:
        self._leave = leave

    def vp_info(self) -> VpInfo:
        """TDG.VP.INFO: GPAW in RCX bits 5:0, attributes in RDX, number of vCPUs in R8 bits 31:0."""
        out, _ = self._call(TdCallLeaf.VP_INFO, Registers())
        return VpInfo(gpaw=out.rcx & 0x3F, attributes=out.rdx, num_vcpus=out.r8 & 0xFFFFFFFF)

    def mr_report(self, report_data: bytes) -> bytes:
        """TDG.MR.REPORT, subtype 0: 64 bytes in, 1024 bytes out."""
        _expect_size("REPORTDATA", report_data, REPORT_DATA_SIZE)
        _, report = self._call(TdCallLeaf.MR_REPORT, Registers(), report_data)
        if len(report) != TDREPORT_SIZE:
            raise VmmInternalError(failures.CHANNEL_MALFORMED, f"a TDREPORT of {len(report)} bytes")
        return report

    def mr_verify_report(self, report_mac_struct: bytes) -> bool:
        """TDG.MR.VERIFYREPORT: True on success only. Any other completion status means that nothing was verified."""
        _expect_size("REPORTMACSTRUCT", report_mac_struct, REPORT_MAC_STRUCT_SIZE)
        out, _ = self._leave(Registers(rax=TdCallLeaf.MR_VERIFYREPORT), report_mac_struct)
        return out.rax == TDX_SUCCESS

    def mr_rtmr_extend(self, index: int, digest: bytes) -> None:
        """TDG.MR.RTMR.EXTEND: index in RDX, 48-byte digest."""
        _expect_size("digest", digest, DIGEST_SIZE)
        self._call(TdCallLeaf.MR_RTMR_EXTEND, Registers(rdx=index), digest)

    def servtd_rd(self, target: TargetTd, field: int) -> int:
        """TDG.SERVTD.RD: handle in RCX, field in RDX, UUID in R10 to R13; value in R8."""
        out, _ = self._call(TdCallLeaf.SERVTD_RD, _for_target(target, field))
        return out.r8

    def servtd_wr(self, target: TargetTd, field: int, value: int) -> None:
        """TDG.SERVTD.WR: as SERVTD.RD, value in R8, mask of all ones in R9."""
        registers = _for_target(target, field)
        registers.r8, registers.r9 = value, _ALL_BITS
        self._call(TdCallLeaf.SERVTD_WR, registers)

    def sys_rd(self, field: int) -> int:
        """TDG.SYS.RD: field in RDX; value in R8."""
        out, _ = self._call(TdCallLeaf.SYS_RD, Registers(rdx=field))
        return out.r8

    def vm_wr(self, field: int, value: int) -> None:
        """TDG.VM.WR: field in RDX, value in R8, mask of all ones in R9."""
        self._call(TdCallLeaf.VM_WR, Registers(rdx=field, r8=value, r9=_ALL_BITS))

    def servtd_rebind_approve(self, target: TargetTd, token: bytes) -> None:
        """TDG.SERVTD.REBIND.APPROVE: handle in RCX, UUID in R10 to R13, 32-byte token."""
        _expect_size("token", token, REBIND_TOKEN_SIZE)
        self._call(TdCallLeaf.SERVTD_REBIND_APPROVE, _for_target(target, 0), token)

    def _call(self, leaf: TdCallLeaf, registers: Registers, data: bytes = b"") -> tuple[Registers, bytes]:
        # The host may answer in the object that it was given: what the detail names is kept here.
        field = registers.rdx
        registers.rax = leaf
        out, answer = self._leave(registers, data)
        if out.rax != TDX_SUCCESS:
            raise TdxModuleError(
                failures.TDCALL_FAILED, f"TDG.{leaf.name.replace('_', '.')} (RDX {field:#x}): status {out.rax:#x}"
            )
        return out, answer


class ChannelTdVmCall:
    """Implements `migtd.guest.interfaces.TdVmCall`. `leave` is the channel's `call`, whose errors pass through.

    `memory` gives the page for the text of a fatal error. A TDG.VP.VMCALL that the TDX module itself refuses is a
    TdxModuleError (MIGTD-TDCALL-FAILED).
    """

    def __init__(self, leave: Leave, memory: SharedMemory) -> None:
        self._leave = leave
        self._memory = memory

    def migtd_wait_for_request(self, buffer: SharedBuffer, vector: int) -> None:
        """Service.MigTD.WaitForRequest: R13 buffer length, R14 GPA, R15 vector."""
        registers = Registers(r13=buffer.size, r14=buffer.gpa, r15=vector)
        self._migtd(MigTdLeaf.WAIT_FOR_REQUEST, registers)

    def migtd_report_status(self, request_id: int, status: int, buffer: SharedBuffer, vector: int) -> None:
        """Service.MigTD.ReportStatus: R13 request id, R14 status, R15 buffer length, RBX GPA, RDI vector."""
        registers = Registers(r13=request_id, r14=status, r15=buffer.size, rbx=buffer.gpa, rdi=vector)
        self._migtd(MigTdLeaf.REPORT_STATUS, registers)

    def migtd_send(self, request_id: int, buffer: SharedBuffer, vector: int) -> None:
        """Service.MigTD.Send: R13 request id, R14 buffer length, R15 GPA, RBX vector."""
        registers = Registers(r13=request_id, r14=buffer.size, r15=buffer.gpa, rbx=vector)
        self._migtd(MigTdLeaf.SEND, registers, failures.TRANSPORT_SETUP_FAILED)

    def migtd_receive(self, request_id: int, buffer: SharedBuffer, vector: int) -> None:
        """Service.MigTD.Receive: registers as in Send."""
        registers = Registers(r13=request_id, r14=buffer.size, r15=buffer.gpa, rbx=vector)
        self._migtd(MigTdLeaf.RECEIVE, registers, failures.TRANSPORT_SETUP_FAILED)

    def get_quote(self, buffer: SharedBuffer) -> None:
        """GetQuote: R12 GPA, R13 buffer length."""
        self._call(VmCallLeaf.GET_QUOTE, Registers(r12=buffer.gpa, r13=buffer.size), VmCallLeaf.GET_QUOTE.name)

    def setup_event_notify_interrupt(self, vector: int) -> None:
        """SetupEventNotifyInterrupt: R12 vector."""
        leaf = VmCallLeaf.SETUP_EVENT_NOTIFY_INTERRUPT
        self._call(leaf, Registers(r12=vector), leaf.name)

    def report_fatal_error(self, code: int, message: str) -> None:
        """ReportFatalError: R12 code and bit 63, R13 GPA of the zero-terminated message, cut to one page.

        The VMM may end the TD without an answer: a channel lost during this call is its success.
        """
        leaf = VmCallLeaf.REPORT_FATAL_ERROR
        registers = Registers(r12=code & 0xFFFFFFFF)
        # With no page left for the text, the code alone must reach the VMM. The page is never freed: the TD ends.
        with contextlib.suppress(OutOfResource):
            buffer = self._memory.allocate(PAGE_SIZE)
            buffer.write(0, message.encode("utf-8", "replace")[: PAGE_SIZE - 1])
            registers.r12 |= _GPA_OF_MESSAGE
            registers.r13 = buffer.gpa
        try:
            self._call(leaf, registers, leaf.name)
        except VmmInternalError as error:
            if error.kind is not failures.CHANNEL_LOST:
                raise

    def _migtd(self, leaf: MigTdLeaf, registers: Registers, refused: FailureKind = failures.VMCALL_REFUSED) -> None:
        registers.r12 = leaf | MIGTD_API_VERSION << 16
        self._call(VmCallLeaf.MIGTD, registers, f"MIGTD.{leaf.name}", refused)

    def _call(
        self, leaf: VmCallLeaf, registers: Registers, name: str, refused: FailureKind = failures.VMCALL_REFUSED
    ) -> None:
        registers.rax, registers.r10, registers.r11 = TdCallLeaf.VP_VMCALL, 0, leaf
        out, _ = self._leave(registers, b"")
        if out.rax != TDX_SUCCESS:
            raise TdxModuleError(failures.TDCALL_FAILED, f"TDG.VP.VMCALL<{name}>: status {out.rax:#x}")
        if out.r10 != TDG_VP_VMCALL_SUCCESS:
            raise InvalidParameter(refused, f"TDG.VP.VMCALL<{name}>: status {out.r10:#x}")


def _for_target(target: TargetTd, field: int) -> Registers:
    u0, u1, u2, u3 = target.uuid
    return Registers(rcx=target.binding_handle, rdx=field, r10=u0, r11=u1, r12=u2, r13=u3)


def _expect_size(name: str, data: bytes, size: int) -> None:
    if len(data) != size:
        raise ValueError(f"{name} has {len(data)} bytes instead of {size}")
