# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Register conventions of the emulated TDCALL and TDVMCALL, seen from the host."""

from __future__ import annotations

import pytest

from migtd import failures
from migtd.errors import InvalidParameter, TdxModuleError, VmmInternalError
from migtd.guest.abi import PAGE_SIZE, SHARED_BIT, TDX_INVALID_REPORTMACSTRUCT, TDX_OPERAND_INVALID
from migtd.guest.calls import ChannelTdCall, ChannelTdVmCall
from migtd.guest.channel import Registers
from migtd.guest.interfaces import TargetTd
from migtd.guest.shared_memory import SharedPages

TARGET = TargetTd(0x1234, (1, 2, 3, 4))
ONES = (1 << 64) - 1
FIELD = 0x9810000300000010


class Host:
    """Answers every call the same and remembers the last."""

    def __init__(self, registers=None, data=b""):
        self.answer = (registers or Registers(), data)
        self.calls: list[tuple[Registers, bytes]] = []

    def call(self, registers, data):
        self.calls.append((registers, data))
        return self.answer


def tdcall(registers=None, data=b""):
    host = Host(registers, data)
    return host, ChannelTdCall(host.call)


# --- TDCALL --------------------------------------------------------------------------------------------------------
def test_vp_info_reads_gpaw_attributes_and_the_number_of_vcpus():
    host, module = tdcall(Registers(rcx=0xFFC0 | 48, rdx=0x10000000, r8=16 << 32 | 4, r9=1))
    info = module.vp_info()
    assert (info.gpaw, info.attributes, info.num_vcpus) == (48, 0x10000000, 4)
    assert host.calls == [(Registers(rax=1), b"")]


def test_mr_report_passes_the_report_data_and_returns_the_report():
    report = bytes(range(256)) * 4
    host, module = tdcall(data=report)
    assert module.mr_report(b"d" * 64) == report
    assert host.calls == [(Registers(rax=4), b"d" * 64)]


def test_a_report_of_another_size_is_a_malformed_channel():
    _, module = tdcall(data=bytes(1023))
    with pytest.raises(VmmInternalError) as caught:
        module.mr_report(bytes(64))
    assert caught.value.kind is failures.CHANNEL_MALFORMED


@pytest.mark.parametrize(
    ("status", "verified"), [(0, True), (TDX_INVALID_REPORTMACSTRUCT, False), (TDX_OPERAND_INVALID, False)]
)
def test_a_report_is_verified_only_by_success(status, verified):
    host, module = tdcall(Registers(rax=status))
    assert module.mr_verify_report(b"m" * 256) is verified
    assert host.calls == [(Registers(rax=22), b"m" * 256)]


def test_rtmr_extend_passes_index_and_digest():
    host, module = tdcall()
    module.mr_rtmr_extend(2, b"g" * 48)
    assert host.calls == [(Registers(rax=2, rdx=2), b"g" * 48)]


def test_servtd_rd_names_the_target_and_returns_the_value():
    host, module = tdcall(Registers(r8=ONES))
    assert module.servtd_rd(TARGET, FIELD) == ONES
    assert host.calls == [(Registers(rax=18, rcx=0x1234, rdx=FIELD, r10=1, r11=2, r12=3, r13=4), b"")]


def test_servtd_wr_writes_all_bits_of_the_element():
    host, module = tdcall()
    module.servtd_wr(TARGET, FIELD, 77)
    expected = Registers(rax=20, rcx=0x1234, rdx=FIELD, r8=77, r9=ONES, r10=1, r11=2, r12=3, r13=4)
    assert host.calls == [(expected, b"")]


def test_sys_rd_and_vm_wr_name_their_field():
    host, module = tdcall(Registers(r8=9))
    assert module.sys_rd(5) == 9
    module.vm_wr(6, 7)
    assert [registers for registers, _ in host.calls] == [
        Registers(rax=11, rdx=5),
        Registers(rax=8, rdx=6, r8=7, r9=ONES),
    ]


@pytest.mark.parametrize(
    "call",
    [
        lambda module: module.vp_info(),
        lambda module: module.mr_report(bytes(64)),
        lambda module: module.mr_rtmr_extend(0, bytes(48)),
        lambda module: module.servtd_rd(TARGET, FIELD),
        lambda module: module.servtd_wr(TARGET, FIELD, 0),
        lambda module: module.sys_rd(0),
        lambda module: module.vm_wr(0, 0),
    ],
)
def test_a_completion_status_is_a_tdx_module_error_that_names_it(call):
    _, module = tdcall(Registers(rax=TDX_OPERAND_INVALID | 2))
    with pytest.raises(TdxModuleError) as caught:
        call(module)
    assert caught.value.kind is failures.TDCALL_FAILED
    assert "0xc000010000000002" in caught.value.detail


def test_a_failed_access_names_leaf_and_field():
    _, module = tdcall(Registers(rax=TDX_OPERAND_INVALID))
    with pytest.raises(TdxModuleError, match=r"TDG\.SERVTD\.RD.*0x9810000300000010"):
        module.servtd_rd(TARGET, FIELD)


@pytest.mark.parametrize(
    "call",
    [
        lambda module: module.mr_report(bytes(63)),
        lambda module: module.mr_verify_report(bytes(257)),
        lambda module: module.mr_rtmr_extend(0, bytes(32)),
    ],
)
def test_an_operand_of_the_wrong_size_never_leaves_the_td(call):
    host, module = tdcall()
    with pytest.raises(ValueError, match="bytes instead of"):
        call(module)
    assert not host.calls


# --- TDVMCALL ------------------------------------------------------------------------------------------------------
class Bench:
    def __init__(self, registers=None, pages=4):
        self.memory = bytearray(pages * PAGE_SIZE)
        self.host = Host(registers)
        self.pages = SharedPages(memoryview(self.memory))
        self.vmcall = ChannelTdVmCall(self.host.call, self.pages)


def migtd(leaf, **registers):
    return Registers(r11=0x10006, r12=leaf | 1 << 16, **registers)


def test_the_migtd_services_pass_their_registers():
    bench = Bench()
    buffer = bench.pages.allocate(PAGE_SIZE)
    gpa = SHARED_BIT
    bench.vmcall.migtd_wait_for_request(buffer, 0x50)
    bench.vmcall.migtd_report_status(7, 0x501, buffer, 0x50)
    bench.vmcall.migtd_send(7, buffer, 0x52)
    bench.vmcall.migtd_receive(7, buffer, 0x52)
    assert [registers for registers, _ in bench.host.calls] == [
        migtd(1, r13=4096, r14=gpa, r15=0x50),
        migtd(2, r13=7, r14=0x501, r15=4096, rbx=gpa, rdi=0x50),
        migtd(3, r13=7, r14=4096, r15=gpa, rbx=0x52),
        migtd(4, r13=7, r14=4096, r15=gpa, rbx=0x52),
    ]


def test_quote_calls_pass_their_registers():
    bench = Bench()
    bench.vmcall.get_quote(bench.pages.allocate(2 * PAGE_SIZE))
    bench.vmcall.setup_event_notify_interrupt(0x51)
    assert [registers for registers, _ in bench.host.calls] == [
        Registers(r11=0x10002, r12=SHARED_BIT, r13=8192),
        Registers(r11=0x10004, r12=0x51),
    ]


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda vmcall, buffer: vmcall.migtd_wait_for_request(buffer, 0x50), failures.VMCALL_REFUSED),
        (lambda vmcall, buffer: vmcall.migtd_report_status(1, 0, buffer, 0x50), failures.VMCALL_REFUSED),
        (lambda vmcall, buffer: vmcall.migtd_send(1, buffer, 0x52), failures.TRANSPORT_SETUP_FAILED),
        (lambda vmcall, buffer: vmcall.migtd_receive(1, buffer, 0x52), failures.TRANSPORT_SETUP_FAILED),
        (lambda vmcall, buffer: vmcall.get_quote(buffer), failures.VMCALL_REFUSED),
        (lambda vmcall, _: vmcall.setup_event_notify_interrupt(1), failures.VMCALL_REFUSED),
    ],
)
def test_a_refused_vmcall_is_invalid_parameter_with_the_status(call, kind):
    bench = Bench(Registers(r10=0x8000000000000000))
    with pytest.raises(InvalidParameter) as caught:
        call(bench.vmcall, bench.pages.allocate(PAGE_SIZE))
    assert caught.value.kind is kind
    assert "0x8000000000000000" in caught.value.detail


def test_a_vmcall_that_the_tdx_module_refuses_is_a_tdx_module_error():
    bench = Bench(Registers(rax=TDX_OPERAND_INVALID))
    with pytest.raises(TdxModuleError):
        bench.vmcall.setup_event_notify_interrupt(1)


def test_a_fatal_error_carries_its_text_in_shared_memory():
    bench = Bench()
    bench.vmcall.report_fatal_error(0x1F, "no policy")
    assert bench.host.calls == [(Registers(r11=0x10003, r12=1 << 63 | 0x1F, r13=SHARED_BIT), b"")]
    assert bench.memory.startswith(b"no policy\0")


def test_a_long_fatal_text_is_cut_and_still_zero_terminated():
    bench = Bench()
    bench.vmcall.report_fatal_error(1, "x" * 5000)
    assert bench.memory[: PAGE_SIZE + 1] == b"x" * (PAGE_SIZE - 1) + b"\0\0"


def test_a_fatal_error_is_reported_even_without_shared_memory():
    bench = Bench(pages=0)
    bench.vmcall.report_fatal_error(1, "text")
    assert bench.host.calls == [(Registers(r11=0x10003, r12=1), b"")]


@pytest.mark.parametrize("kind", [failures.CHANNEL_LOST, failures.CHANNEL_MALFORMED])
def test_a_td_that_is_ended_by_its_fatal_error_is_no_further_error(kind):
    def leave(*_):
        raise VmmInternalError(kind)

    vmcall = ChannelTdVmCall(leave, SharedPages(memoryview(b"")))
    if kind is failures.CHANNEL_LOST:
        vmcall.report_fatal_error(1, "")
    else:
        with pytest.raises(VmmInternalError):
            vmcall.report_fatal_error(1, "")
