# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a TD gets from its VMM, call by call, through an in-process channel."""

import asyncio
import json

import pytest

from migtd import failures as migtd_failures
from migtd.errors import InvalidParameter, MigrationResult, VmmInternalError
from migtd.guest.abi import (
    MIGTD_API_VERSION,
    SHARED_BIT,
    TDG_VP_VMCALL_ALIGN_ERROR,
    TDG_VP_VMCALL_GPA_INUSE,
    TDG_VP_VMCALL_INVALID_OPERAND,
    MigTdLeaf,
    TdCallLeaf,
    VmCallLeaf,
)
from migtd.guest.channel import Registers
from migtd.guest.events import NoteEvent, push_event
from migtd.guest.ghci import HEADER, EnableLogArea, GetTdReport, StartMigration
from migtd.guest.interfaces import TargetTd
from vmm_stub.testing import MIGTD, SMALL_MEMORY, ScriptedGuest, migration_request, quiet_vmm, target_td
from vmm_stub.vmm.control.models import MigTdState
from vmm_stub.vmm.in_process import InProcessChannel

PAGE = 4096


def events(vmm, kind):
    lines = [json.loads(line) for line in vmm.history.read(limit=10_000)]
    return [line for line in lines if line["kind"] == kind]


def outcome_of(migration):
    return migration.model().outcome


def migtd_of(vmm):
    return vmm.migtd(MIGTD).model()


def wait_call(**changes):
    """Registers of a WaitForRequest that is right, with changes."""
    right = {
        "r11": VmCallLeaf.MIGTD,
        "r12": MigTdLeaf.WAIT_FOR_REQUEST | MIGTD_API_VERSION << 16,
        "r13": PAGE,
        "r14": SHARED_BIT,
        "r15": 0x50,
    }
    return Registers(**{**right, **changes})


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 0),
        ({"r15": 0}, 0),
        ({"r10": 1}, TDG_VP_VMCALL_INVALID_OPERAND),
        ({"r11": VmCallLeaf.SERVICE}, TDG_VP_VMCALL_INVALID_OPERAND),
        ({"r11": 0x99}, TDG_VP_VMCALL_INVALID_OPERAND),
        ({"r12": MigTdLeaf.WAIT_FOR_REQUEST}, TDG_VP_VMCALL_INVALID_OPERAND),
        ({"r12": MigTdLeaf.WAIT_FOR_REQUEST | 2 << 16}, TDG_VP_VMCALL_INVALID_OPERAND),
        ({"r12": MigTdLeaf.WAIT_FOR_REQUEST | 1 << 16 | 1 << 24}, TDG_VP_VMCALL_INVALID_OPERAND),
        ({"r12": 9 | 1 << 16}, TDG_VP_VMCALL_INVALID_OPERAND),
        ({"r13": 12}, TDG_VP_VMCALL_INVALID_OPERAND),
        ({"r13": SMALL_MEMORY + 1}, TDG_VP_VMCALL_INVALID_OPERAND),
        ({"r14": 0}, TDG_VP_VMCALL_INVALID_OPERAND),
        ({"r14": SHARED_BIT | 16}, TDG_VP_VMCALL_ALIGN_ERROR),
        ({"r14": SHARED_BIT | SMALL_MEMORY}, TDG_VP_VMCALL_INVALID_OPERAND),
        ({"r14": SHARED_BIT | SMALL_MEMORY - PAGE, "r13": 2 * PAGE}, TDG_VP_VMCALL_INVALID_OPERAND),
        ({"r14": SHARED_BIT | 1 << 63}, TDG_VP_VMCALL_INVALID_OPERAND),
        ({"r15": 31}, TDG_VP_VMCALL_INVALID_OPERAND),
        ({"r15": 256}, TDG_VP_VMCALL_INVALID_OPERAND),
    ],
)
async def test_operands_of_a_call_are_checked(changes, status):
    channel = InProcessChannel(quiet_vmm().migtd(MIGTD))
    answer, data = channel.call(wait_call(**changes))
    assert (answer.rax, answer.r10, data) == (0, status, b"")


async def test_a_second_wait_for_request_is_refused_while_one_is_pending():
    channel = InProcessChannel(quiet_vmm().migtd(MIGTD))
    channel.call(wait_call())
    assert channel.call(wait_call(r14=SHARED_BIT | PAGE))[0].r10 == TDG_VP_VMCALL_GPA_INUSE


async def test_a_tdcall_goes_to_the_tdx_module():
    guest = ScriptedGuest(quiet_vmm())
    assert guest.guest.tdcall.vp_info().num_vcpus == 1
    assert len(guest.guest.tdcall.mr_report(bytes(64))) == 1024


async def test_migtd_is_ready_once_it_waits_for_requests():
    vmm = quiet_vmm()
    assert vmm.health().status == "starting"
    channel = InProcessChannel(vmm.migtd(MIGTD))
    assert vmm.migtd(MIGTD).state is MigTdState.STARTING
    channel.call(wait_call())
    assert vmm.health().status == "ready"


async def test_guest_gets_the_three_requests_of_a_migration_in_order_and_reports_end_them():
    vmm = quiet_vmm(log_level=2)
    guest, target = ScriptedGuest(vmm), target_td(vmm)
    # nobody listens: the requests come all the same, once the host gave up
    migration = await vmm.start_migration(migration_request(target, 5, "127.0.0.1:1"))
    migration.cancel()
    first = await guest.next_request()
    assert first == EnableLogArea(5 | 1 << 63, 2)
    await guest.answer(first)
    second = await guest.next_request()
    assert isinstance(second, GetTdReport)
    assert second.request_id == 5 | 1 << 62
    await guest.answer(second)
    assert await guest.next_request() == StartMigration(
        5, is_source=True, target=TargetTd(target.binding_handle, target.uuid)
    )
    assert not migration.ended.is_set()
    await guest.report(5, MigrationResult.VmmCanceled)
    await migration.ended.wait()
    results = [(each["request_id"], each["data"]["operation"]) for each in events(vmm, "result")]
    assert results == [(5 | 1 << 63, "EnableLogArea"), (5 | 1 << 62, "GetTDReport"), (5, "StartMigration")]
    await vmm.stop()


async def test_a_request_is_reported_exactly_once():
    vmm = quiet_vmm()
    guest, target = ScriptedGuest(vmm), target_td(vmm)
    (await vmm.start_migration(migration_request(target, 5, "127.0.0.1:1"))).cancel()
    await guest.start_migration()
    await guest.report(5, MigrationResult.VmmCanceled)
    with pytest.raises(InvalidParameter) as refused:
        await guest.report(5)
    assert refused.value.kind is migtd_failures.VMCALL_REFUSED
    assert outcome_of(vmm.migration(MIGTD, 5)).result == "VmmCanceled"
    assert [each["data"]["id"] for each in events(vmm, "note") if "id" in each["data"]] == ["VMM-REPORT-REFUSED"]
    await vmm.stop()


@pytest.mark.parametrize(
    "register",
    [1, 0x100, 0x0D01, 0x0102, 0x1_0001_0101, 1 << 63],
    ids=["no-code", "code-in-success", "unknown-code", "byte-0-is-2", "high-bits", "top-bit"],
)
async def test_a_malformed_report_is_refused_and_the_request_stays_open(register):
    vmm = quiet_vmm()
    guest, target = ScriptedGuest(vmm), target_td(vmm)
    (await vmm.start_migration(migration_request(target, 5, "127.0.0.1:1"))).cancel()
    await guest.start_migration()
    buffer = guest.guest.memory.allocate(PAGE)
    with pytest.raises(InvalidParameter):
        guest.guest.vmcall.migtd_report_status(5, register, buffer, 0x50)
    assert not vmm.migration(MIGTD, 5).ended.is_set()
    await guest.report(5, MigrationResult.VmmCanceled)
    assert vmm.migration(MIGTD, 5).ended.is_set()
    await vmm.stop()


async def test_an_answer_of_the_wrong_size_is_refused():
    vmm = quiet_vmm()
    guest, target = ScriptedGuest(vmm), target_td(vmm)
    (await vmm.start_migration(migration_request(target, 5, "127.0.0.1:1"))).cancel()
    log_area = await guest.next_request()
    assert isinstance(log_area, EnableLogArea)
    for data in (b"", b"\1\0\0\0\0\0\0\0" + bytes(16), bytes(8)):
        with pytest.raises(InvalidParameter):
            await guest.services.report_status(log_area.request_id, MigrationResult.Success, data)
    await guest.answer(log_area)
    report = await guest.next_request()
    assert isinstance(report, GetTdReport)
    with pytest.raises(InvalidParameter):
        await guest.services.report_status(report.request_id, MigrationResult.Success, bytes(1023))
    await guest.answer(report)
    assert isinstance(await guest.next_request(), StartMigration)
    guest.channel.close()
    await vmm.stop()


async def test_a_report_of_a_request_that_was_never_handed_out_is_refused():
    vmm = quiet_vmm()
    guest, target = ScriptedGuest(vmm), target_td(vmm)
    (await vmm.start_migration(migration_request(target, 5, "127.0.0.1:1"))).cancel()
    with pytest.raises(InvalidParameter):
        await guest.report(5)
    assert not vmm.migration(MIGTD, 5).ended.is_set()
    await vmm.stop()


@pytest.mark.parametrize("leaf", [MigTdLeaf.SEND, MigTdLeaf.RECEIVE])
async def test_send_and_receive_without_a_migration_are_refused(leaf):
    guest = ScriptedGuest(quiet_vmm())
    with pytest.raises(InvalidParameter) as refused:
        await (guest.services.send(9, b"x") if leaf is MigTdLeaf.SEND else guest.services.receive(9))
    assert refused.value.kind is migtd_failures.TRANSPORT_SETUP_FAILED


async def test_get_quote_ends_in_the_error_status_and_fires_the_vector():
    guest = ScriptedGuest(quiet_vmm())
    guest.guest.vmcall.setup_event_notify_interrupt(0x60)
    buffer = guest.guest.memory.allocate(PAGE)
    buffer.write(0, (1).to_bytes(8, "little") + bytes(8) + (1024).to_bytes(4, "little"))
    guest.guest.vmcall.get_quote(buffer)
    await guest.guest.interrupts.wait(0x60, 0)
    assert int.from_bytes(buffer.read(8, 8), "little") == 0x8000000000000000
    assert buffer.read(16, 8) == (1024).to_bytes(4, "little") + bytes(4)


async def test_a_fatal_error_ends_the_td_and_its_message_is_the_reason():
    vmm = quiet_vmm()
    guest, target = ScriptedGuest(vmm), target_td(vmm)
    migration = await vmm.start_migration(migration_request(target))
    guest.guest.vmcall.report_fatal_error(3, "no event log")
    await migration.ended.wait()
    model = migtd_of(vmm)
    assert model.state is MigTdState.LOST
    assert model.error.id == "VMM-MIGTD-FATAL"
    assert "no event log" in model.error.message
    outcome = outcome_of(migration)
    assert (outcome.result, outcome.code, outcome.error.id) == ("Unknown", None, "VMM-MIGTD-FATAL")
    with pytest.raises(VmmInternalError):
        guest.channel.call(Registers(rax=TdCallLeaf.VP_INFO))
    await vmm.stop()


async def test_a_fatal_error_with_a_bad_address_is_refused():
    channel = InProcessChannel(quiet_vmm().migtd(MIGTD))
    call = Registers(r11=VmCallLeaf.REPORT_FATAL_ERROR, r12=1 << 63, r13=12345)
    assert channel.call(call)[0].r10 == TDG_VP_VMCALL_INVALID_OPERAND


async def test_a_new_td_starts_with_zeroed_memory_and_fresh_rtmrs():
    vmm = quiet_vmm()
    first = ScriptedGuest(vmm)
    fresh = first.guest.tdcall.mr_report(bytes(64))
    first.guest.tdcall.mr_rtmr_extend(2, b"\1" * 48)
    first.channel.shared_memory[:4] = b"used"
    assert first.guest.tdcall.mr_report(bytes(64)) != fresh
    first.channel.close()
    assert migtd_of(vmm).error.id == "VMM-MIGTD-GONE"
    second = ScriptedGuest(vmm)
    assert bytes(second.channel.shared_memory[:4]) == bytes(4)
    assert second.guest.tdcall.mr_report(bytes(64)) == fresh
    assert migtd_of(vmm).error is None


async def test_history_names_calls_and_never_shows_a_key():
    vmm = quiet_vmm()
    guest, target = ScriptedGuest(vmm), target_td(vmm)
    bound = TargetTd(target.binding_handle, target.uuid)
    secret = 0x5EC2E75EC2E75EC2
    guest.write_key(bound, (secret, secret, secret, secret))
    read = guest.guest.tdcall.servtd_rd(bound, 0x9810000300000018)
    text = b"".join(vmm.history.read(limit=1000)).decode()
    assert f"{secret:x}" not in text
    assert f"{read:x}" not in text
    assert "TDG.SERVTD.WR" in text
    assert '"r8":"redacted"' in text


async def test_events_of_the_guest_are_recorded_and_malformed_ones_end_the_call():
    vmm = quiet_vmm()
    guest = ScriptedGuest(vmm)
    guest.observer.note(7, "hello")
    assert [(each["request_id"], each["data"]) for each in events(vmm, "note")] == [(7, {"text": "hello"})]
    with pytest.raises(VmmInternalError):
        guest.channel.event(b"{}")


async def test_each_line_of_an_event_message_is_an_event_up_to_the_first_that_is_none():
    vmm = quiet_vmm()
    guest = ScriptedGuest(vmm)
    with pytest.raises(VmmInternalError):
        guest.channel.event(b"\n".join([push_event(NoteEvent(7, "one")), push_event(NoteEvent(8, "two")), b"", b"{}"]))
    assert [each["request_id"] for each in events(vmm, "note")] == [7, 8]


async def test_an_interrupt_before_anybody_listens_is_delivered_later():
    vmm = quiet_vmm()
    channel, target = InProcessChannel(vmm.migtd(MIGTD)), target_td(vmm)
    channel.call(wait_call())
    migration = await vmm.start_migration(migration_request(target, 5, "127.0.0.1:1"))
    migration.cancel()
    while not HEADER.unpack_from(channel.shared_memory)[0]:
        await pause()
    fired: list[int] = []
    channel.listen(fired.append, lambda: None)
    await pause()
    assert fired == [0x50]
    channel.close()
    await vmm.stop()


async def pause():
    await asyncio.sleep(0)
