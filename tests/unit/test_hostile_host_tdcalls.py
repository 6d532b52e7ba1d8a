# SPDX-License-Identifier: BSD-2-Clause-Patent
"""TDCALLs that fail at every index with every class of status, and values that no TDX module should give."""

from __future__ import annotations

import asyncio

import pytest

from migtd.errors import MigrationResult
from migtd.guest.abi import TDX_OPERAND_BUSY, TDX_OPERAND_INVALID, Field, MigTdLeaf, TdCallLeaf
from migtd.guest.channel import Registers
from migtd.guest.ghci import EnableLogArea, GetTdReport, pull_log_area_answer
from migtd.migration.data import VersionRange
from migtd.testing_loop import run_in_virtual_time
from vmm_stub.testing_hostile import ScriptedHost
from vmm_stub.testing_pair import N, ScriptedSide, migrate, scripted_pair, scripted_side
from vmm_stub.testing_td import until

SUCCESS = MigrationResult.Success
BOTH_ROLES = pytest.mark.parametrize("role", ["source", "destination"])
STATUSES = {
    "operand invalid": TDX_OPERAND_INVALID | 10,
    "operand busy": TDX_OPERAND_BUSY,
    "non-recoverable": 0xC0000B0A_00000000,
    "recoverable": 0x80000B0A_00000000,
    "warning": 0x00000B0A_00000000,
    "details only": 1,
    "all ones": 0xFFFFFFFF_FFFFFFFF,
}
CALLS_OF_A_MIGRATION = 12
CALLS_BEFORE_THE_SESSION = 6
"""2 versions and 4 key elements."""
FIRST_KEY_WRITE = 8
"""Behind these, SERVTD_ATTR and MIG_VERSION."""
CALLS_OF_A_START = {2: MigrationResult.InitializationError, 3: MigrationResult.TdxModuleError}
"""TDG.MR.RTMR.EXTEND and TDG.VP.INFO, by index behind the firmware's two, with what the MigTD says when they fail."""


def fail_call(host: ScriptedHost, index: int, status: int) -> None:
    """Let the TDCALL with this index from now on fail, and no other."""
    first = len(host.tdcalls)

    def refuse(_td: object, _registers: Registers) -> int | None:
        return status if len(host.tdcalls) - 1 - first == index else None

    host.status_of = refuse


def whole_key(host: ScriptedHost) -> bool:
    return host.tdcs().dec_key_fingerprint is not None


@pytest.mark.parametrize("status", STATUSES.values(), ids=STATUSES)
@pytest.mark.parametrize("index", range(CALLS_OF_A_MIGRATION))
@BOTH_ROLES
def test_a_tdcall_that_fails_anywhere_in_a_migration_is_one_tdx_module_error(
    role: str, index: int, status: int
) -> None:
    async def main() -> None:
        async with scripted_pair() as (here, there):
            side, other = (here, there) if role == "source" else (there, here)
            fail_call(side.host, index, status)
            await migrate(here, there)
            assert await side.result() is MigrationResult.TdxModuleError
            in_key = index >= FIRST_KEY_WRITE
            assert side.error_ids() == ["MIGTD-KEY-WRITE-FAILED" if in_key else "MIGTD-TDCALL-FAILED"]
            assert side.host.dec_key_writes == max(index - FIRST_KEY_WRITE, 0)
            assert not whole_key(side.host)
            # The other side has all it needs once the 40 bytes were sent, and otherwise sees the stream end.
            exchanged = index >= CALLS_BEFORE_THE_SESSION
            assert await other.result() is (SUCCESS if exchanged else MigrationResult.NetworkError)
            assert whole_key(other.host) is exchanged
            for each in (here, there):
                each.expect_one_report_for_each_accepted_request()
                await each.still_serves()
                await each.at_rest()

    run_in_virtual_time(main())


def test_there_are_no_more_tdcalls_in_a_migration_than_are_tested_here() -> None:
    async def main() -> None:
        async with scripted_pair() as (here, there):
            before = len(here.host.tdcalls)
            assert await migrate(here, there) == (SUCCESS, SUCCESS)
            assert len(here.host.tdcalls) - before == CALLS_OF_A_MIGRATION

    run_in_virtual_time(main())


@pytest.mark.parametrize("status", STATUSES.values(), ids=STATUSES)
@pytest.mark.parametrize(("index", "result"), CALLS_OF_A_START.items())
def test_a_tdcall_that_fails_at_the_start_ends_it_and_the_host_is_told(
    index: int, result: MigrationResult, status: int
) -> None:
    async def main() -> None:
        host = ScriptedHost()
        fail_call(host, index, status)
        host.put(GetTdReport(1))
        async with scripted_side(host) as side:
            assert not side.td.alive
            assert host.fatal == [result]
            assert not host.reports

    run_in_virtual_time(main())


def test_there_are_no_more_tdcalls_in_a_start_than_are_tested_here() -> None:
    async def main() -> None:
        async with scripted_side() as side:
            assert len(side.host.tdcalls) == max(CALLS_OF_A_START) + 1

    run_in_virtual_time(main())


@pytest.mark.parametrize("status", STATUSES.values(), ids=STATUSES)
def test_a_report_that_the_tdx_module_refuses_is_reported_as_that(status: int) -> None:
    async def main() -> None:
        async with scripted_side() as side:
            fail_call(side.host, 0, status)
            side.host.put(GetTdReport(1))
            report = await side.report(1)
            assert (report.result, report.data) == (MigrationResult.TdxModuleError, b"")
            await side.still_serves()

    run_in_virtual_time(main())


@pytest.mark.parametrize("status", STATUSES.values(), ids=STATUSES)
def test_the_call_that_orders_a_half_written_answer_may_fail(status: int) -> None:
    """A length without a status makes the guest look twice; what the TDCALL in between says does not matter."""

    async def main() -> None:
        async with scripted_side() as side:
            assert side.host.waiting is not None
            call, side.host.waiting = side.host.waiting, None
            fail_call(side.host, 0, status)
            call.answer(0, (7).to_bytes(8, "little"))
            assert await side.result(7) is MigrationResult.VmmInternalError
            await side.still_serves()
            await side.at_rest()

    run_in_virtual_time(main())


@pytest.mark.parametrize("status", STATUSES.values(), ids=STATUSES)
@pytest.mark.parametrize("leaf", [MigTdLeaf.SEND, MigTdLeaf.RECEIVE])
@BOTH_ROLES
def test_a_vmcall_that_never_leaves_the_tdx_module_is_a_tdx_module_error(
    role: str, leaf: MigTdLeaf, status: int
) -> None:
    async def main() -> None:
        async with scripted_pair() as (here, there):
            side = here if role == "source" else there
            side.host.vmcall_status = lambda called: status if called is leaf else 0
            await migrate(here, there)
            assert (await side.result(), side.error_ids()) == (MigrationResult.TdxModuleError, ["MIGTD-TDCALL-FAILED"])
            side.expect_no_key()
            await side.still_serves()
            await side.at_rest()

    run_in_virtual_time(main())


@pytest.mark.parametrize("status", STATUSES.values(), ids=STATUSES)
def test_a_report_that_never_leaves_the_tdx_module_is_told_and_holds_up_nobody(status: int) -> None:
    async def main() -> None:
        async with scripted_side() as side:
            side.host.vmcall_status = lambda called: status if called is MigTdLeaf.REPORT_STATUS else 0
            side.host.put(GetTdReport(1))
            await until(lambda: side.observer.notes[1])
            assert "MIGTD-TDCALL-FAILED" in side.observer.notes[1][0]
            side.host.vmcall_status = lambda _: 0
            await side.still_serves()
            await side.at_rest()

    run_in_virtual_time(main())


@pytest.mark.parametrize("status", STATUSES.values(), ids=STATUSES)
def test_a_migtd_that_can_get_no_requests_any_more_says_so_and_ends(status: int) -> None:
    async def main() -> None:
        async with scripted_side() as side:
            side.host.vmcall_status = lambda called: status if called is MigTdLeaf.WAIT_FOR_REQUEST else 0
            side.host.put(GetTdReport(1))
            await asyncio.wait({side.td.task})
            assert side.host.fatal == [MigrationResult.TdxModuleError]

    run_in_virtual_time(main())


# --- values out of range -------------------------------------------------------------------------------------------
def change_value(host: ScriptedHost, field: int, value: int) -> None:
    def change(call: Registers, answer: Registers) -> None:
        if call.rax in (TdCallLeaf.SYS_RD, TdCallLeaf.SERVTD_RD) and call.rdx == field:
            answer.r8 = value

    host.on_return = change


async def expect_invalid_parameter(side: ScriptedSide, identity: str) -> None:
    assert (await side.result(), side.error_ids()) == (MigrationResult.InvalidParameter, [identity])
    side.expect_no_key()
    side.expect_one_report_for_each_accepted_request()
    await side.still_serves()
    await side.at_rest()


@pytest.mark.parametrize("value", [0x10000, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("end", ["MIN", "MAX"])
@BOTH_ROLES
def test_a_version_of_more_than_16_bits_ends_before_the_session(role: str, end: str, value: int) -> None:
    async def main() -> None:
        async with scripted_side() as side:
            change_value(side.host, Field[f"{end}_{'EXPORT' if role == 'source' else 'IMPORT'}_VERSION"], value)
            side.start(is_source=role == "source")
            await expect_invalid_parameter(side, "MIGTD-VERSION-FIELD")
            assert not side.host.sent

    run_in_virtual_time(main())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [((2, 1), (1, 1)), ((1, 1), (9, 3)), ((1, 1), (2, 2)), ((5, 9), (1, 4)), ((0xFFFF, 0xFFFF), (0, 0xFFFE))],
)
def test_ranges_that_are_unordered_or_do_not_meet_end_both_sides_without_a_key(
    ours: tuple[int, int], theirs: tuple[int, int]
) -> None:
    async def main() -> None:
        hosts = [ScriptedHost(versions=VersionRange(*each)) for each in (ours, theirs)]
        async with scripted_pair(*hosts) as (here, there):
            await migrate(here, there)
            for side in (here, there):
                await expect_invalid_parameter(side, "MIGTD-VERSION-RANGE")

    run_in_virtual_time(main())


@pytest.mark.parametrize("value", [1, 1 << 32, 1 << 63, (1 << 64) - 1])
@BOTH_ROLES
def test_any_bit_of_servtd_attr_is_refused(role: str, value: int) -> None:
    async def main() -> None:
        async with scripted_pair() as (here, there):
            side = here if role == "source" else there
            change_value(side.host, Field.SERVTD_ATTR, value)
            await migrate(here, there)
            await expect_invalid_parameter(side, "MIGTD-SERVTD-ATTR")

    run_in_virtual_time(main())


def vcpus(number: int) -> ScriptedHost:
    host = ScriptedHost()

    def change(call: Registers, answer: Registers) -> None:
        if call.rax == TdCallLeaf.VP_INFO:
            answer.r8 = number << 32 | number

    host.on_return = change
    return host


@pytest.mark.parametrize("number", [0, 1, 2, 300])
def test_a_migtd_with_any_number_of_vcpus_has_a_log_page_for_each_and_at_least_one(number: int) -> None:
    async def main() -> None:
        async with scripted_side(vcpus(number)) as side:
            side.host.put(EnableLogArea(1, 3))
            areas = pull_log_area_answer((await side.report(1)).data)
            assert len({area.address for area in areas}) == max(number, 1)
            await side.still_serves()
            await side.at_rest()

    run_in_virtual_time(main())


@pytest.mark.parametrize("number", [1_000_000, (1 << 32) - 1])
def test_a_million_vcpus_end_the_start_and_the_host_is_told(number: int) -> None:
    async def main() -> None:
        async with scripted_side(vcpus(number)) as side:
            assert not side.td.alive
            assert side.host.fatal == [MigrationResult.OutOfResource]
            assert not side.host.reports_of(N)

    run_in_virtual_time(main())
