# SPDX-License-Identifier: BSD-2-Clause-Patent
"""GetQuote from the guest's side, against the real host: quotes, collateral, busy, in flight, and a host that lies."""

import asyncio
import struct
from functools import partial
from typing import Any, cast

import pytest

from migtd import failures
from migtd.attestation.get_quote import QuoteClient, QuoteRetry, fetch_collateral, fetch_quote
from migtd.attestation.quote.verify import verify_quote
from migtd.errors import MutualAttestationError, OutOfResource, VmmInternalError
from migtd.guest.quote_messages import QuoteForm, QuoteStatus, push_quote_answer
from vmm_stub.quoting.captured import CapturedQuoting
from vmm_stub.quoting.material import push_material
from vmm_stub.quoting.service import LabQuoting, StagedQuoting
from vmm_stub.quoting.settings import PlatformSettings
from vmm_stub.testing import ScriptedGuest, quiet_vmm
from vmm_stub.testing_quoting import PKI, REPORT_DATA, machine, quoting_vmm
from vmm_stub.testing_td import until
from vmm_stub.vmm.control.models import LabQuotingConfig

OTHER = PlatformSettings(machine="other", fmspc=b"FMSPC!")
OWN = machine(others=[OTHER])
FORMS = list(QuoteForm)


def lab_quoting():
    return LabQuoting(OWN.material, lambda: OWN.platform)


class Side:
    """A guest with a quote client on a host with some quoting service; it never waits for real."""

    def __init__(self, quoting=None, retry=None):
        self.vmm = quoting_vmm(OWN, quoting)
        self.scripted = ScriptedGuest(self.vmm)
        self.guest = cast("Any", self.scripted.guest)
        self.slept = []
        self.reports = []
        self.client = QuoteClient(self.guest, retry, sleep=self.sleep)
        self.free_pages = self.guest.memory.free_pages

    async def sleep(self, seconds):
        self.slept.append(seconds)

    def report(self):
        data = len(self.reports).to_bytes(64, "big")
        self.reports.append(self.guest.tdcall.mr_report(data))
        return self.reports[-1]

    @property
    def leaked(self):
        return self.free_pages - self.guest.memory.free_pages


class Answers:
    """A quoting service that gives one answer, whatever it is asked."""

    def __init__(self, data, status=QuoteStatus.SUCCESS):
        self.data, self.status = data, status

    def get_quote(self, _request, answered):
        answered(self.status, self.data)


async def refusal(asking):
    with pytest.raises(MutualAttestationError) as refused:
        await asking
    return refused.value


@pytest.mark.parametrize("form", FORMS)
async def test_a_quote_carries_the_report_data_and_verifies(form):
    side = Side()
    quote = await side.client.quote(lambda: side.guest.tdcall.mr_report(REPORT_DATA), form)
    collateral = await side.client.collateral()
    assert verify_quote(quote, PKI.root_key, collateral).record[520:584] == REPORT_DATA
    assert collateral == OWN.material.collateral
    assert side.leaked == 0


async def test_single_calls_need_no_client():
    side = Side()
    quote = await fetch_quote(side.guest, side.report)
    assert verify_quote(quote, PKI.root_key, await fetch_collateral(side.guest)).fmspc == b"MLAB\0\0"


async def test_collateral_of_a_named_platform_is_that_platforms_if_the_host_has_it():
    side = Side()
    assert await side.client.collateral(OTHER.fmspc) == OWN.material.collateral_for(OTHER.fmspc.hex().upper())
    assert await side.client.collateral(bytes(6)) == OWN.material.collateral
    assert side.client.collateral_at_once(OTHER.fmspc) == await side.client.collateral(OTHER.fmspc)


async def test_five_failures_are_asked_again_each_time_with_a_new_report():
    side = Side(StagedQuoting(lab_quoting(), failures=5))
    quote = await side.client.quote(side.report)
    assert verify_quote(quote, PKI.root_key, OWN.material.collateral).record[520:584] == (5).to_bytes(64, "big")
    assert side.slept == [0.02, 0.04, 0.08, 0.16, 0.32]
    assert len(side.reports) == 6
    assert side.leaked == 0


async def test_the_sixth_failure_is_the_last():
    service = StagedQuoting(lab_quoting(), failures=6)
    side = Side(service)
    error = await refusal(side.client.quote(side.report))
    assert (error.kind, error.detail) == (failures.GET_QUOTE_BUSY, "6 attempts")
    assert service.calls == 6
    assert side.leaked == 0


async def test_how_often_and_how_fast_to_ask_again_is_a_setting():
    side = Side(StagedQuoting(lab_quoting(), failures=9), QuoteRetry(retries=2, first_delay=1))
    assert (await refusal(side.client.collateral())).detail == "3 attempts"
    assert side.slept == [1, 2]


async def test_a_host_without_quoting_is_busy_for_ever():
    vmm = quiet_vmm()
    guest = ScriptedGuest(vmm).guest
    client = QuoteClient(guest, QuoteRetry(retries=0))
    assert (await refusal(client.collateral())).kind is failures.GET_QUOTE_BUSY


async def test_an_answer_in_flight_is_waited_for():
    service = StagedQuoting(lab_quoting(), hold=True)
    side = Side(service)
    asking = asyncio.create_task(side.client.quote(side.report))
    await until(lambda: service.calls)
    # an interrupt of nothing: the buffer is looked at, and waited for again
    side.guest.interrupts.fire(0x51)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not asking.done()
    service.release()
    assert verify_quote(await asking, PKI.root_key, OWN.material.collateral).record[520:584] == bytes(64)
    assert side.leaked == 0


async def test_callers_at_the_same_time_each_get_their_own():
    service = StagedQuoting(lab_quoting(), hold=True)
    side = Side(service)
    data = [bytes([number]) * 64 for number in range(8)]
    asking: list[asyncio.Task[Any]] = [
        asyncio.create_task(side.client.quote(partial(side.guest.tdcall.mr_report, each), form))
        for each, form in zip(data, FORMS * 4, strict=True)
    ]
    asking.append(asyncio.create_task(side.client.collateral()))
    await until(lambda: service.calls == 9)
    service.release()
    *quotes, collateral = await asyncio.gather(*asking)
    assert [verify_quote(quote, PKI.root_key, collateral).record[520:584] for quote in quotes] == data
    assert side.leaked == 0


async def test_an_answer_that_does_not_come_ends_at_the_deadline_and_its_buffer_is_kept_until_it_does():
    service = StagedQuoting(lab_quoting(), hold=True)
    side = Side(service, QuoteRetry(deadline=0.01))
    assert (await refusal(side.client.quote(side.report))).kind is failures.DEADLINE_QUOTE
    assert side.leaked == 4
    service.release()
    await side.client.collateral()
    assert side.leaked == 0


async def test_a_caller_that_gives_up_leaves_the_buffer_to_the_host():
    service = StagedQuoting(lab_quoting(), hold=True)
    side = Side(service)
    asking = asyncio.create_task(side.client.quote(side.report))
    await until(lambda: service.calls)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert side.leaked == 4
    service.release()
    await side.client.collateral()
    assert side.leaked == 0


async def test_what_is_not_there_at_once_is_not_waited_for():
    side = Side(StagedQuoting(lab_quoting(), hold=True))
    with pytest.raises(MutualAttestationError) as refused:
        side.client.collateral_at_once(OTHER.fmspc)
    assert refused.value.kind is failures.DEADLINE_QUOTE
    busy = Side(StagedQuoting(lab_quoting(), failures=1))
    with pytest.raises(MutualAttestationError) as refused:
        busy.client.collateral_at_once(OTHER.fmspc)
    assert refused.value.kind is failures.GET_QUOTE_BUSY


async def test_a_report_of_another_machine_is_refused_for_good_and_the_host_says_why():
    side = Side()
    foreign = machine(machine="foreign").report()
    error = await refusal(side.client.quote(lambda: foreign))
    assert (error.kind, error.detail) == (failures.GET_QUOTE_REFUSED, "QGS error 0x12003")
    assert side.slept == []
    # form 1 has no room for more than the error status
    assert (await refusal(side.client.quote(lambda: foreign, QuoteForm.BARE))).kind is failures.GET_QUOTE_BUSY
    notes = [line for line in side.vmm.history.read(limit=1000) if b"VMM-QUOTING-REPORT-FOREIGN" in line]
    assert len(notes) == 7


@pytest.mark.parametrize("form", FORMS)
async def test_a_quote_ends_at_8192_bytes(form):
    def answer(quote):
        return Answers(quote if form is QuoteForm.BARE else push_quote_answer(quote))

    longest = bytes(8191) + b"\1"
    assert await Side(answer(longest)).client.quote(OWN.report, form) == longest
    error = await refusal(Side(answer(longest + b"\1")).client.quote(OWN.report, form))
    assert error.kind is failures.GET_QUOTE_TOO_LARGE
    assert (await refusal(Side(answer(b"")).client.quote(OWN.report, form))).kind is failures.GET_QUOTE_MALFORMED


@pytest.mark.parametrize("data", [b"", b"\0" * 24, push_quote_answer(b"q")[:-1], OWN.quote()])
async def test_an_answer_that_is_no_message_is_malformed(data):
    side = Side(Answers(data))
    assert (await refusal(side.client.quote(side.report))).kind is failures.GET_QUOTE_MALFORMED
    assert (await refusal(side.client.collateral())).kind is failures.GET_QUOTE_MALFORMED
    assert side.slept == []
    assert side.leaked == 0


@pytest.mark.parametrize(
    ("status", "length"), [(1, 0), (QuoteStatus.ERROR + 1, 0), (0, 16 * 1024 - 23), (0, 0xFFFFFFFF), (0xFF, 0)]
)
async def test_a_header_that_cannot_be_is_malformed(status, length):
    side = Side()
    buffers = []
    real = side.guest.vmcall.get_quote

    def lying(buffer):
        real(buffer)
        buffers.append(buffer)
        buffer.write(8, struct.pack("<Q", status))
        buffer.write(20, struct.pack("<I", length))

    side.guest.vmcall.get_quote = lying
    assert (await refusal(side.client.quote(side.report))).kind is failures.GET_QUOTE_MALFORMED
    assert len(buffers) == 1


async def test_a_host_becomes_the_machine_that_its_material_is_of():
    vmm = quiet_vmm(quoting=LabQuotingConfig(material=push_material(OWN.material), quote="v5-tdx-1.5"))
    guest = ScriptedGuest(vmm).guest
    quote = await fetch_quote(guest, lambda: guest.tdcall.mr_report(REPORT_DATA))
    assert quote[0] == 5
    verified = verify_quote(quote, PKI.root_key, await fetch_collateral(guest))
    assert verified.record[520:584] == REPORT_DATA
    assert verified.platform.sgx_components == vmm.tdx_module.platform.cpusvn


async def test_a_captured_quote_comes_whatever_the_report():
    side = Side(CapturedQuoting(OWN.quote(), OWN.material.collateral))
    assert await side.client.quote(side.report) == OWN.quote()
    assert await side.client.collateral() == OWN.material.collateral


async def test_without_shared_memory_there_is_no_quote_and_nothing_is_lost():
    side = Side()
    rest = side.guest.memory.allocate(side.free_pages * 4096)
    with pytest.raises(OutOfResource):
        await side.client.quote(side.report)
    rest.free()
    assert await side.client.quote(side.report)


async def test_a_host_that_ends_ends_the_wait():
    service = StagedQuoting(lab_quoting(), hold=True)
    side = Side(service)
    asking = asyncio.create_task(side.client.quote(side.report))
    await until(lambda: service.calls)
    side.guest.interrupts.lose()
    with pytest.raises(VmmInternalError) as lost:
        await asking
    assert lost.value.kind is failures.CHANNEL_LOST
    side.scripted.channel.close()
    # the TD is gone: what the service has for it reaches nobody
    service.release()
