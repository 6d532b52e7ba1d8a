# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Hosts that replay requests, flood their MigTD with them, or name what is not theirs (ghci-ratls.md 1 and 3.1)."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from migtd.errors import MigrationResult
from migtd.guest.ghci import (
    LOG_AREA_REQUEST_BIT,
    NO_REQUEST,
    EnableLogArea,
    GetTdReport,
    Operation,
    StartMigration,
    push_request,
)
from migtd.guest.interfaces import TargetTd
from migtd.migration.logging import LogLevel
from migtd.testing_loop import run_in_virtual_time
from vmm_stub.testing_hostile import MEMORY, ScriptedHost
from vmm_stub.testing_pair import N, migrate, scripted_pair, scripted_side
from vmm_stub.testing_td import until

SUCCESS = MigrationResult.Success
BOTH_ROLES = pytest.mark.parametrize("role", ["source", "destination"])


@BOTH_ROLES
def test_a_request_that_is_replayed_while_it_is_served_is_ignored_and_afterwards_served_anew(role: str) -> None:
    async def main() -> None:
        async with scripted_pair() as (here, there):
            side = here if role == "source" else there
            side.start(is_source=role == "source")
            side.start(is_source=role == "source")
            # The other role under the same id is a replay as well.
            side.start(is_source=role != "source")
            side.host.put(GetTdReport(N))
            other = there if role == "source" else here
            await until(lambda: len(side.observer.notes[N]) == 4)  # of the mode, and three that were ignored
            other.start(is_source=role != "source")
            assert (await here.result(), await there.result()) == (SUCCESS, SUCCESS)
            assert side.host.dec_key_writes == 4
            side.expect_one_report_for_each_accepted_request()

            for each in (here, there):
                each.host._peer_data.clear()
            here.start(is_source=True)
            there.start(is_source=False)
            assert (await here.report(count=2)).result is SUCCESS
            assert (await there.report(count=2)).result is SUCCESS
            for each in (here, there):
                each.expect_one_report_for_each_accepted_request()
                await each.at_rest()

    run_in_virtual_time(main())


@pytest.mark.parametrize("change", ["handle", "uuid"])
@BOTH_ROLES
def test_a_target_that_is_not_bound_to_this_migtd_ends_in_tdx_module_error(role: str, change: str) -> None:
    async def main() -> None:
        async with scripted_side() as side:
            target = side.host.target
            wrong = (
                TargetTd(target.binding_handle ^ 1, target.uuid)
                if change == "handle"
                else TargetTd(target.binding_handle, (*target.uuid[:3], target.uuid[3] ^ 1))
            )
            side.host.put(StartMigration(N, role == "source", wrong))
            assert await side.result() is MigrationResult.TdxModuleError
            assert not side.host.sent
            side.expect_no_key()
            await side.still_serves()
            await side.at_rest()

    run_in_virtual_time(main())


def test_two_requests_for_one_target_are_two_sessions_and_two_reports() -> None:
    async def main() -> None:
        async with scripted_pair() as (here, there):
            for request_id in (1, 2):
                here.start(is_source=True, request_id=request_id)
                there.start(is_source=False, request_id=request_id)
            for side in (here, there):
                assert {await side.result(1), await side.result(2)} == {SUCCESS}
                side.expect_one_report_for_each_accepted_request()
                await side.at_rest()
            assert here.host.tdcs().dec_key_fingerprint == there.host.tdcs().enc_key_fingerprint

    run_in_virtual_time(main())


def test_a_flood_of_requests_is_answered_one_by_one() -> None:
    count = 500

    async def main() -> None:
        async with scripted_side() as side:
            for number in range(count):
                side.host.put(GetTdReport(number))
            assert await side.result(count - 1) is SUCCESS
            await side.at_rest()
            side.expect_one_report_for_each_accepted_request()
            assert len(side.host.reports) == count

    run_in_virtual_time(main())


@BOTH_ROLES
def test_more_migrations_than_there_is_memory_for_end_in_out_of_resource_and_the_rest_goes_on(role: str) -> None:
    """Each takes a buffer of 64 KiB while it waits for its peer; nobody answers the others."""
    fit = MEMORY // 65_536
    count = fit + 8

    async def main() -> None:
        async with scripted_side() as side:
            for number in range(count):
                side.start(is_source=role == "source", request_id=number)
            results = [await side.result(number) for number in range(count)]
            assert set(results) == {MigrationResult.NetworkError, MigrationResult.OutOfResource}
            assert results.count(MigrationResult.NetworkError) <= fit
            side.expect_one_report_for_each_accepted_request()
            side.expect_no_key()
            await side.still_serves()
            await side.at_rest()

    run_in_virtual_time(main())


@pytest.mark.parametrize("request_id", [0, NO_REQUEST, 1 << 63, (1 << 64) - 2])
def test_any_request_id_is_served(request_id: int) -> None:
    async def main() -> None:
        async with scripted_pair() as (here, there):
            here.start(is_source=True, request_id=request_id)
            there.start(is_source=False, request_id=request_id)
            for side in (here, there):
                assert await side.result(request_id) is SUCCESS
                side.expect_one_report_for_each_accepted_request()

    run_in_virtual_time(main())


# --- answers to WaitForRequest that make no sense ------------------------------------------------------------------
GOOD_STATUS = 1 | Operation.GetTDReport << 8
GOOD = push_request(GetTdReport(7))[1]


@pytest.mark.parametrize(
    ("status", "payload", "length", "result"),
    [
        (GOOD_STATUS, GOOD, 0, None),
        (GOOD_STATUS, GOOD, 7, None),
        (GOOD_STATUS, GOOD, 9, MigrationResult.InvalidParameter),
        (GOOD_STATUS, GOOD, 4084, MigrationResult.InvalidParameter),
        (GOOD_STATUS, GOOD, 4085, MigrationResult.InvalidParameter),
        (GOOD_STATUS, GOOD, (1 << 32) - 1, MigrationResult.InvalidParameter),
        (0, GOOD, 8, MigrationResult.VmmInternalError),
        (2 | 3 << 8, GOOD, 8, MigrationResult.VmmInternalError),
        (2 | 1 << 8, GOOD, 8, MigrationResult.VmmInternalError),
        (1, GOOD, 8, MigrationResult.UnsupportedOperationError),
        (1 | 2 << 8, GOOD, 8, MigrationResult.UnsupportedOperationError),
        (1 | 5 << 8, GOOD, 8, MigrationResult.UnsupportedOperationError),
        (1 | 6 << 8, GOOD, 8, MigrationResult.UnsupportedOperationError),
        (1 | 0xFF << 8, GOOD, 8, MigrationResult.UnsupportedOperationError),
        (1 | 1 << 8, GOOD, 8, MigrationResult.InvalidParameter),
        (1 | 4 << 8, GOOD, 8, MigrationResult.InvalidParameter),
        (GOOD_STATUS | 1 << 63, GOOD, 8, SUCCESS),
    ],
)
def test_a_request_that_makes_no_sense_is_reported_once_if_it_names_itself(
    status: int, payload: bytes, length: int, result: MigrationResult | None
) -> None:
    async def main() -> None:
        async with scripted_side() as side:
            assert side.host.waiting is not None
            call, side.host.waiting = side.host.waiting, None
            call.answer(status, payload, length)
            await side.still_serves()
            assert [report.result for report in side.host.reports_of(7)] == ([] if result is None else [result])
            side.expect_one_report_for_each_accepted_request()
            await side.at_rest()

    run_in_virtual_time(main())


@pytest.mark.parametrize("at", [8, 9, *range(10, 16)])
def test_start_migration_with_any_byte_of_its_flags_out_of_range_reads_no_key(at: int) -> None:
    async def main() -> None:
        async with scripted_side() as side:
            operation, payload = push_request(StartMigration(N, is_source=True, target=side.host.target))
            side.host.put_raw(1 | operation << 8, payload[:at] + b"\x02" + payload[at + 1 :])
            before = len(side.host.tdcalls)
            assert await side.result() is MigrationResult.InvalidParameter
            assert len(side.host.tdcalls) == before
            assert not side.host.sent

    run_in_virtual_time(main())


# --- the log area --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("level", [*range(8), 0x7F, 0x80, 0xFF])
def test_no_request_of_the_host_makes_the_migtd_say_more_than_info(level: int) -> None:
    request_id = 1 | LOG_AREA_REQUEST_BIT

    async def main() -> None:
        async with scripted_side() as side:
            side.host.put(EnableLogArea(request_id, level))
            result = await side.result(request_id)
            assert (result is SUCCESS) is (1 <= level <= 5)
            await side.still_serves()
            assert max(entry.level for entry in side.td.logged) <= LogLevel.INFO
            if result is SUCCESS:
                entries = side.host.log_entries(request_id)
                assert entries
                later = [entry for entry in entries if entry.id > len(entries)]
                assert all(entry.level <= level for entry in later)

    run_in_virtual_time(main())


def test_a_log_area_that_the_host_overwrites_is_written_again_and_never_read() -> None:
    request_id = 1 | LOG_AREA_REQUEST_BIT

    async def main() -> None:
        host = ScriptedHost()
        async with scripted_pair(source=host) as (here, there):
            host.put(EnableLogArea(request_id, 3))
            report = await here.report(request_id)
            address, size = struct.unpack_from("<QQ", report.data, 8)
            offset = address & 0xFFFFFFFF

            def spoil(_: object) -> None:
                host.raw[offset : offset + size] = b"\xff" * size

            host.on_call = spoil
            assert await migrate(here, there) == (SUCCESS, SUCCESS)
            host.on_call = lambda _: None
            await here.still_serves()
            texts = [entry.text for entry in host.log_entries(request_id)]
            assert "done" in texts
            assert all(entry.text in texts for entry in here.td.logged if entry.request_id == N)

    run_in_virtual_time(main())


def test_the_same_log_area_is_told_however_often_the_host_asks() -> None:
    async def main() -> None:
        async with scripted_side() as side:
            for number in range(3):
                side.host.put(EnableLogArea(number, 5))
            reports = [await side.report(number) for number in range(3)]
            assert len({report.data for report in reports}) == 1
            assert replace(reports[0], request_id=1) == reports[1]
            await side.at_rest()

    run_in_virtual_time(main())
