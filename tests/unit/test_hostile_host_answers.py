# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Hosts that lie in their answers, say nothing, or interrupt when nothing happened (ghci-ratls.md 2 and 3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from migtd.deadlines import Deadlines
from migtd.errors import MigrationResult
from migtd.guest.abi import (
    PAGE_SIZE,
    TDG_VP_VMCALL_ALIGN_ERROR,
    TDG_VP_VMCALL_GPA_INUSE,
    TDG_VP_VMCALL_INVALID_OPERAND,
    TDG_VP_VMCALL_RETRY,
    TRANSPORT_VECTOR,
    VMCALL_SERVICE_VECTOR,
)
from migtd.guest.channel import Registers
from migtd.guest.configuration import FileConfiguration
from migtd.guest.emulated import emulated_guest
from migtd.guest.ghci import MAX_SEND, GetTdReport
from migtd.guest.services import GhciServices
from migtd.migration.driver import PORTION
from migtd.migration.session import SessionContext
from migtd.testing_loop import run_in_virtual_time
from migtd.testing_session import InsecurePlainSession, InsecurePlainSessions
from vmm_stub.testing_hostile import CANCELED, PEER_GONE, GuestCall, ScriptedHost
from vmm_stub.testing_pair import N, migrate, scripted_pair, scripted_side
from vmm_stub.testing_td import until

SUCCESS = MigrationResult.Success
IMPATIENT = Deadlines(read=20, write=20)
REFUSALS = (
    TDG_VP_VMCALL_RETRY,
    TDG_VP_VMCALL_INVALID_OPERAND,
    TDG_VP_VMCALL_GPA_INUSE,
    TDG_VP_VMCALL_ALIGN_ERROR,
    0xFFFFFFFFFFFFFFFF,
)
ROLES = ("source", "destination")
BOTH_ROLES = pytest.mark.parametrize("role", ROLES)

Answer = Callable[[GuestCall], int]


def at_call(index: int, special: Answer, ordinary: Answer) -> Answer:
    """The call with this index, counted from 0, is answered otherwise than all the others."""
    made = []

    def serve(call: GuestCall) -> int:
        made.append(call)
        return special(call) if len(made) - 1 == index else ordinary(call)

    return serve


def answering(status: int, payload: bytes = b"", length: int | None = None) -> Answer:
    def serve(call: GuestCall) -> int:
        call.answer(status, payload, length)
        return 0

    return serve


def never(_call: GuestCall) -> int:
    return 0


async def expect_end(
    role: str, prepare: Callable[[ScriptedHost], None], result: MigrationResult, identity: str
) -> None:
    """One side's host misbehaves: that side ends so and takes no key, and the MigTD goes on serving.

    The other side's host is honest: it is done if it had all it needs before, and gets nothing otherwise.
    """
    host = ScriptedHost()
    prepare(host)
    async with scripted_pair(**{role: host}, deadlines=IMPATIENT) as (here, there):
        side, other = (here, there) if role == "source" else (there, here)
        await migrate(here, there)
        assert (await side.result(), side.error_ids()) == (result, [identity])
        side.expect_no_key()
        assert (await other.result() is SUCCESS) is (other.host.dec_key_writes == 4)
        for each in (here, there):
            each.expect_one_report_for_each_accepted_request()
        host.on_send, host.on_receive = host.deliver, host.keep_receive
        await side.still_serves()
        await side.at_rest()


# --- statuses and lengths ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize(
    ("payload", "length"), [(b"", 0), (b"", MAX_SEND + 1), (b"x", 1 << 31), (b"x", (1 << 32) - 1), (b"", 65_536)]
)
@BOTH_ROLES
def test_received_data_of_an_impossible_length_is_a_network_error(
    role: str, payload: bytes, length: int, index: int
) -> None:
    def prepare(host: ScriptedHost) -> None:
        host.on_receive = at_call(index, answering(1, payload, length), host.keep_receive)

    run_in_virtual_time(expect_end(role, prepare, MigrationResult.NetworkError, "MIGTD-TRANSPORT-MALFORMED"))


@pytest.mark.parametrize("length", [MAX_SEND + 1, (1 << 32) - 1])
@BOTH_ROLES
def test_a_send_that_took_more_than_there_was_is_a_network_error(role: str, length: int) -> None:
    def prepare(host: ScriptedHost) -> None:
        host.on_send = at_call(0, answering(1, b"", length), host.deliver)

    run_in_virtual_time(expect_end(role, prepare, MigrationResult.NetworkError, "MIGTD-TRANSPORT-MALFORMED"))


@pytest.mark.parametrize(
    ("status", "length"), [(3, 0), (0xFF, 5), (2, 0), (2 | 2 << 8, 0), (PEER_GONE, 1), (1 << 8, 0), (0, 100), (4, 1)]
)
@BOTH_ROLES
def test_a_status_that_means_nothing_is_no_answer_and_ends_at_the_read_deadline(
    role: str, status: int, length: int
) -> None:
    def prepare(host: ScriptedHost) -> None:
        host.on_receive = answering(status, b"", length)

    run_in_virtual_time(expect_end(role, prepare, MigrationResult.NetworkError, "MIGTD-DEADLINE-READ"))


@BOTH_ROLES
def test_a_status_that_means_nothing_yet_may_still_become_one(role: str) -> None:
    async def main() -> None:
        host = ScriptedHost()

        def receive(call: GuestCall) -> int:
            call.answer(3, b"not yet", 7)
            return host.keep_receive(call)

        host.on_receive = receive
        async with scripted_pair(**{role: host}) as sides:
            assert await migrate(*sides) == (SUCCESS, SUCCESS)

    run_in_virtual_time(main())


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("refusal", REFUSALS, ids=hex)
@pytest.mark.parametrize("what", ["on_send", "on_receive"])
@BOTH_ROLES
def test_a_refused_call_is_invalid_parameter(role: str, what: str, refusal: int, index: int) -> None:
    def prepare(host: ScriptedHost) -> None:
        setattr(host, what, at_call(index, lambda _: refusal, getattr(host, what)))

    result = MigrationResult.InvalidParameter
    run_in_virtual_time(expect_end(role, prepare, result, "MIGTD-TRANSPORT-SETUP-FAILED"))


@pytest.mark.parametrize("what", ["on_send", "on_receive"])
@pytest.mark.parametrize("index", [0, 1])
@BOTH_ROLES
def test_a_cancelled_call_ends_in_vmm_canceled(role: str, what: str, index: int) -> None:
    def prepare(host: ScriptedHost) -> None:
        setattr(host, what, at_call(index, answering(CANCELED), getattr(host, what)))

    run_in_virtual_time(expect_end(role, prepare, MigrationResult.VmmCanceled, "MIGTD-CANCELED"))


@pytest.mark.parametrize("index", [0, 1])
@BOTH_ROLES
def test_a_send_that_is_never_answered_ends_at_the_write_deadline(role: str, index: int) -> None:
    def prepare(host: ScriptedHost) -> None:
        host.on_send = at_call(index, never, host.deliver)

    run_in_virtual_time(expect_end(role, prepare, MigrationResult.NetworkError, "MIGTD-DEADLINE-WRITE"))


# --- interrupts ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("instead", [None, 0x51, 0x20, VMCALL_SERVICE_VECTOR])
@BOTH_ROLES
def test_answers_without_their_interrupt_are_not_found_and_end_at_a_deadline(role: str, instead: int | None) -> None:
    def prepare(host: ScriptedHost) -> None:
        def interrupt(vector: int) -> None:
            if vector == TRANSPORT_VECTOR:
                vector = 0 if instead is None else instead
            host.fire(vector)

        host.interrupt = interrupt  # type: ignore[method-assign]

    async def main() -> None:
        host = ScriptedHost()
        prepare(host)
        async with scripted_pair(**{role: host}, deadlines=IMPATIENT) as (here, there):
            side = here if role == "source" else there
            await migrate(here, there)
            # What is there when the guest looks needs no interrupt: so it may get as far as its first wait.
            assert await side.result() is MigrationResult.NetworkError
            assert side.error_ids()[0].startswith("MIGTD-DEADLINE-")
            side.expect_no_key()
            await side.still_serves()
            await side.at_rest()

    run_in_virtual_time(main())


def test_a_request_without_its_interrupt_is_served_at_the_next_one() -> None:
    async def main() -> None:
        async with scripted_side() as side:
            assert side.host.waiting is not None
            side.host.waiting.write(1 | 3 << 8, (9).to_bytes(8, "little"))
            side.host.waiting = None
            await asyncio.sleep(100)
            assert not side.host.reports
            side.host.interrupt(VMCALL_SERVICE_VECTOR)
            assert await side.result(9) is SUCCESS

    run_in_virtual_time(main())


@BOTH_ROLES
def test_interrupts_on_every_vector_at_every_call_change_nothing(role: str) -> None:
    async def main() -> None:
        host = ScriptedHost()

        def fire_all(_: Registers) -> None:
            for vector in (*range(256), TRANSPORT_VECTOR):
                host.fire(vector)

        host.on_call = fire_all
        async with scripted_pair(**{role: host}) as sides:
            assert await migrate(*sides) == (SUCCESS, SUCCESS)
            for side in sides:
                side.expect_one_report_for_each_accepted_request()
                await side.at_rest()

    run_in_virtual_time(main())


@BOTH_ROLES
def test_a_host_that_always_has_data_at_once_stops_neither_the_deadline_nor_other_requests(role: str) -> None:
    """In real time: a MigTD that never came up for air would not see its own deadline."""

    async def main() -> None:
        host = ScriptedHost()
        limits = Deadlines(session=0.3)
        first = b"E" + b"\xff" * 4

        def receive(call: GuestCall) -> int:
            nonlocal first
            call.answer(1, first + b"x")
            first = b""
            return 0

        host.on_receive = receive
        async with scripted_side(host, session=InsecurePlainSessions(), deadlines=limits) as side:
            side.start(is_source=role == "source")
            await until(lambda: not first)
            await side.still_serves()
            assert not host.reports_of(N)
            assert await side.result() is MigrationResult.NetworkError
            assert side.error_ids() == ["MIGTD-DEADLINE-SESSION"]
            await side.at_rest()

    asyncio.run(main())


def test_much_data_at_once_is_taken_in_portions_so_that_other_requests_get_their_turn() -> None:
    taken: list[int] = []

    class Watched(InsecurePlainSession):
        def receive_data(self, data: bytes) -> None:
            taken.append(len(data))
            super().receive_data(data)

    class Sessions(InsecurePlainSessions):
        def __call__(self, context: SessionContext) -> InsecurePlainSession:
            return Watched(context)

    async def main() -> None:
        async with scripted_side(session=Sessions()) as side:
            side.host.feed(N, (b"E" + b"\xff" * 4).ljust(MAX_SEND, b"x"))
            side.start(is_source=True)
            await until(lambda: taken)
            await side.still_serves()
            assert sum(taken) < MAX_SEND
            side.host.feed(N, b"", PEER_GONE)
            assert await side.result() is MigrationResult.NetworkError
            assert sum(taken) == MAX_SEND
            assert max(taken) <= PORTION

    run_in_virtual_time(main())


# --- reports -------------------------------------------------------------------------------------------------------
def test_reports_that_are_never_acknowledged_hold_up_nobody_and_cost_a_page_each_until_they_are() -> None:
    count = 20

    async def main() -> None:
        host = ScriptedHost()
        late: list[GuestCall] = []

        def keep(call: GuestCall) -> int:
            late.append(call)
            return 0

        host.on_report = keep
        async with scripted_side(host) as side:
            for number in range(count):
                host.put(GetTdReport(number))
            for number in range(count):
                assert await side.result(number) is SUCCESS
            await asyncio.sleep(Deadlines().report + 1)
            assert side.td.pages.free_pages == side.rest - count
            assert all("did not acknowledge" in note for notes in side.observer.notes.values() for note in notes)
            host.on_report = host.acknowledge
            await side.still_serves()
            for call in late:
                call.answer()
            await side.at_rest()
            side.expect_one_report_for_each_accepted_request()

    run_in_virtual_time(main())


@pytest.mark.parametrize("refusal", REFUSALS, ids=hex)
def test_a_refused_report_is_not_made_again(refusal: int) -> None:
    async def main() -> None:
        host = ScriptedHost()
        host.on_report = at_call(0, lambda _: refusal, host.acknowledge)
        async with scripted_side(host) as side:
            host.put(GetTdReport(1))
            assert await side.result(1) is SUCCESS
            await side.still_serves()
            side.expect_one_report_for_each_accepted_request()
            assert "MIGTD-VMCALL-REFUSED" in side.observer.notes[1][0]
            await side.at_rest()

    run_in_virtual_time(main())


def test_a_report_without_memory_is_made_once_an_old_one_is_acknowledged_after_all() -> None:
    """Nobody waits for the old report any more, and still its answer is noticed."""

    async def main() -> None:
        # WaitForRequest, the reserve, and one page for a report
        host = ScriptedHost(memory=memoryview(bytearray(3 * PAGE_SIZE)))
        calls: list[GuestCall] = []

        def keep(call: GuestCall) -> int:
            calls.append(call)
            return 0

        host.on_report = keep
        services = GhciServices(emulated_guest(host, FileConfiguration()), Deadlines(report=10))
        tasks: list[asyncio.Task[object]] = [asyncio.create_task(services.wait_for_request())]
        await until(lambda: host.waiting)
        await services.report_status(1, SUCCESS)
        tasks += [asyncio.create_task(services.report_status(number, SUCCESS)) for number in (2, 3)]
        await asyncio.sleep(5)
        assert [call.request_id for call in calls] == [1, 2]
        calls[0].answer()
        await until(lambda: [call.request_id for call in calls] == [1, 2, 3])
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    run_in_virtual_time(main())
