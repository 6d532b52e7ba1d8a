# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Fakes for tests of a MigTD and of anything that plugs into one: no host and no channel (testing_session.py: no TLS).

Each keeps what it was told in plain attributes.
"""

from __future__ import annotations

import asyncio
import struct
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from migtd import failures
from migtd.checks import Check
from migtd.errors import LabFailure, MigrationResult, MigTDError, TdxModuleError
from migtd.guest.abi import GPAW, Field
from migtd.guest.ghci import STATUS_SUCCESS, Request, push_request
from migtd.guest.interfaces import TargetTd, VpInfo
from migtd.observer import Phase

_TDREPORT_SIZE: Final = 1024
_REPORTDATA_OFFSET: Final = 128


@dataclass(slots=True)
class RecordingObserver:
    """Remembers what it is told, per request id."""

    phases: dict[int, list[Phase]] = field(default_factory=lambda: defaultdict(list))
    checks: dict[int, list[Check]] = field(default_factory=lambda: defaultdict(list))
    failures: dict[int, list[LabFailure]] = field(default_factory=lambda: defaultdict(list))
    notes: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))

    def phase(self, request_id: int, phase: Phase) -> None:
        """Remember."""
        self.phases[request_id].append(phase)

    def check(self, request_id: int, check: Check) -> None:
        """Remember."""
        self.checks[request_id].append(check)

    def failed(self, request_id: int, error: LabFailure) -> None:
        """Remember."""
        self.failures[request_id].append(error)

    def note(self, request_id: int, text: str) -> None:
        """Remember."""
        self.notes[request_id].append(text)


class FakeTdCall:
    """A TDX module in a dictionary.

    `fields` holds what SERVTD.RD answers for every target TD, and SYS.RD; what is missing reads as 0. `written` lists
    all (target, field, value) of SERVTD.WR. The call with index `fail_at`, counted from 0 over all leaves, fails.
    """

    def __init__(self, fields: Mapping[int, int] | None = None, *, vcpus: int = 1, fail_at: int | None = None) -> None:
        self.fields = dict(fields or {})
        self.vcpus = vcpus
        self.fail_at = fail_at
        self.calls: list[str] = []
        self.written: list[tuple[TargetTd, int, int]] = []
        self.extended: list[tuple[int, bytes]] = []
        self.approved: list[tuple[TargetTd, bytes]] = []

    def vp_info(self) -> VpInfo:
        """One TD with `vcpus` vCPUs."""
        self._count("TDG.VP.INFO")
        return VpInfo(GPAW, 0, self.vcpus)

    def mr_report(self, report_data: bytes) -> bytes:
        """1024 zero bytes but for the REPORTDATA at its place."""
        self._count("TDG.MR.REPORT")
        return (bytes(_REPORTDATA_OFFSET) + report_data).ljust(_TDREPORT_SIZE, b"\0")

    def mr_verify_report(self, report_mac_struct: bytes) -> bool:
        """Every report that is long enough is ours."""
        self._count("TDG.MR.VERIFYREPORT")
        return bool(report_mac_struct)

    def mr_rtmr_extend(self, index: int, digest: bytes) -> None:
        """Remember."""
        self._count("TDG.MR.RTMR.EXTEND")
        self.extended.append((index, digest))

    def servtd_rd(self, target: TargetTd, field: int) -> int:  # noqa: ARG002 - all targets look the same
        """What `fields` has."""
        self._count("TDG.SERVTD.RD")
        return self.fields.get(field, 0)

    def servtd_wr(self, target: TargetTd, field: int, value: int) -> None:
        """Remember."""
        self._count("TDG.SERVTD.WR")
        self.written.append((target, field, value))

    def sys_rd(self, field: int) -> int:
        """What `fields` has."""
        self._count("TDG.SYS.RD")
        return self.fields.get(field, 0)

    def vm_wr(self, field: int, value: int) -> None:
        """Remember in `fields`."""
        self._count("TDG.VM.WR")
        self.fields[field] = value

    def servtd_rebind_approve(self, target: TargetTd, token: bytes) -> None:
        """Remember in `approved`."""
        self._count("TDG.SERVTD.REBIND.APPROVE")
        self.approved.append((target, token))

    def written_key(self, target: TargetTd) -> bytes:
        """MIG_DEC_KEY of a target TD as far as it was written, in the order of the writes."""
        key_fields = range(Field.MIG_DEC_KEY, Field.MIG_DEC_KEY + 4)
        return b"".join(struct.pack("<Q", value) for to, at, value in self.written if to == target and at in key_fields)

    def _count(self, leaf: str) -> None:
        self.calls.append(leaf)
        if self.fail_at == len(self.calls) - 1:
            raise TdxModuleError(failures.TDCALL_FAILED, f"{leaf}: scripted")


@dataclass(frozen=True, slots=True)
class Report:
    """One ReportStatus."""

    request_id: int
    result: MigrationResult
    data: bytes


class ScriptedServices:
    """The VMM's services in memory: requests and peer data are what a test puts in, reports are what it looks at.

    `sent` collects what each request sent. Errors in a script are raised where their turn comes, and ever after.
    """

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.sent: dict[int, bytearray] = defaultdict(bytearray)
        self.report_errors: dict[int, Exception] = {}
        """Request ids whose ReportStatus is recorded and then fails so."""
        self._requests: asyncio.Queue[tuple[int, bytes] | Exception] = asyncio.Queue()
        self._streams: dict[int, _Stream] = defaultdict(_Stream)
        self._peers: dict[int, _Stream] = {}
        self._send_errors: dict[int, Exception] = {}
        self._reported = asyncio.Condition()

    def put(self, request: Request) -> None:
        """Queue a well-formed request."""
        operation, payload = push_request(request)
        self.put_raw(STATUS_SUCCESS | operation << 8, payload)

    def put_raw(self, status: int, payload: bytes) -> None:
        """Queue a completed WaitForRequest of any content."""
        self._requests.put_nowait((status, payload))

    def put_error(self, error: Exception) -> None:
        """Let a WaitForRequest fail; MIGTD-CHANNEL-LOST ends the MigTD."""
        self._requests.put_nowait(error)

    def feed(self, request_id: int, data: bytes | Exception) -> None:
        """Deliver peer data of one request; `b""` ends the stream, an error breaks it."""
        self._streams[request_id].put(data)

    def fail_sends(self, request_id: int, error: Exception) -> None:
        """Let every Send of a request fail."""
        self._send_errors[request_id] = error

    def cancel(self, request_id: int, error: MigTDError) -> None:
        """What a VMM's cancel looks like: `error` ends the pending and every later Send and Receive."""
        self.fail_sends(request_id, error)
        self.feed(request_id, error)

    def connect(self, other: ScriptedServices, request_id: int) -> None:
        """Join the streams of a request with those of the same request of another host, both ways."""
        self._peers[request_id] = other._streams[request_id]
        other._peers[request_id] = self._streams[request_id]

    async def reports_of(self, request_id: int, count: int = 1) -> list[Report]:
        """Wait until there are `count` reports of a request, and return all there are."""

        def found() -> list[Report]:
            return [report for report in self.reports if report.request_id == request_id]

        async with self._reported:
            await self._reported.wait_for(lambda: len(found()) >= count)
        return found()

    async def wait_for_request(self) -> tuple[int, bytes]:
        """The next that was put."""
        request = await self._requests.get()
        if isinstance(request, Exception):
            raise request
        return request

    async def report_status(
        self, request_id: int, result: MigrationResult, data: bytes = b"", *, on_call: Callable[[], None]
    ) -> None:
        """Remember."""
        on_call()
        self.reports.append(Report(request_id, result, data))
        async with self._reported:
            self._reported.notify_all()
        if (error := self.report_errors.get(request_id)) is not None:
            raise error

    async def send(self, request_id: int, data: bytes) -> None:
        """Remember, and deliver to the peer if there is one."""
        if (error := self._send_errors.get(request_id)) is not None:
            raise error
        self.sent[request_id] += data
        if (peer := self._peers.get(request_id)) is not None:
            peer.put(data)

    async def receive(self, request_id: int) -> bytes:
        """The next that was fed."""
        return await self._streams[request_id].get()


class _Stream:
    """Peer data of one request: an end or an error stays at its place for good."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | Exception] = asyncio.Queue()

    def put(self, data: bytes | Exception) -> None:
        self._queue.put_nowait(data)

    async def get(self) -> bytes:
        data = await self._queue.get()
        if isinstance(data, Exception):
            self.put(data)
            raise data
        if not data:
            self.put(data)
        return data
