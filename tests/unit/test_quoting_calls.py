# SPDX-License-Identifier: BSD-2-Clause-Patent
"""GetQuote from the host's side: which buffers are taken, and what is written into them (policy.md 4.6)."""

import struct

import pytest

from migtd.guest.abi import (
    SHARED_BIT,
    TDG_VP_VMCALL_ALIGN_ERROR,
    TDG_VP_VMCALL_GPA_INUSE,
    TDG_VP_VMCALL_INVALID_OPERAND,
    VmCallLeaf,
)
from migtd.guest.channel import Registers
from migtd.guest.quote_messages import CollateralRequest, push_request
from vmm_stub.quoting.service import LabQuoting, StagedQuoting
from vmm_stub.testing import MIGTD, SMALL_MEMORY
from vmm_stub.testing_quoting import machine, quoting_vmm
from vmm_stub.vmm.in_process import InProcessChannel

PAGE = 4096
OWN = machine()
ERROR, IN_FLIGHT, SUCCESS = 0x8000000000000000, 0xFFFFFFFFFFFFFFFF, 0
REPORT = OWN.report()


class Td:
    """A TD whose calls are made by hand; `fired` are the interrupts that it got before anybody listened."""

    def __init__(self, quoting=None):
        self.vmm = quoting_vmm(OWN, quoting)
        self.channel = InProcessChannel(self.vmm.migtd(MIGTD))
        self.memory = self.channel.shared_memory

    @property
    def fired(self):
        return list(self.channel._early)

    def put(self, request, *, at=0, version=1, in_len=None):
        head = struct.pack("<QQII", version, 0, len(request) if in_len is None else in_len, 0)
        self.memory[at : at + 24 + len(request)] = head + request

    def call(self, at=0, size=4 * PAGE):
        return self.channel.call(Registers(r11=VmCallLeaf.GET_QUOTE, r12=SHARED_BIT | at, r13=size))[0].r10

    def header(self, at=0):
        return struct.unpack("<QQII", self.memory[at : at + 24])

    def listen(self, vector=0x51):
        leaf = VmCallLeaf.SETUP_EVENT_NOTIFY_INTERRUPT
        return self.channel.call(Registers(r11=leaf, r12=vector))[0].r10


def held():
    return StagedQuoting(LabQuoting(OWN.material, lambda: OWN.platform), hold=True)


async def test_the_answer_stands_in_the_buffer_with_its_length():
    td = Td()
    td.put(REPORT)
    assert td.call() == 0
    version, status, in_len, out_len = td.header()
    assert (version, status, in_len, out_len) == (1, SUCCESS, 1024, len(OWN.quote()))
    assert bytes(td.memory[24 : 24 + out_len]) == OWN.quote(report=REPORT)


async def test_the_vector_fires_when_the_answer_is_there_and_not_before():
    service = held()
    td = Td(service)
    assert td.listen() == 0
    td.put(REPORT)
    assert td.call() == 0
    assert td.header()[1] == IN_FLIGHT
    assert td.fired == []
    service.release()
    assert td.header()[1] == SUCCESS
    assert td.fired == [0x51]


async def test_without_a_vector_nothing_fires():
    td = Td()
    td.put(REPORT)
    td.call()
    assert td.header()[1] == SUCCESS
    assert td.fired == []


@pytest.mark.parametrize("vector", [1, 31, 256])
async def test_an_impossible_vector_is_refused(vector):
    assert Td().listen(vector) == TDG_VP_VMCALL_INVALID_OPERAND


@pytest.mark.parametrize(
    ("header", "at", "size", "status"),
    [
        ({"in_len": 0}, 0, PAGE, TDG_VP_VMCALL_INVALID_OPERAND),
        ({"in_len": PAGE - 23}, 0, PAGE, TDG_VP_VMCALL_INVALID_OPERAND),
        ({"in_len": 0xFFFFFFFF}, 0, PAGE, TDG_VP_VMCALL_INVALID_OPERAND),
        ({"version": 0}, 0, PAGE, TDG_VP_VMCALL_INVALID_OPERAND),
        ({"version": 2}, 0, PAGE, TDG_VP_VMCALL_INVALID_OPERAND),
        ({}, 0, 23, TDG_VP_VMCALL_INVALID_OPERAND),
        ({}, 16, PAGE, TDG_VP_VMCALL_ALIGN_ERROR),
        ({}, 0, SMALL_MEMORY + 1, TDG_VP_VMCALL_INVALID_OPERAND),
        ({}, SMALL_MEMORY, PAGE, TDG_VP_VMCALL_INVALID_OPERAND),
    ],
)
async def test_a_buffer_that_cannot_be_is_refused_and_left_as_it_is(header, at, size, status):
    td = Td()
    td.listen()
    td.put(REPORT, **header)
    before = bytes(td.memory[:PAGE])
    assert td.call(at, size) == status
    assert bytes(td.memory[:PAGE]) == before
    assert td.fired == []


async def test_a_buffer_in_flight_belongs_to_the_host():
    service = held()
    td = Td(service)
    td.put(REPORT, at=PAGE)
    assert td.call(PAGE, 4 * PAGE) == 0
    td.put(REPORT)
    for at, size in ((PAGE, 4 * PAGE), (0, 2 * PAGE), (4 * PAGE, PAGE)):
        assert td.call(at, size) == TDG_VP_VMCALL_GPA_INUSE
    td.put(REPORT, at=5 * PAGE)
    assert td.call(5 * PAGE, 3 * PAGE) == 0
    service.release()
    td.put(REPORT, at=PAGE)
    assert td.call(PAGE, 4 * PAGE) == 0


async def test_an_answer_that_does_not_fit_is_an_error():
    td = Td()
    td.put(push_request(CollateralRequest()))
    assert td.call(size=PAGE) == 0
    assert td.header() == (1, ERROR, 28, 0)
    assert any(b"VMM-QUOTING-ANSWER-TOO-LARGE" in line for line in td.vmm.history.read(limit=1000))


async def test_a_request_of_no_form_is_an_error_and_the_history_says_so():
    td = Td()
    td.listen()
    td.put(bytes(1023))
    assert td.call() == 0
    assert td.header() == (1, ERROR, 1023, 0)
    assert td.fired == [0x51]
    assert any(b"VMM-QUOTING-REQUEST" in line for line in td.vmm.history.read(limit=1000))


async def test_the_host_may_get_its_service_later():
    td = Td()
    service, td.vmm.quoting = td.vmm.quoting, None
    td.put(REPORT)
    td.call()
    assert td.header()[1] == ERROR
    td.vmm.quoting = service
    td.put(REPORT)
    td.call()
    assert td.header()[1] == SUCCESS


async def test_an_answer_for_a_td_that_ended_goes_nowhere():
    service = held()
    td = Td(service)
    td.put(REPORT)
    td.call()
    td.channel.close()
    service.release()
    assert td.header()[1] == IN_FLIGHT
