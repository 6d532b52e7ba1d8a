# SPDX-License-Identifier: BSD-2-Clause-Patent
"""GHCI requests and answers: the buffers of Service.MigTD, a dataclass with push and pull each (ghci-ratls.md 3).

The guest pulls strictly; the emulated VMM pushes. Both directions live here so that there is one truth.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final, TypeAlias

from migtd import failures
from migtd.errors import InvalidParameter, MigrationResult, UnsupportedOperationError, VmmInternalError
from migtd.guest.interfaces import TargetTd, Uuid

HEADER: Final = struct.Struct("<QI")
"""status u64, length u32; the payload follows."""

SEND_BUFFER_SIZE: Final = 65536
MAX_SEND: Final = SEND_BUFFER_SIZE - HEADER.size
"""Most payload bytes in one Send: 65,524."""
REQUEST_BUFFER_SIZE: Final = 4096

STATUS_PENDING: Final = 0
STATUS_SUCCESS: Final = 1
STATUS_FAILED: Final = 2
"""Status byte 0. STATUS_FAILED is told apart by byte 1."""
FAILED_PEER_GONE: Final = 1
FAILED_CANCELED: Final = 3

TDINFO_SIZE: Final = 512
REPORT_DATA_SIZE: Final = 64
REQUESTED_REPORT_DATA: Final = b"HostRequestedMigTDReport".ljust(REPORT_DATA_SIZE, b"\0")
"""REPORTDATA of a report made for the host, whatever the host asked for (ghci-ratls.md 3.1)."""

LOG_AREA_REQUEST_BIT: Final = 1 << 63
REPORT_REQUEST_BIT: Final = 1 << 62
"""Set in the ids of EnableLogArea and of GetTDReport or GetMigtdData requests that go with migration N."""
NO_REQUEST: Final = (1 << 64) - 1
"""Request id of a log entry that belongs to none."""


class PolicyVersion(enum.IntEnum):
    """Which policies a MigTD works with, chosen at start: it decides which requests are served (ghci-ratls.md 3.1)."""

    V1 = 1
    V2 = 2
    """Operations 2 and 5 besides the others, and TDINFO behind a start request (`has_init_data`)."""


class Operation(enum.IntEnum):
    """Status byte 1 of a completed WaitForRequest."""

    StartMigration = 1
    StartRebinding = 2
    GetTDReport = 3
    EnableLogArea = 4
    GetMigtdData = 5


_REQUEST_ID: Final = struct.Struct("<Q")
_START: Final = struct.Struct("<QBB6s4QQ")
_REPORT: Final = struct.Struct("<Q64s")
_LOG_AREA: Final = struct.Struct("<QB7s")
_LOG_AREA_ANSWER: Final = struct.Struct("<II")
_LOG_AREA_ENTRY: Final = struct.Struct("<QQ")


@dataclass(frozen=True, slots=True)
class StartMigration:
    """Operation 1: 56 bytes, and 512 bytes TDINFO behind them with `initial_tdinfo` (policy v2 only)."""

    request_id: int
    is_source: bool
    target: TargetTd
    initial_tdinfo: bytes | None = None


@dataclass(frozen=True, slots=True)
class StartRebinding:
    """Operation 2 (policy v2 only), laid out as StartMigration. `is_source`: this is the old MigTD."""

    request_id: int
    is_source: bool
    target: TargetTd
    initial_tdinfo: bytes | None = None


@dataclass(frozen=True, slots=True)
class GetTdReport:
    """Operation 3: request id and 64 bytes that the MigTD ignores; the short form has only the id."""

    request_id: int
    report_data: bytes | None = None


@dataclass(frozen=True, slots=True)
class GetMigtdData:
    """Operation 5 (policy v2 only), laid out as GetTdReport. The answer is the MigTD's own TDINFO, 512 bytes."""

    request_id: int
    report_data: bytes | None = None


@dataclass(frozen=True, slots=True)
class EnableLogArea:
    """Operation 4: request id, max level u8 (1 error .. 5 trace), 7 reserved zero = 16."""

    request_id: int
    max_level: int


Start: TypeAlias = StartMigration | StartRebinding
"""Requests that open a session with a peer."""
Request: TypeAlias = StartMigration | StartRebinding | GetTdReport | EnableLogArea | GetMigtdData


def push_request(request: Request) -> tuple[Operation, bytes]:
    """Operation and payload of a request, as the VMM puts them into the WaitForRequest buffer."""
    match request:
        case StartMigration():
            return Operation.StartMigration, _push_start(request)
        case StartRebinding():
            return Operation.StartRebinding, _push_start(request)
        case GetTdReport():
            return Operation.GetTDReport, _push_get(request)
        case GetMigtdData():
            return Operation.GetMigtdData, _push_get(request)
        case EnableLogArea(request_id, max_level):
            return Operation.EnableLogArea, _LOG_AREA.pack(request_id, max_level, bytes(7))


def _push_start(request: Start) -> bytes:
    tdinfo, target = request.initial_tdinfo, request.target
    head = (request.request_id, request.is_source, tdinfo is not None, bytes(6))
    return _START.pack(*head, *target.uuid, target.binding_handle) + (tdinfo or b"")


def _push_get(request: GetTdReport | GetMigtdData) -> bytes:
    return _REQUEST_ID.pack(request.request_id) + (request.report_data or b"")


def pull_request_id(payload: bytes) -> int | None:
    """The request id at the start of any payload, or None if it is too short to hold one."""
    return _REQUEST_ID.unpack_from(payload)[0] if len(payload) >= _REQUEST_ID.size else None


def pull_operation(status: int) -> Operation:
    """Operation of a completed WaitForRequest.

    Raises VmmInternalError (status byte 0 is not 1) or UnsupportedOperationError (unknown operation).
    """
    if status & 0xFF != STATUS_SUCCESS:
        raise VmmInternalError(failures.REQUEST_STATUS_UNKNOWN, f"status {status:#x}")
    operation = (status >> 8) & 0xFF
    if operation not in Operation.__members__.values():
        raise UnsupportedOperationError(failures.REQUEST_OPERATION_UNKNOWN, f"operation {operation}")
    return Operation(operation)


def pull_request(operation: Operation, payload: bytes, policy: PolicyVersion = PolicyVersion.V1) -> Request:
    """Decode the payload of one request: exact size, reserved bytes zero, flags 0 or 1.

    `policy` is what the MigTD works with. Raises InvalidParameter (MIGTD-REQUEST-MALFORMED) or
    UnsupportedOperationError (MIGTD-REQUEST-OPERATION-UNKNOWN: operations 2 and 5 need policy v2).
    """
    if policy is PolicyVersion.V1 and operation in _WITH_POLICY_V2:
        raise UnsupportedOperationError(failures.REQUEST_OPERATION_UNKNOWN, f"{operation.name} needs policy v2")
    match operation:
        case Operation.StartMigration:
            return StartMigration(*_pull_start("StartMigration", payload, policy))
        case Operation.StartRebinding:
            return StartRebinding(*_pull_start("StartRebinding", payload, policy))
        case Operation.GetTDReport:
            return GetTdReport(*_pull_get("GetTDReport", payload))
        case Operation.GetMigtdData:
            return GetMigtdData(*_pull_get("GetMigtdData", payload))
        case Operation.EnableLogArea:
            return _pull_enable_log_area(payload)


_WITH_POLICY_V2: Final = frozenset({Operation.StartRebinding, Operation.GetMigtdData})


def _pull_start(name: str, payload: bytes, policy: PolicyVersion) -> tuple[int, bool, TargetTd, bytes | None]:
    """Request id, is_source, target and initial TDINFO. The size and has_init_data must agree."""
    if len(payload) not in (_START.size, _START.size + TDINFO_SIZE):
        _expect_size(name, payload, _START.size)
    request_id, source, has_init_data, reserved, u0, u1, u2, u3, handle = _START.unpack_from(payload)
    if source > 1:
        raise InvalidParameter(failures.REQUEST_MALFORMED, f"{name}: migration_source is {source}")
    if has_init_data > (policy is PolicyVersion.V2):
        raise InvalidParameter(failures.REQUEST_MALFORMED, f"{name}: has_init_data is {has_init_data}")
    _expect_zero(name, reserved)
    _expect_size(name, payload, _START.size + has_init_data * TDINFO_SIZE)
    uuid: Uuid = (u0, u1, u2, u3)
    return request_id, bool(source), TargetTd(handle, uuid), payload[_START.size :] if has_init_data else None


def _pull_get(name: str, payload: bytes) -> tuple[int, bytes | None]:
    """Request id and the 64 bytes, None in the short form."""
    if len(payload) == _REQUEST_ID.size:
        return _REQUEST_ID.unpack(payload)[0], None
    _expect_size(name, payload, _REPORT.size)
    request_id, report_data = _REPORT.unpack(payload)
    return request_id, report_data


def _pull_enable_log_area(payload: bytes) -> EnableLogArea:
    _expect_size("EnableLogArea", payload, _LOG_AREA.size)
    request_id, level, reserved = _LOG_AREA.unpack(payload)
    _expect_zero("EnableLogArea", reserved)
    return EnableLogArea(request_id, level)


def _expect_size(name: str, payload: bytes, size: int) -> None:
    if len(payload) != size:
        raise InvalidParameter(failures.REQUEST_MALFORMED, f"{name}: {len(payload)} bytes instead of {size}")


def _expect_zero(name: str, reserved: bytes) -> None:
    if any(reserved):
        raise InvalidParameter(failures.REQUEST_MALFORMED, f"{name}: reserved bytes are not zero")


@dataclass(frozen=True, slots=True)
class LogAreaRange:
    """One vCPU's log area as told to the VMM: shared guest physical address and size in bytes."""

    address: int
    size: int


def push_log_area_answer(areas: list[LogAreaRange]) -> bytes:
    """Answer data of EnableLogArea: vCPU count u32, 0 u32, then (address u64, size u64) per vCPU."""
    head = _LOG_AREA_ANSWER.pack(len(areas), 0)
    return head + b"".join(_LOG_AREA_ENTRY.pack(area.address, area.size) for area in areas)


def pull_log_area_answer(data: bytes) -> list[LogAreaRange]:
    """Decode the answer data of EnableLogArea. The VMM trusts neither count nor addresses.

    Raises InvalidParameter (MIGTD-REQUEST-MALFORMED) on any other size than the count announces.
    """
    if len(data) < _LOG_AREA_ANSWER.size:
        raise InvalidParameter(failures.REQUEST_MALFORMED, f"EnableLogArea answer: {len(data)} bytes")
    count, reserved = _LOG_AREA_ANSWER.unpack_from(data)
    entries = data[_LOG_AREA_ANSWER.size :]
    if reserved or len(entries) != count * _LOG_AREA_ENTRY.size:
        raise InvalidParameter(failures.REQUEST_MALFORMED, f"EnableLogArea answer: {count} vCPUs in {len(data)} bytes")
    return [LogAreaRange(*entry) for entry in _LOG_AREA_ENTRY.iter_unpack(entries)]


def push_report_status(result: MigrationResult) -> int:
    """Register value of ReportStatus: byte 0 = 0 success or 1 failure, byte 1 = MigrationResult (ghci-ratls.md 3.2)."""
    return 0 if result is MigrationResult.Success else 1 | result << 8


def pull_report_status(register: int) -> MigrationResult:
    """Decode the register value of ReportStatus.

    Raises InvalidParameter (MIGTD-REQUEST-MALFORMED) if the two bytes disagree, the code is unknown or the rest is not
    zero.
    """
    failed, code, rest = register & 0xFF, (register >> 8) & 0xFF, register >> 16
    if rest or failed != (code != 0) or code not in MigrationResult.__members__.values():
        raise InvalidParameter(failures.REQUEST_MALFORMED, f"ReportStatus register {register:#x}")
    return MigrationResult(code)
