# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The request loop: what the VMM and people see of each request, whatever happens in it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from unittest.mock import AsyncMock

import pytest

from migtd import failures
from migtd.checks import CheckName, CheckStatus
from migtd.deadlines import Deadlines
from migtd.errors import (
    InvalidParameter,
    MigrationResult,
    MigTDError,
    MutualAttestationError,
    NetworkError,
    OutOfResource,
    PolicyUnsatisfiedError,
    TdxModuleError,
    VmmCanceled,
    VmmInternalError,
)
from migtd.guest.abi import Field
from migtd.guest.ghci import (
    NO_REQUEST,
    REQUESTED_REPORT_DATA,
    STATUS_SUCCESS,
    EnableLogArea,
    GetTdReport,
    Operation,
    StartMigration,
    pull_log_area_answer,
    push_request,
)
from migtd.guest.interfaces import TargetTd
from migtd.guest.shared_memory import SharedPages
from migtd.migration.logging import LogEntry, LogLevel, MigTdLog
from migtd.migration.service import MigTd
from migtd.observer import Phase
from migtd.testing import FakeTdCall, RecordingObserver, ScriptedServices
from migtd.testing_session import InsecurePlainSessions, ScriptedMode

N = 5
TARGET = TargetTd(0x1234, (1, 2, 3, 4))
LOST = VmmInternalError(failures.CHANNEL_LOST)
SUCCESS = MigrationResult.Success
SOURCE_KEY = struct.pack("<4Q", 1, 2, 3, 4)
DESTINATION_KEY = struct.pack("<4Q", 5, 6, 7, 8)
VERSIONS: dict[int, int] = {
    Field.MIN_EXPORT_VERSION: 1,
    Field.MAX_EXPORT_VERSION: 3,
    Field.MIN_IMPORT_VERSION: 2,
    Field.MAX_IMPORT_VERSION: 4,
}
CALLS_OF_A_MIGRATION = 12
"""2 versions, 4 key elements, SERVTD_ATTR, MIG_VERSION, 4 key elements."""
FIRST_KEY_WRITE = 8


def fields(key: bytes, **changes: int) -> dict[int, int]:
    elements = {Field.MIG_ENC_KEY + index: value for index, value in enumerate(struct.unpack("<4Q", key))}
    return {**VERSIONS, **elements, **{Field[name]: value for name, value in changes.items()}}


@dataclass
class Side:
    """One MigTD with everything around it."""

    tdcall: FakeTdCall
    mode: ScriptedMode = field(default_factory=ScriptedMode)
    deadlines: Deadlines = field(default_factory=lambda: Deadlines().with_all(5.0))
    services: ScriptedServices = field(default_factory=ScriptedServices)
    observer: RecordingObserver = field(default_factory=RecordingObserver)
    logged: list[LogEntry] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log = MigTdLog(SharedPages(memoryview(bytearray(1 << 16))), 1, mirror=self.logged.append)
        self.migtd = MigTd(
            self.tdcall,
            self.services,
            log=self.log,
            mode=self.mode,
            session_factory=InsecurePlainSessions(),
            deadlines=self.deadlines,
            observer=self.observer,
            random=os.urandom,
        )

    async def result(self, request_id: int = N) -> MigrationResult:
        (report,) = await self.services.reports_of(request_id)
        return report.result

    def error_ids(self, request_id: int = N) -> list[str]:
        return [error.kind.id for error in self.observer.failures[request_id]]

    def texts(self, level: LogLevel) -> list[str]:
        return [entry.text for entry in self.logged if entry.level is level]


def source(**changes: int) -> Side:
    return Side(FakeTdCall(fields(SOURCE_KEY, **changes)))


def destination(**changes: int) -> Side:
    return Side(FakeTdCall(fields(DESTINATION_KEY, **changes)))


@contextlib.asynccontextmanager
async def serving(*sides: Side) -> AsyncIterator[None]:
    """Serve until the block ends, then let the host go away; the loop must end by that alone."""
    tasks = [asyncio.create_task(side.migtd.serve()) for side in sides]
    try:
        yield
    finally:
        for side in sides:
            side.services.put_error(LOST)
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert ends == [LOST] * len(sides)


def start(side: Side, *, is_source: bool, request_id: int = N) -> None:
    side.services.put(StartMigration(request_id, is_source, TARGET))


async def migrate(one: Side, other: Side) -> tuple[MigrationResult, MigrationResult]:
    """One migration between two sides; the host takes a lost side's transport down, as a real one would."""
    one.services.connect(other.services, N)
    async with serving(one, other):
        start(one, is_source=True)
        start(other, is_source=False)
        return await both_results(one, other)


async def both_results(one: Side, other: Side) -> tuple[MigrationResult, MigrationResult]:
    async def end_of(side: Side, peer: Side) -> MigrationResult:
        result = await side.result()
        peer.services.feed(N, b"")
        return result

    ours, theirs = await asyncio.gather(end_of(one, other), end_of(other, one))
    return ours, theirs


# --- success -------------------------------------------------------------------------------------------------------
async def test_migration_swaps_the_keys_and_writes_the_common_version_before_the_key() -> None:
    one, other = source(), destination()
    assert await migrate(one, other) == (SUCCESS, SUCCESS)
    for side, key in ((one, DESTINATION_KEY), (other, SOURCE_KEY)):
        assert side.tdcall.written_key(TARGET) == key
        assert side.tdcall.written[0] == (TARGET, Field.MIG_VERSION, 3)
        assert len(side.tdcall.calls) == CALLS_OF_A_MIGRATION
        assert len(side.services.reports) == 1


async def test_phases_and_checks_reach_the_observer_in_order() -> None:
    one, other = source(), destination()
    await migrate(one, other)
    for side in (one, other):
        assert side.observer.phases[N] == [
            Phase.ACCEPTED,
            Phase.HANDSHAKE,
            Phase.EXCHANGE,
            Phase.COMMIT,
            Phase.DONE,
        ]
        assert [(check.name, check.status) for check in side.observer.checks[N]] == [
            (CheckName.EXCHANGE_INFORMATION, CheckStatus.PASSED),
            (CheckName.SERVTD_ATTR, CheckStatus.PASSED),
            (CheckName.VERSIONS, CheckStatus.PASSED),
        ]
        assert "check versions passed: version 3" in side.texts(LogLevel.INFO)
        assert not side.observer.failures


async def test_migration_leaves_no_key_in_the_log() -> None:
    one, other = source(), destination()
    await migrate(one, other)
    told = "".join(entry.text for side in (one, other) for entry in side.logged)
    assert SOURCE_KEY.hex() not in told
    assert repr(SOURCE_KEY) not in told


async def test_td_report_is_made_for_fixed_report_data_whatever_the_host_asks_for() -> None:
    side = source()
    side.services.put(GetTdReport(1, b"\xee" * 64))
    side.services.put(GetTdReport(2))
    async with serving(side):
        for request_id in (1, 2):
            (report,) = await side.services.reports_of(request_id)
            assert report.result is SUCCESS
            assert len(report.data) == 1024
            assert report.data[128:192] == REQUESTED_REPORT_DATA


async def test_log_area_is_answered_and_holds_what_was_logged_before() -> None:
    side = source()
    side.services.put(EnableLogArea(1, LogLevel.INFO))
    async with serving(side):
        (report,) = await side.services.reports_of(1)
    assert [area.size for area in pull_log_area_answer(report.data)] == [4096]


async def test_mode_that_verifies_nothing_says_so_for_each_migration() -> None:
    skips = {CheckName.QUOTE_PEER: "accept-all", CheckName.POLICY: "accept-all"}
    one = Side(FakeTdCall(fields(SOURCE_KEY)), mode=ScriptedMode(skips=skips))
    other = destination()
    await migrate(one, other)
    assert "verifies NOTHING" in one.observer.notes[N][0]
    assert "verifies NOTHING" in one.texts(LogLevel.WARN)[0]
    assert not other.observer.notes[N]


# --- requests that are not served ----------------------------------------------------------------------------------
LONG = StartMigration(N, is_source=True, target=TARGET, initial_tdinfo=bytes(512))


@pytest.mark.parametrize(
    ("status", "payload", "result"),
    [
        (1 | Operation.StartMigration << 8, push_request(LONG)[1], MigrationResult.InvalidParameter),
        (1 | Operation.StartMigration << 8, struct.pack("<Q", N), MigrationResult.InvalidParameter),
        (
            1 | Operation.StartMigration << 8,
            struct.pack("<QB", N, 2).ljust(56, b"\0"),
            MigrationResult.InvalidParameter,
        ),
        (1 | Operation.EnableLogArea << 8, struct.pack("<QBB6s", N, 3, 1, b""), MigrationResult.InvalidParameter),
        (1 | Operation.EnableLogArea << 8, struct.pack("<QB7s", N, 0, b""), MigrationResult.InvalidParameter),
        (1 | Operation.EnableLogArea << 8, struct.pack("<QB7s", N, 6, b""), MigrationResult.InvalidParameter),
        (1 | Operation.GetTDReport << 8, struct.pack("<QB", N, 3), MigrationResult.InvalidParameter),
        (1 | Operation.StartRebinding << 8, bytes([N]) + bytes(55), MigrationResult.UnsupportedOperationError),
        (1 | Operation.GetMigtdData << 8, bytes([N]) + bytes(7), MigrationResult.UnsupportedOperationError),
        (1, bytes([N]) + bytes(55), MigrationResult.UnsupportedOperationError),
        (1 | 77 << 8, bytes([N]) + bytes(55), MigrationResult.UnsupportedOperationError),
        (2 | 3 << 8, bytes([N]) + bytes(55), MigrationResult.VmmInternalError),
        (0, bytes([N]) + bytes(55), MigrationResult.VmmInternalError),
    ],
)
async def test_bad_request_with_an_id_is_reported_once_and_the_next_is_served(
    status: int, payload: bytes, result: MigrationResult
) -> None:
    side = source()
    side.services.put_raw(status, payload)
    side.services.put(GetTdReport(99))
    async with serving(side):
        assert await side.result() is result
        assert await side.result(99) is SUCCESS
    assert len(side.services.reports) == 2
    assert len(side.error_ids()) == 1
    assert side.observer.phases[N] == [Phase.ACCEPTED]
    assert side.tdcall.written == []


async def test_request_without_an_id_is_dropped_told_and_the_next_is_served() -> None:
    side = source()
    for length in range(8):
        side.services.put_raw(STATUS_SUCCESS | Operation.GetTDReport << 8, bytes(length))
    side.services.put(GetTdReport(99))
    async with serving(side):
        assert await side.result(99) is SUCCESS
    assert len(side.services.reports) == 1
    assert len(side.observer.notes[NO_REQUEST]) == 8


async def test_answer_of_the_vmm_that_makes_no_sense_does_not_end_the_loop() -> None:
    side = source()
    side.services.put_error(VmmInternalError(failures.TRANSPORT_MALFORMED, "test"))
    side.services.put(GetTdReport(99))
    async with serving(side):
        assert await side.result(99) is SUCCESS
    assert side.error_ids(NO_REQUEST) == ["MIGTD-TRANSPORT-MALFORMED"]


async def test_request_with_an_id_being_served_is_ignored_until_that_one_ended() -> None:
    side = source()
    async with serving(side):
        start(side, is_source=True)
        start(side, is_source=True)
        side.services.put(GetTdReport(N))
        side.services.put(GetTdReport(99))
        assert await side.result(99) is SUCCESS
        assert side.services.reports == [report for report in side.services.reports if report.request_id != N]
        side.services.feed(N, b"")
        assert await side.result() is MigrationResult.NetworkError
        side.services.put(GetTdReport(N))
        reports = await side.services.reports_of(N, count=2)
    assert [report.result for report in reports] == [MigrationResult.NetworkError, SUCCESS]
    assert len(side.observer.notes[N]) == 2


async def test_id_is_free_again_once_its_report_was_made_even_before_the_acknowledgement() -> None:
    side = source()
    acknowledged = asyncio.Event()
    report_status = side.services.report_status

    async def slow(request_id: int, result: MigrationResult, data: bytes = b"", *, on_call: Callable[[], None]) -> None:
        await report_status(request_id, result, data, on_call=on_call)
        await acknowledged.wait()

    side.services.report_status = slow  # type: ignore[method-assign]
    async with serving(side):
        side.services.put(GetTdReport(N))
        await side.services.reports_of(N)
        side.services.put(GetTdReport(N))
        assert len(await side.services.reports_of(N, count=2)) == 2
        acknowledged.set()


# --- concurrency ---------------------------------------------------------------------------------------------------
async def test_requests_are_served_concurrently_each_with_its_own_peer() -> None:
    one, other = source(), destination()
    ids = range(10, 30)
    for request_id in ids:
        one.services.connect(other.services, request_id)
    async with serving(one, other):
        for request_id in ids:
            start(one, is_source=True, request_id=request_id)
        for request_id in reversed(ids):
            start(other, is_source=False, request_id=request_id)
        for side in (one, other):
            for request_id in ids:
                assert await side.result(request_id) is SUCCESS
    assert len(one.services.reports) == len(other.services.reports) == len(ids)


async def test_silent_migration_does_not_hold_up_other_requests() -> None:
    side = source()
    async with serving(side):
        start(side, is_source=True)
        side.services.put(GetTdReport(99))
        assert await side.result(99) is SUCCESS
    assert [report.request_id for report in side.services.reports] == [99]


async def test_loss_of_the_host_ends_requests_under_way() -> None:
    side = source()
    async with serving(side):
        start(side, is_source=True)
    assert side.services.reports == []


async def test_lack_of_memory_for_the_next_request_waits_for_one_under_way() -> None:
    side = source()
    async with serving(side):
        start(side, is_source=True)
        side.services.put_error(OutOfResource(failures.SHARED_MEMORY_EXHAUSTED))
        side.services.put(GetTdReport(99))
        side.services.feed(N, b"")
        assert await side.result(99) is SUCCESS


async def test_lack_of_memory_with_nothing_under_way_ends_the_loop() -> None:
    side = source()
    error = OutOfResource(failures.SHARED_MEMORY_EXHAUSTED)
    side.services.put_error(error)
    with pytest.raises(OutOfResource):
        await side.migtd.serve()


async def test_request_is_being_served_until_its_report_is_made_however_long_that_waits() -> None:
    side = source()
    report_status = side.services.report_status
    room = asyncio.Event()

    async def patient(
        request_id: int, result: MigrationResult, data: bytes = b"", *, on_call: Callable[[], None]
    ) -> None:
        await room.wait()
        await report_status(request_id, result, data, on_call=on_call)

    side.services.report_status = patient  # type: ignore[method-assign]
    async with serving(side):
        for _ in range(3):
            side.services.put(GetTdReport(99))
        await asyncio.sleep(0.01)
        assert side.services.reports == []
        assert len(side.observer.notes[99]) == 2
        room.set()
        assert await side.result(99) is SUCCESS
        side.services.put(GetTdReport(99))
        assert len(await side.services.reports_of(99, 2)) == 2


async def test_answer_without_memory_gives_way_to_a_report_of_that() -> None:
    side = source()
    report_status = side.services.report_status

    async def scarce(
        request_id: int, result: MigrationResult, data: bytes = b"", *, on_call: Callable[[], None]
    ) -> None:
        if data:
            raise OutOfResource(failures.SHARED_MEMORY_EXHAUSTED)
        await report_status(request_id, result, data, on_call=on_call)

    side.services.report_status = scarce  # type: ignore[method-assign]
    async with serving(side):
        side.services.put(GetTdReport(99))
        (report,) = await side.services.reports_of(99)
        assert (report.result, report.data) == (MigrationResult.OutOfResource, b"")
        assert [each.kind.id for each in side.observer.failures[99]] == ["MIGTD-SHARED-MEMORY-EXHAUSTED"]
        side.services.put(GetTdReport(99))
        assert len(await side.services.reports_of(99, 2)) == 2


async def test_report_that_fits_nowhere_is_given_up_and_told() -> None:
    side = source()

    report_status = side.services.report_status
    shortage = OutOfResource(failures.SHARED_MEMORY_EXHAUSTED)
    side.services.report_status = AsyncMock(side_effect=shortage)  # type: ignore[method-assign]
    async with serving(side):
        side.services.put(GetTdReport(N))
        await asyncio.sleep(0.01)
        side.services.report_status = report_status  # type: ignore[method-assign]
        side.services.put(GetTdReport(99))
        assert await side.result(99) is SUCCESS
    assert "MIGTD-SHARED-MEMORY-EXHAUSTED" in side.observer.notes[N][0]


# --- failures of a migration ---------------------------------------------------------------------------------------
async def expect_failure(side: Side, result: MigrationResult, identity: str, phase: Phase) -> None:
    """Exactly one report with this result, one failure with this id, the phase where it happened, and no key."""
    assert await side.result() is result
    assert [report.request_id for report in side.services.reports] == [N]
    assert side.services.reports[0].data == b""
    assert side.error_ids() == [identity]
    assert side.observer.phases[N][-1] is phase
    assert side.texts(LogLevel.ERROR)[0].startswith(identity)
    assert side.tdcall.written_key(TARGET) == b""


@pytest.mark.parametrize("is_source", [True, False])
async def test_version_field_above_16_bits_is_refused_before_any_session(is_source: bool) -> None:  # noqa: FBT001 - a parametrised role
    side = source(MAX_EXPORT_VERSION=0x10000, MIN_IMPORT_VERSION=0x10000)
    async with serving(side):
        start(side, is_source=is_source)
        await expect_failure(side, MigrationResult.InvalidParameter, "MIGTD-VERSION-FIELD", Phase.ACCEPTED)
    assert side.services.sent == {}


async def test_target_with_servtd_attributes_gets_no_version_and_no_key() -> None:
    one, other = source(SERVTD_ATTR=1), destination()
    one.services.connect(other.services, N)
    async with serving(one, other):
        start(one, is_source=True)
        start(other, is_source=False)
        await expect_failure(one, MigrationResult.InvalidParameter, "MIGTD-SERVTD-ATTR", Phase.COMMIT)
    assert one.tdcall.written == []
    assert [check.status for check in one.observer.checks[N]] == [CheckStatus.PASSED, CheckStatus.FAILED]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"MIN_EXPORT_VERSION": 5, "MAX_EXPORT_VERSION": 6}, {}),
        ({}, {"MIN_IMPORT_VERSION": 4, "MAX_IMPORT_VERSION": 5}),
        ({"MIN_EXPORT_VERSION": 4, "MAX_EXPORT_VERSION": 3}, {}),
        ({}, {"MIN_IMPORT_VERSION": 4, "MAX_IMPORT_VERSION": 2}),
    ],
)
async def test_version_ranges_that_do_not_meet_end_both_sides_without_a_key(
    ours: dict[str, int], theirs: dict[str, int]
) -> None:
    one, other = source(**ours), destination(**theirs)
    await migrate(one, other)
    for side in (one, other):
        await expect_failure(side, MigrationResult.InvalidParameter, "MIGTD-VERSION-RANGE", Phase.COMMIT)
        assert side.tdcall.written == []
        told = str(side.observer.failures[N][0])
        export = (one.tdcall.fields[Field.MIN_EXPORT_VERSION], one.tdcall.fields[Field.MAX_EXPORT_VERSION])
        assert "export VersionRange(minimum={}, maximum={})".format(*export) in told


async def test_refused_peer_gets_no_key_and_neither_does_the_refusing_side() -> None:
    one, other = source(), destination()
    other.mode.refusal = PolicyUnsatisfiedError(failures.INTERNAL, "test")
    await migrate(one, other)
    await expect_failure(other, MigrationResult.PolicyUnsatisfiedError, "MIGTD-INTERNAL", Phase.HANDSHAKE)
    assert await one.result() is MigrationResult.SecureSessionError
    assert one.tdcall.written == []


async def test_missing_evidence_ends_the_migration() -> None:
    side = source()
    side.mode.evidence_error = MutualAttestationError(failures.INTERNAL, "no quote")
    async with serving(side):
        start(side, is_source=True)
        await expect_failure(side, MigrationResult.MutualAttestationError, "MIGTD-INTERNAL", Phase.HANDSHAKE)


@pytest.mark.parametrize(
    "error",
    [
        VmmCanceled(failures.CANCELED),
        InvalidParameter(failures.TRANSPORT_SETUP_FAILED),
        NetworkError(failures.TRANSPORT_ENDED),
        NetworkError(failures.DEADLINE_READ),
        OutOfResource(failures.SHARED_MEMORY_EXHAUSTED),
    ],
)
async def test_failing_transport_ends_the_migration_with_its_own_result(error: MigTDError) -> None:
    side = source()
    async with serving(side):
        start(side, is_source=True)
        side.services.cancel(N, error)
        await expect_failure(side, error.result, error.kind.id, Phase.HANDSHAKE)


async def test_silent_peer_ends_in_a_network_error() -> None:
    side = Side(FakeTdCall(fields(SOURCE_KEY)), deadlines=Deadlines().with_all(0.05))
    async with serving(side):
        start(side, is_source=True)
        await expect_failure(side, MigrationResult.NetworkError, "MIGTD-DEADLINE-SESSION", Phase.HANDSHAKE)


async def test_unexpected_error_is_reported_and_told_and_nothing_else_is_disturbed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    side = source()
    side.mode.evidence_error = ZeroDivisionError("secret detail")
    async with serving(side):
        start(side, is_source=True)
        await expect_failure(side, MigrationResult.Unsupported, "MIGTD-INTERNAL", Phase.HANDSHAKE)
        side.services.put(GetTdReport(99))
        assert await side.result(99) is SUCCESS
    assert "ZeroDivisionError" in str(side.observer.failures[N][0])
    assert "Traceback" in capsys.readouterr().out
    assert not any("secret detail" in entry.text for entry in side.logged)


@pytest.mark.parametrize("index", range(CALLS_OF_A_MIGRATION))
@pytest.mark.parametrize("failing_side", [0, 1])
async def test_failing_tdcall_ends_in_one_report_and_a_whole_key_only_on_success(failing_side: int, index: int) -> None:
    sides = (source(), destination())
    failing = sides[failing_side]
    failing.tdcall.fail_at = index
    results = await migrate(*sides)
    assert results[failing_side] is MigrationResult.TdxModuleError
    for side, result in zip(sides, results, strict=True):
        assert [report.result for report in side.services.reports] == [result]
        assert (len(side.tdcall.written_key(TARGET)) == 32) == (result is SUCCESS)
        assert (Phase.DONE in side.observer.phases[N]) == (result is SUCCESS)
    if index < FIRST_KEY_WRITE:
        assert failing.tdcall.written_key(TARGET) == b""
        assert failing.error_ids() == ["MIGTD-TDCALL-FAILED"]
    else:
        assert failing.error_ids() == ["MIGTD-KEY-WRITE-FAILED"]
        assert f"{index - FIRST_KEY_WRITE} of 4 elements" in str(failing.observer.failures[N][0])


async def test_retry_with_the_same_id_after_a_failure_starts_clean() -> None:
    one, other = source(), destination()
    one.tdcall.fail_at = 0
    async with serving(one):
        start(one, is_source=True)
        assert await one.result() is MigrationResult.TdxModuleError
    one.services.reports.clear()
    one.services.connect(other.services, N)
    assert await migrate(one, other) == (SUCCESS, SUCCESS)


@pytest.mark.parametrize(
    ("error", "identity"),
    [(NetworkError(failures.CHANNEL_LOST), "MIGTD-CHANNEL-LOST"), (ZeroDivisionError("bug"), "MIGTD-INTERNAL")],
)
async def test_failing_report_is_told_with_what_was_done_and_nothing_else_is_disturbed(
    error: Exception, identity: str
) -> None:
    one, other = source(), destination()
    one.services.report_errors[N] = error
    one.services.connect(other.services, N)
    async with serving(one, other):
        start(one, is_source=True)
        start(other, is_source=False)
        assert await both_results(one, other) == (SUCCESS, SUCCESS)
        one.services.put(GetTdReport(99))
        assert await one.result(99) is SUCCESS
    (note,) = one.observer.notes[N]
    assert identity in note
    assert "key is written" in note
    assert len([report for report in one.services.reports if report.request_id == N]) == 1


async def test_last_words_that_could_not_be_sent_are_a_line_in_the_log() -> None:
    side = source()
    side.mode.evidence_error = MutualAttestationError(failures.INTERNAL, "no quote")
    side.services.fail_sends(N, NetworkError(failures.TRANSPORT_ENDED))
    async with serving(side):
        start(side, is_source=True)
        assert await side.result() is MigrationResult.MutualAttestationError
    assert any("last words" in text for text in side.texts(LogLevel.WARN))


async def test_cancelled_service_ends_without_reports() -> None:
    side = source()
    task = asyncio.create_task(side.migtd.serve())
    start(side, is_source=True)
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert side.services.reports == []


async def test_mode_that_leaves_out_the_versions_check_is_a_defect_and_writes_nothing() -> None:
    skips = {CheckName.VERSIONS: "a defect"}
    one = Side(FakeTdCall(fields(SOURCE_KEY)), mode=ScriptedMode(skips=skips))
    await migrate(one, destination())
    await expect_failure(one, MigrationResult.Unsupported, "MIGTD-INTERNAL", Phase.COMMIT)
    assert one.tdcall.written == []


def test_tdx_module_error_is_what_the_fake_raises() -> None:
    with pytest.raises(TdxModuleError):
        FakeTdCall(fail_at=0).sys_rd(0)
