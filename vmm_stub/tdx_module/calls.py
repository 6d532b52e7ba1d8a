# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The guest's side of the emulated TDX module: one TDCALL in, registers and data out (ghci-ratls.md 2).

The guest's private memory is not mapped here: operands that the leaf reads there come as `data`, what it writes there
goes back as data (channel.py). Whatever a guest passes, the answer is a completion status in RAX, never an exception,
and registers that a leaf does not return are zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from migtd.guest.abi import (
    GPAW,
    REBIND_TOKEN_SIZE,
    TDX_INVALID_REPORTMACSTRUCT,
    TDX_OPERAND_INVALID,
    TDX_SUCCESS,
    TdCallLeaf,
)
from migtd.guest.channel import Registers
from migtd.guest.interfaces import TargetTd
from vmm_stub.tdx_module.errors import Operand, OperandInvalid
from vmm_stub.tdx_module.module import TdxModule
from vmm_stub.tdx_module.report import REPORT_DATA_SIZE, REPORT_MAC_STRUCT_SIZE, make_report, verify_report_mac
from vmm_stub.tdx_module.rtmr import DIGEST_SIZE, RTMR_COUNT
from vmm_stub.tdx_module.service_td import ServiceTd

TdCallFilter: TypeAlias = Callable[[ServiceTd, Registers], int | None]
"""Sees a call before it is made (it must not change the registers). A completion status that it returns is the guest's
answer, and the call is not made; None lets it pass. The place where a TDX module is made to fail."""

_REPORT_SUBTYPE: Final = 0


@dataclass(frozen=True, slots=True)
class _Call:
    service_td: ServiceTd
    registers: Registers
    data: bytes


@dataclass(frozen=True, slots=True)
class _Answer:
    registers: Registers = field(default_factory=Registers)
    data: bytes = b""


class TdCalls:
    """Serves the TDCALLs of all service TDs of one TDX module, except leaf 0, which is the VMM's (TDG.VP.VMCALL)."""

    def __init__(self, module: TdxModule, call_filter: TdCallFilter | None = None) -> None:
        self._module = module
        self._filter = call_filter
        self._leaves: dict[int, Callable[[_Call], _Answer]] = {
            TdCallLeaf.VP_INFO: self._vp_info,
            TdCallLeaf.MR_RTMR_EXTEND: self._mr_rtmr_extend,
            TdCallLeaf.MR_REPORT: self._mr_report,
            TdCallLeaf.VM_WR: self._vm_wr,
            TdCallLeaf.SYS_RD: self._sys_rd,
            TdCallLeaf.SERVTD_RD: self._servtd_rd,
            TdCallLeaf.SERVTD_WR: self._servtd_wr,
            TdCallLeaf.SERVTD_REBIND_APPROVE: self._servtd_rebind_approve,
            TdCallLeaf.MR_VERIFYREPORT: self._mr_verifyreport,
        }

    def tdcall(self, service_td: ServiceTd, registers: Registers, data: bytes = b"") -> tuple[Registers, bytes]:
        """One TDCALL of a service TD: registers and data after it. RAX is the completion status.

        TDX_OPERAND_INVALID names the operand: RAX an unknown leaf, RCX a data operand of the wrong size or an unknown
        binding handle, R10 a wrong UUID, RDX a field or RTMR index, R8 a value or report subtype, R9 a write mask.
        """
        if self._filter is not None:
            status = self._filter(service_td, registers)
            if status is not None:
                return Registers(rax=status), b""
        try:
            answer = self._serve(_Call(service_td, registers, data))
        except OperandInvalid as refused:
            return Registers(rax=TDX_OPERAND_INVALID | refused.operand), b""
        return answer.registers, answer.data

    def _serve(self, call: _Call) -> _Answer:
        serve = self._leaves.get(call.registers.rax)
        if serve is None:
            raise OperandInvalid(Operand.RAX)
        return serve(call)

    def _vp_info(self, call: _Call) -> _Answer:
        """RCX GPA width, RDX attributes, R8 max_vcpus << 32 | num_vcpus, R9 vCPU index: the channel has one caller."""
        vcpus = call.service_td.vcpus
        return _Answer(Registers(rcx=GPAW, rdx=call.service_td.attributes, r8=vcpus << 32 | vcpus))

    def _mr_rtmr_extend(self, call: _Call) -> _Answer:
        _require_size(call, DIGEST_SIZE)
        if call.registers.rdx >= RTMR_COUNT:
            raise OperandInvalid(Operand.RDX)
        call.service_td.rtmrs.extend(call.registers.rdx, call.data)
        return _Answer()

    def _mr_report(self, call: _Call) -> _Answer:
        _require_size(call, REPORT_DATA_SIZE)
        if call.registers.r8 != _REPORT_SUBTYPE:
            raise OperandInvalid(Operand.R8)
        if self._module.fixed_report is not None:
            return _Answer(data=self._module.fixed_report)
        return _Answer(data=make_report(self._module.platform, call.service_td.tdinfo(), call.data).push())

    def _mr_verifyreport(self, call: _Call) -> _Answer:
        _require_size(call, REPORT_MAC_STRUCT_SIZE)
        ours = verify_report_mac(self._module.platform, call.data)
        return _Answer(Registers(rax=TDX_SUCCESS if ours else TDX_INVALID_REPORTMACSTRUCT))

    def _vm_wr(self, call: _Call) -> _Answer:
        call.service_td.write(call.registers.rdx, call.registers.r8, call.registers.r9)
        return _Answer()

    def _sys_rd(self, call: _Call) -> _Answer:
        return _Answer(Registers(r8=self._module.read_global(call.registers.rdx)))

    def _servtd_rd(self, call: _Call) -> _Answer:
        target = _target(call.registers)
        value = self._module.bound_target(call.service_td, target).read(call.registers.rdx)
        return _Answer(_with_uuid(target, r8=value))

    def _servtd_wr(self, call: _Call) -> _Answer:
        target = _target(call.registers)
        tdcs = self._module.bound_target(call.service_td, target)
        tdcs.write(call.registers.rdx, call.registers.r8, call.registers.r9)
        return _Answer(_with_uuid(target))

    def _servtd_rebind_approve(self, call: _Call) -> _Answer:
        _require_size(call, REBIND_TOKEN_SIZE)
        target = _target(call.registers)
        self._module.bound_target(call.service_td, target).approve(call.data)
        return _Answer(_with_uuid(target))


def _require_size(call: _Call, size: int) -> None:
    if len(call.data) != size:
        raise OperandInvalid(Operand.RCX)


def _target(registers: Registers) -> TargetTd:
    return TargetTd(registers.rcx, (registers.r10, registers.r11, registers.r12, registers.r13))


def _with_uuid(target: TargetTd, *, r8: int = 0) -> Registers:
    r10, r11, r12, r13 = target.uuid
    return Registers(r8=r8, r10=r10, r11=r11, r12=r12, r13=r13)
