# SPDX-License-Identifier: BSD-2-Clause-Patent
"""GhciServices over an emulated guest, against a VMM that answers when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from migtd import failures
from migtd.deadlines import Deadlines
from migtd.errors import (
    InvalidParameter,
    MigrationResult,
    NetworkError,
    OutOfResource,
    VmmCanceled,
    VmmInternalError,
)
from migtd.guest.abi import PAGE_SIZE, SHARED_BIT, TDG_VP_VMCALL_INVALID_OPERAND, MigTdLeaf
from migtd.guest.channel import Registers
from migtd.guest.configuration import FileConfiguration
from migtd.guest.emulated import emulated_guest
from migtd.guest.ghci import HEADER, MAX_SEND
from migtd.guest.services import GhciServices
from migtd.guest.shared_memory import SharedPages
from migtd.testing import RecordingObserver

SUCCESS = 1
PEER_GONE = 2 | 1 << 8
CANCELED = 2 | 3 << 8
ID = 7
RESERVE = 1
"""Pages that whoever waits for requests keeps for a report."""
SHORT = Deadlines(read=0.02, write=0.02, report=0.02)


@dataclass
class Call:
    """One call of Service.MigTD, with what the registers say of its buffer."""

    leaf: MigTdLeaf
    registers: Registers
    offset: int
    size: int
    vector: int


class ScriptedVmm:
    """A host in this process. It accepts every call; the test answers."""

    def __init__(self, pages: int = 64) -> None:
        self.shared_memory = memoryview(bytearray(pages * PAGE_SIZE))
        self.refuse_with = 0
        self.at_once: Callable[[Call], None] | None = None
        self.on_tdcall: Callable[[], None] = lambda: None
        self.open: list[Call] = []
        self._calls: asyncio.Queue[Call] = asyncio.Queue()

    def call(self, registers: Registers, data: bytes = b"") -> tuple[Registers, bytes]:
        assert not data or registers.rax
        if registers.rax:
            self.on_tdcall()
            return Registers(rcx=48, r8=1), b""
        if self.refuse_with:
            return Registers(r10=self.refuse_with), b""
        assert registers.r12 >> 16 == 1
        leaf = MigTdLeaf(registers.r12 & 0xFFFF)
        size, gpa, vector = {
            MigTdLeaf.WAIT_FOR_REQUEST: (registers.r13, registers.r14, registers.r15),
            MigTdLeaf.REPORT_STATUS: (registers.r15, registers.rbx, registers.rdi),
            MigTdLeaf.SEND: (registers.r14, registers.r15, registers.rbx),
            MigTdLeaf.RECEIVE: (registers.r14, registers.r15, registers.rbx),
        }[leaf]
        call = Call(leaf, registers, gpa & ~SHARED_BIT, size, vector)
        self.open.append(call)
        self._calls.put_nowait(call)
        if self.at_once is not None:
            self.at_once(call)
        return Registers(), b""

    def event(self, data: bytes) -> None:
        raise AssertionError(data)

    def listen(self, on_interrupt, on_lost) -> None:
        self.interrupt, self.lose = on_interrupt, on_lost

    def close(self) -> None:
        raise AssertionError

    async def next(self, leaf: MigTdLeaf) -> Call:
        call = await self._calls.get()
        assert call.leaf is leaf
        return call

    def payload(self, call: Call) -> bytes:
        status, length = HEADER.unpack_from(self.shared_memory, call.offset)
        assert status == 0
        start = call.offset + HEADER.size
        return bytes(self.shared_memory[start : start + length])

    def write(self, call: Call, status: int, payload: bytes = b"", length: int | None = None) -> None:
        start = call.offset + HEADER.size
        self.shared_memory[start : start + len(payload)] = payload
        HEADER.pack_into(self.shared_memory, call.offset, status, len(payload) if length is None else length)

    def answer(self, call: Call, status: int = SUCCESS, payload: bytes = b"", length: int | None = None) -> None:
        self.write(call, status, payload, length)
        self.open.remove(call)
        self.interrupt(call.vector)


class Bench:
    def __init__(self, deadlines: Deadlines, pages: int = 64) -> None:
        self.vmm = ScriptedVmm(pages)
        self.guest = emulated_guest(self.vmm, FileConfiguration())
        self.observer = RecordingObserver()
        self.services = GhciServices(self.guest, deadlines, self.observer)
        self.pages = pages

    @property
    def used_pages(self) -> int:
        assert isinstance(self.guest.memory, SharedPages)
        return self.pages - self.guest.memory.free_pages


@pytest.fixture
async def bench():
    return Bench(Deadlines())


@pytest.fixture
async def hasty():
    return Bench(SHORT)


# --- requests ------------------------------------------------------------------------------------------------------
async def test_a_request_is_handed_over_with_its_status_and_payload(bench):
    task = asyncio.create_task(bench.services.wait_for_request())
    call = await bench.vmm.next(MigTdLeaf.WAIT_FOR_REQUEST)
    assert (call.size, call.vector) == (4096, 0x50)
    bench.vmm.answer(call, SUCCESS | 4 << 8, bytes(16))
    assert await task == (SUCCESS | 4 << 8, bytes(16))
    assert bench.used_pages == RESERVE


async def test_an_interrupt_without_a_request_leaves_the_wait_pending(bench):
    task = asyncio.create_task(bench.services.wait_for_request())
    call = await bench.vmm.next(MigTdLeaf.WAIT_FOR_REQUEST)
    bench.vmm.interrupt(0x50)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()
    bench.vmm.answer(call, SUCCESS | 3 << 8, bytes(8))
    assert (await task)[1] == bytes(8)


async def test_a_cancelled_wait_loses_no_request(bench):
    task = asyncio.create_task(bench.services.wait_for_request())
    call = await bench.vmm.next(MigTdLeaf.WAIT_FOR_REQUEST)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    bench.vmm.answer(call, SUCCESS | 3 << 8, b"12345678")
    assert await bench.services.wait_for_request() == (SUCCESS | 3 << 8, b"12345678")
    assert bench.used_pages == RESERVE


async def test_a_request_longer_than_its_buffer_gives_no_more_than_the_buffer(bench):
    bench.vmm.at_once = lambda call: bench.vmm.answer(call, SUCCESS | 4 << 8, length=0xFFFFFFFF)
    assert await bench.services.wait_for_request() == (SUCCESS | 4 << 8, bytes(4096 - 12))


async def test_a_length_without_a_status_is_an_answer(bench):
    bench.vmm.at_once = lambda call: bench.vmm.answer(call, 0, length=56)
    assert await bench.services.wait_for_request() == (0, bytes(56))


async def test_an_answer_that_is_being_written_is_seen_whole(bench):
    def half_written(call):
        bench.vmm.write(call, 0, b"12345678")
        bench.vmm.on_tdcall = lambda: bench.vmm.write(call, SUCCESS | 3 << 8, b"12345678")

    bench.vmm.at_once = half_written
    assert await bench.services.wait_for_request() == (SUCCESS | 3 << 8, b"12345678")


async def test_a_refused_wait_for_request_is_reported_and_leaves_no_buffer(bench):
    bench.vmm.refuse_with = TDG_VP_VMCALL_INVALID_OPERAND
    with pytest.raises(InvalidParameter) as caught:
        await bench.services.wait_for_request()
    assert caught.value.kind is failures.VMCALL_REFUSED
    assert bench.used_pages == 0


async def test_a_lost_host_ends_every_wait(bench):
    tasks = [
        asyncio.create_task(bench.services.wait_for_request()),
        asyncio.create_task(bench.services.receive(ID)),
        asyncio.create_task(bench.services.send(ID, b"x")),
        asyncio.create_task(bench.services.report_status(8, MigrationResult.Success)),
    ]
    for _ in tasks:
        await asyncio.sleep(0)
    bench.vmm.lose()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, VmmInternalError)
        assert result.kind is failures.CHANNEL_LOST


# --- reports -------------------------------------------------------------------------------------------------------
async def test_a_report_carries_result_and_data_and_returns_when_acknowledged(bench):
    task = asyncio.create_task(bench.services.report_status(ID, MigrationResult.NetworkError, b"data"))
    call = await bench.vmm.next(MigTdLeaf.REPORT_STATUS)
    assert (call.registers.r13, call.registers.r14, call.vector) == (ID, 1 | 5 << 8, 0x50)
    assert bench.vmm.payload(call) == b"data"
    assert not task.done()
    bench.vmm.answer(call)
    await task
    assert bench.used_pages == 0
    assert not bench.observer.notes


async def test_a_report_that_nobody_acknowledges_does_not_hang_and_is_noted(hasty):
    await hasty.services.report_status(ID, MigrationResult.Success)
    assert "acknowledge" in hasty.observer.notes[ID][0]


async def test_a_report_buffer_is_not_given_back_before_the_late_acknowledgement(hasty):
    await hasty.services.report_status(ID, MigrationResult.Success)
    assert hasty.used_pages == 1
    hasty.vmm.answer(hasty.vmm.open[0])
    hasty.vmm.at_once = hasty.vmm.answer
    await hasty.services.send(8, b"x")
    assert hasty.used_pages == 0


async def test_a_refused_report_is_an_error_and_leaves_no_buffer(bench):
    bench.vmm.refuse_with = TDG_VP_VMCALL_INVALID_OPERAND
    with pytest.raises(InvalidParameter):
        await bench.services.report_status(ID, MigrationResult.Success)
    assert bench.used_pages == 0


async def test_an_answer_larger_than_a_page_is_reported_whole(bench):
    data = bytes(range(256)) * 40
    task = asyncio.create_task(bench.services.report_status(ID, MigrationResult.Success, data))
    call = await bench.vmm.next(MigTdLeaf.REPORT_STATUS)
    assert bench.vmm.payload(call) == data
    bench.vmm.answer(call)
    await task


async def test_a_report_waits_for_shared_memory_that_another_request_holds():
    bench = Bench(Deadlines(), pages=16)
    receiving = asyncio.create_task(bench.services.receive(ID))
    call = await bench.vmm.next(MigTdLeaf.RECEIVE)
    reporting = asyncio.create_task(bench.services.report_status(8, MigrationResult.OutOfResource))
    await asyncio.sleep(0)
    assert len(bench.vmm.open) == 1
    bench.vmm.answer(call, SUCCESS, b"data")
    assert await receiving == b"data"
    bench.vmm.answer(await bench.vmm.next(MigTdLeaf.REPORT_STATUS))
    await reporting


async def test_a_report_without_shared_memory_ends_in_out_of_resource():
    bench = Bench(SHORT, pages=1)
    bench.guest.memory.allocate(1)
    with pytest.raises(OutOfResource):
        await bench.services.report_status(ID, MigrationResult.Success)


# --- sending -------------------------------------------------------------------------------------------------------
async def test_a_send_carries_the_data_and_returns_when_the_vmm_took_it(bench):
    task = asyncio.create_task(bench.services.send(ID, b"hello"))
    call = await bench.vmm.next(MigTdLeaf.SEND)
    assert (call.registers.r13, call.vector) == (ID, 0x52)
    assert bench.vmm.payload(call) == b"hello"
    bench.vmm.answer(call)
    await task
    assert bench.used_pages == 0


async def test_long_data_is_cut_into_sends_of_the_largest_size(bench):
    data = bytes(range(256)) * 600
    sent = []

    def take(call):
        sent.append(bench.vmm.payload(call))
        assert call.size <= 65536
        bench.vmm.answer(call)

    bench.vmm.at_once = take
    await bench.services.send(ID, data)
    assert b"".join(sent) == data
    assert [len(each) for each in sent] == [MAX_SEND, MAX_SEND, len(data) - 2 * MAX_SEND]


async def test_no_data_makes_no_send(bench):
    await bench.services.send(ID, b"")
    assert not bench.vmm.open


@pytest.mark.parametrize(
    ("status", "length", "error", "kind"),
    [
        (PEER_GONE, 0, NetworkError, failures.TRANSPORT_ENDED),
        (CANCELED, 0, VmmCanceled, failures.CANCELED),
        (CANCELED, 1, VmmCanceled, failures.CANCELED),
        (SUCCESS, 0xFFFFFFFF, NetworkError, failures.TRANSPORT_MALFORMED),
    ],
)
async def test_a_failed_send_is_a_typed_error(bench, status, length, error, kind):
    bench.vmm.at_once = lambda call: bench.vmm.answer(call, status, length=length)
    with pytest.raises(error) as caught:
        await bench.services.send(ID, b"x")
    assert caught.value.kind is kind
    assert bench.used_pages == 0


@pytest.mark.parametrize("method", ["send", "receive"])
async def test_a_transport_that_could_not_be_opened_is_invalid_parameter(bench, method):
    bench.vmm.refuse_with = TDG_VP_VMCALL_INVALID_OPERAND
    with pytest.raises(InvalidParameter) as caught:
        await (bench.services.send(ID, b"x") if method == "send" else bench.services.receive(ID))
    assert caught.value.kind is failures.TRANSPORT_SETUP_FAILED
    assert bench.used_pages == 0


async def test_a_send_that_is_not_taken_runs_into_the_write_deadline(hasty):
    with pytest.raises(NetworkError) as caught:
        await hasty.services.send(ID, b"x")
    assert caught.value.kind is failures.DEADLINE_WRITE


async def test_a_buffer_of_a_timed_out_send_is_kept_until_its_request_ended(hasty):
    with pytest.raises(NetworkError):
        await hasty.services.send(ID, b"x")
    assert hasty.used_pages == 1
    hasty.vmm.at_once = hasty.vmm.answer
    await hasty.services.report_status(8, MigrationResult.Success)
    assert hasty.used_pages == 1
    await hasty.services.report_status(ID, MigrationResult.NetworkError)
    assert hasty.used_pages == 0


# --- receiving -----------------------------------------------------------------------------------------------------
async def test_a_receive_gives_what_the_vmm_put_into_the_buffer(bench):
    task = asyncio.create_task(bench.services.receive(ID))
    call = await bench.vmm.next(MigTdLeaf.RECEIVE)
    assert (call.registers.r13, call.size, call.vector) == (ID, 65536, 0x52)
    bench.vmm.answer(call, SUCCESS, b"hello")
    assert await task == b"hello"
    assert bench.used_pages == 0


async def test_a_receive_takes_a_full_buffer(bench):
    data = b"\xa5" * MAX_SEND
    bench.vmm.at_once = lambda call: bench.vmm.answer(call, SUCCESS, data)
    assert await bench.services.receive(ID) == data


async def test_a_gone_peer_is_the_end_of_the_stream(bench):
    bench.vmm.at_once = lambda call: bench.vmm.answer(call, PEER_GONE)
    assert await bench.services.receive(ID) == b""
    assert bench.used_pages == 0


@pytest.mark.parametrize(
    ("status", "length", "error", "kind"),
    [
        (CANCELED, 0, VmmCanceled, failures.CANCELED),
        (SUCCESS, 0, NetworkError, failures.TRANSPORT_MALFORMED),
        (SUCCESS, MAX_SEND + 1, NetworkError, failures.TRANSPORT_MALFORMED),
    ],
)
async def test_a_failed_receive_is_a_typed_error(bench, status, length, error, kind):
    bench.vmm.at_once = lambda call: bench.vmm.answer(call, status, length=length)
    with pytest.raises(error) as caught:
        await bench.services.receive(ID)
    assert caught.value.kind is kind
    assert bench.used_pages == 0


@pytest.mark.parametrize(("status", "length"), [(0, 5), (3, 0), (2, 0), (2 | 2 << 8, 0), (PEER_GONE, 5), (1 << 8, 0)])
async def test_other_statuses_mean_not_finished_yet(bench, status, length):
    task = asyncio.create_task(bench.services.receive(ID))
    call = await bench.vmm.next(MigTdLeaf.RECEIVE)
    bench.vmm.write(call, status, length=length)
    bench.vmm.interrupt(call.vector)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()
    bench.vmm.answer(call, SUCCESS, b"data")
    assert await task == b"data"


async def test_a_silent_peer_runs_into_the_read_deadline(hasty):
    with pytest.raises(NetworkError) as caught:
        await hasty.services.receive(ID)
    assert caught.value.kind is failures.DEADLINE_READ


async def test_data_that_came_after_a_cancelled_receive_is_read_by_the_next(bench):
    task = asyncio.create_task(bench.services.receive(ID))
    call = await bench.vmm.next(MigTdLeaf.RECEIVE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    bench.vmm.answer(call, SUCCESS, b"late")
    assert await bench.services.receive(ID) == b"late"
    assert not bench.vmm.open


async def test_a_new_request_with_an_old_id_does_not_read_the_old_stream(hasty):
    with pytest.raises(NetworkError):
        await hasty.services.receive(ID)
    await hasty.services.report_status(ID, MigrationResult.NetworkError)
    old = hasty.vmm.open[0]
    hasty.vmm.write(old, SUCCESS, b"old")
    hasty.vmm.at_once = lambda call: hasty.vmm.answer(call, SUCCESS, b"new")
    assert await hasty.services.receive(ID) == b"new"


async def test_an_unacknowledged_report_keeps_the_buffers_of_its_request(hasty):
    with pytest.raises(NetworkError):
        await hasty.services.receive(ID)
    await hasty.services.report_status(ID, MigrationResult.NetworkError)
    assert hasty.used_pages == 16 + 1


async def test_many_sessions_wait_on_one_vector_and_each_gets_its_own_data():
    bench = Bench(Deadlines(), pages=16 * 256)
    tasks = {request_id: asyncio.create_task(bench.services.receive(request_id)) for request_id in range(256)}
    calls = [await bench.vmm.next(MigTdLeaf.RECEIVE) for _ in tasks]
    for call in reversed(calls):
        bench.vmm.answer(call, SUCCESS, b"for %d" % call.registers.r13)
        await asyncio.sleep(0)
    for request_id, task in tasks.items():
        assert await task == b"for %d" % request_id
    assert bench.used_pages == 0
