# SPDX-License-Identifier: BSD-2-Clause-Patent
"""One migration as its host runs it: transport, requests, outcome (ghci-ratls.md 1, 3 and 4).

preparing   the wire is being opened; destinations already listen
running     EnableLogArea, GetTDReport and StartMigration are queued, or EnableLogArea, GetMigtdData and
            StartRebinding; they are even if the wire could not be opened
ended       reported by the MigTD, or given up: the MigTD was lost or stayed silent
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from migtd.deadlines import Deadlines
from migtd.errors import LabFailure, MigrationResult
from migtd.guest.events import CheckEvent, FailedEvent, GuestEvent, NoteEvent, PhaseEvent
from migtd.guest.ghci import (
    LOG_AREA_REQUEST_BIT,
    REPORT_DATA_SIZE,
    REPORT_REQUEST_BIT,
    EnableLogArea,
    GetMigtdData,
    GetTdReport,
    Operation,
    Request,
    Start,
    StartMigration,
    StartRebinding,
)
from migtd.guest.interfaces import TargetTd
from vmm_stub import failures
from vmm_stub.tdx_module.tdcs import TdcsState
from vmm_stub.vmm.address import format_address, parse_address
from vmm_stub.vmm.control.models import (
    ErrorModel,
    MigrationModel,
    MigrationRequest,
    MigrationState,
    Role,
    SessionOperation,
    SideOutcome,
)
from vmm_stub.vmm.delivery import Delivery
from vmm_stub.vmm.errors import MigTdLost
from vmm_stub.vmm.history import HistoryKind, MigTdHistory
from vmm_stub.vmm.link import Link
from vmm_stub.vmm.side_record import SideRecord
from vmm_stub.vmm.td_vm import TdVm
from vmm_stub.vmm.wire import WireError
from vmm_stub.vmm.wire_setup import Listener, connect, listen

SILENCE_MARGIN: Final = 5.0
"""Seconds beyond the MigTD's own deadlines after which it counts as silent."""


@dataclass(frozen=True, slots=True)
class MigrationSettings:
    """What all migrations of a host share. `clock` is seconds since 1970, `monotonic` seconds from anywhere."""

    wire_address: str
    wire_name: str
    deadlines: Deadlines
    log_level: int
    clock: Callable[[], float]
    monotonic: Callable[[], float]


STARTS: Final = frozenset({Operation.StartMigration, Operation.StartRebinding})
"""The requests whose report is the end of a run."""


def request_ids(request_id: int) -> tuple[int, int, int]:
    """The ids of the three requests of a run: EnableLogArea, GetTDReport or GetMigtdData, and the start request."""
    return request_id | LOG_AREA_REQUEST_BIT, request_id | REPORT_REQUEST_BIT, request_id


class HostMigration:
    """One side of one migration, or of the preparation of a rebinding.

    `look` shows the target TD whose key it writes, or None if there is none. `ended` is set once `model().outcome`
    stands; `on_ended` is told then. Implements `link.LinkObserver`.
    """

    def __init__(
        self,
        request: MigrationRequest,
        *,
        td: TdVm,
        settings: MigrationSettings,
        history: MigTdHistory,
        look: Callable[[], TdcsState | None],
        on_ended: Callable[[HostMigration], None],
    ) -> None:
        self.request = request
        self.ended = asyncio.Event()
        self._td = td
        self._settings = settings
        self._history = history
        self._look = look
        self._before = look()
        self._on_ended = on_ended
        self._record = SideRecord(settings.monotonic)
        self._started = settings.clock()
        self._state = MigrationState.PREPARING
        self._address: str | None = None
        self._outcome: SideOutcome | None = None
        self._delivery = Delivery()
        self._listener: Listener | None = None
        self._link: Link | None = None
        self._cancelled = False
        self._opening: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None
        self._silence: asyncio.Timeout | None = None
        td.open_transport(request.request_id, self._delivery)

    # --- for the host ---

    async def start(self) -> None:
        """Let a destination listen, then go on in the background. Failures of the wire are the MigTD's to report."""
        self._note_state(
            {
                "operation": self.request.operation.value,
                "role": self.request.role.value,
                "peer": self.request.peer,
                "binding_handle": hex(self.request.binding_handle),
                "uuid": [hex(word) for word in self.request.uuid],
            }
        )
        if self.request.role is Role.DESTINATION:
            try:
                self._listener = await listen(self._settings.wire_address, self.request.listen_port)
            except WireError as error:
                self._wire_failed(error)
            else:
                self._address = format_address(self._settings.wire_name, self._listener.port)
                self._note(f"listening on port {self._listener.port}")
        if self._outcome is None:
            self._opening = asyncio.create_task(self._open())
            # Not `Listener.accept` alone: a task that is cancelled before its first step closes nothing by itself.
            # And only behind it: the event loop still watches the socket when the task is asked to end.
            self._opening.add_done_callback(lambda _: self._close_listener())
            if self._cancelled:
                self._opening.cancel()
            self._running = asyncio.create_task(self._run())
        else:
            self._close_listener()

    def cancel(self) -> None:
        """Cancel: the pending and every later Send and Receive of the MigTD says so. Nothing if it has ended."""
        if self._outcome is None:
            self._note("cancelled by the VMM")
            self._cancelled = True
            self._delivery.cancel()
            if self._opening is not None:
                self._opening.cancel()

    def lost(self, error: LabFailure) -> None:
        """The MigTD is gone, or the host: give up."""
        if self._outcome is None:
            self._end(self._record.lost(error, self._before, self._look()))

    async def closed(self) -> None:
        """Return once no task of it is left, its connection included. For after the end."""
        tasks = [task for task in (self._opening, self._running) if task is not None]
        if tasks:
            await asyncio.wait(tasks)
        if self._link is not None:
            await self._link.closed()

    def model(self) -> MigrationModel:
        """What the control API tells of it."""
        return MigrationModel(
            migtd=self.request.migtd,
            request_id=self.request.request_id,
            operation=self.request.operation,
            role=self.request.role,
            state=self._state,
            address=self._address,
            started=self._started,
            duration_ms=self._record.duration_ms,
            phases_ms=self._record.phases_ms,
            outcome=self._outcome,
        )

    # --- from the MigTD ---

    def accepted(self, request: Request) -> None:
        """The MigTD took one of the three requests. Its deadlines for the start request count from now."""
        self._record.trace(f"the MigTD took {type(request).__name__}")
        if isinstance(request, Start) and self._silence is not None and not self._silence.expired():
            self._silence.reschedule(asyncio.get_running_loop().time() + self._patience)

    def reported(self, operation: Operation, result: MigrationResult) -> None:
        """The MigTD reported one of the three requests; the start request is the end."""
        if self._outcome is not None:
            return
        if operation in STARTS:
            self._end(self._record.reported(result, self._before, self._look()))
        else:
            self._record.trace(f"{operation.name}: {result.name}")

    def event(self, event: GuestEvent) -> None:
        """The MigTD lets people see something of this migration."""
        if self._outcome is not None:
            return
        match event:
            case PhaseEvent(_, phase):
                self._record.phase(phase)
            case CheckEvent(_, check):
                self._record.check(check)
            case FailedEvent(_, identity, message, advice, explain):
                error = ErrorModel(id=identity, message=message, advice=advice, explain=list(explain))
                self._record.guest_failed(error)
            case NoteEvent(_, text):
                self._record.trace(text)

    # --- from the wire ---

    def frame_sent(self, payload: bytes) -> None:
        """A frame went out."""
        self._note_frame("sent", payload)

    def frame_received(self, payload: bytes) -> None:
        """A frame came in."""
        self._note_frame("received", payload)

    def wire_ended(self, error: WireError | None) -> None:
        """The peer's stream is over."""
        self._note("the other host ended the stream" if error is None else f"{error.kind.id}: {error}")

    # --- inside ---

    async def _open(self) -> None:
        limit = self._settings.deadlines.connect
        if self._listener is not None:
            await self._listener.accept(self._make_link, limit)
        elif self.request.peer is not None:
            await connect(parse_address(self.request.peer), self._make_link, limit)

    def _make_link(self) -> Link:
        self._link = Link(self._delivery, self)
        return self._link

    async def _run(self) -> None:
        try:
            await self._opened()
            if self._outcome is None:
                self._queue()
                await self._await_report()
        finally:
            # Only a defect or the end of the event loop comes here without an outcome.
            self.lost(MigTdLost(failures.HOST_STOPPED))

    async def _opened(self) -> None:
        if self._opening is None:
            return
        await asyncio.wait({self._opening})
        if self._opening.cancelled():
            return
        error = self._opening.exception()
        if isinstance(error, WireError):
            self._wire_failed(error)
        elif error is not None:
            raise error
        elif self._link is not None:
            self._note("connected to the other host")

    def _queue(self) -> None:
        self._state = MigrationState.RUNNING
        self._note_state({})
        log_area, report, start = request_ids(self.request.request_id)
        target = TargetTd(self.request.binding_handle, self.request.uuid)
        is_source, initial_tdinfo = self.request.role is Role.SOURCE, self.request.initial_tdinfo
        self._td.requests.put(EnableLogArea(log_area, self._settings.log_level))
        if self.request.operation is SessionOperation.MIGRATION:
            self._td.requests.put(GetTdReport(report, bytes(REPORT_DATA_SIZE)))
            self._td.requests.put(StartMigration(start, is_source, target, initial_tdinfo))
        else:
            self._td.requests.put(GetMigtdData(report, bytes(REPORT_DATA_SIZE)))
            self._td.requests.put(StartRebinding(start, is_source, target, initial_tdinfo))

    @property
    def _patience(self) -> float:
        """Seconds that the MigTD has: to take the start request, and from then on to report its end."""
        limits = self._settings.deadlines
        return limits.pre_session + limits.session + limits.report + SILENCE_MARGIN

    async def _await_report(self) -> None:
        try:
            async with asyncio.timeout(self._patience) as self._silence:
                await self.ended.wait()
        except TimeoutError:
            self.lost(MigTdLost(failures.MIGTD_SILENT, f"{self._patience:g} s"))

    def _wire_failed(self, error: WireError) -> None:
        self._record.host_failed(error)
        self._history.record(HistoryKind.NOTE, {"id": error.kind.id, "text": str(error)}, self.request.request_id)

    def _end(self, outcome: SideOutcome) -> None:
        self._outcome = outcome
        self._state = MigrationState.ENDED
        self._note_state({"result": outcome.result, "code": outcome.code, "key_written": outcome.key_written})
        for request_id in request_ids(self.request.request_id):
            self._td.requests.withdraw(request_id)
        if self._opening is not None:
            self._opening.cancel()
        if self._link is not None and outcome.code is not None:
            self._link.finish()
        elif self._link is not None:
            self._link.close()
        self._td.close_transport(self.request.request_id)
        self.ended.set()
        self._on_ended(self)

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()

    def _note(self, text: str) -> None:
        self._record.trace(text)
        self._history.record(HistoryKind.NOTE, {"text": text}, self.request.request_id)

    def _note_state(self, data: dict[str, object]) -> None:
        self._history.record(HistoryKind.STATE, {"state": self._state.value, **data}, self.request.request_id)

    def _note_frame(self, direction: str, payload: bytes) -> None:
        data = {"direction": direction, "length": len(payload), "payload": payload.hex()}
        self._history.record(HistoryKind.FRAME, data, self.request.request_id)
