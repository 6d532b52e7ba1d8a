# SPDX-License-Identifier: BSD-2-Clause-Patent
"""One MigTD of a host, over all the TDs that run it one after the other.

Each connection to its channel is a new TD (`attach`): fresh RTMRs, zeroed shared memory, no request and no transport of
the one before. When a TD ends (`detach`), every migration that it served ends with result Unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

import structlog

from migtd.errors import LabFailure, MigrationResult
from migtd.guest.events import CheckEvent, FailedEvent, GuestEvent, NoteEvent, PhaseEvent
from migtd.guest.ghci import LOG_AREA_REQUEST_BIT, NO_REQUEST, REPORT_REQUEST_BIT, Operation, Request
from migtd.migration.logging import LogEntry, LogLevel
from vmm_stub import failures
from vmm_stub.quoting.interface import Quoting
from vmm_stub.tdx_module.calls import TdCalls
from vmm_stub.tdx_module.module import TdxModule
from vmm_stub.tdx_module.service_td import ServiceTdParams
from vmm_stub.vmm.control.models import MigTdConfig, MigTdModel, MigTdState
from vmm_stub.vmm.errors import Conflict, MigTdLost, NotKnown, error_model
from vmm_stub.vmm.guest_text import guest_lines, guest_text
from vmm_stub.vmm.history import HistoryKind, MigTdHistory
from vmm_stub.vmm.log_area import LogAreaReader
from vmm_stub.vmm.memory_file import HostMemory
from vmm_stub.vmm.migration import STARTS, HostMigration, request_ids
from vmm_stub.vmm.td_vm import TdVm

MAX_ENDED: Final = 1024
"""Ended migrations that are remembered; the oldest go first."""

_log: Final = structlog.get_logger()
_MARKS: Final = ~(LOG_AREA_REQUEST_BIT | REPORT_REQUEST_BIT)
_SEVERITY: Final = {
    LogLevel.ERROR: "error",
    LogLevel.WARN: "warning",
    LogLevel.INFO: "info",
    LogLevel.DEBUG: "debug",
    LogLevel.TRACE: "debug",
}


class ManagedMigTd:
    """What a host knows of one MigTD. Implements `td_vm.TdOwner`.

    `on_log` is told of every entry of its log areas, `on_changed` whenever its state changed.
    """

    def __init__(
        self,
        config: MigTdConfig,
        *,
        tdx_module: TdxModule,
        history: MigTdHistory,
        on_log: Callable[[str, int, LogEntry], None],
        on_changed: Callable[[], None],
        quoting: Callable[[], Quoting | None] = lambda: None,
    ) -> None:
        self.config = config
        self.history = history
        self._tdx_module = tdx_module
        self._tdcalls = TdCalls(tdx_module)
        self._on_log = on_log
        self._on_changed = on_changed
        self._quoting = quoting
        self._state = MigTdState.ABSENT
        self._failure: LabFailure | None = None
        self._td: TdVm | None = None
        self._end_td: Callable[[], None] | None = None
        self._under_way: dict[int, HostMigration] = {}
        self._ended: dict[int, HostMigration] = {}

    @property
    def name(self) -> str:
        """Its name on this host."""
        return self.config.name

    @property
    def state(self) -> MigTdState:
        """Where it is."""
        return self._state

    def model(self) -> MigTdModel:
        """What the control API tells of it."""
        return MigTdModel(
            name=self.name,
            state=self._state,
            vcpus=self.config.vcpus,
            migrations=len(self._under_way),
            error=error_model(self._failure) if self._failure is not None else None,
        )

    # --- its TDs ---

    def attach(self, memory: HostMemory, interrupt: Callable[[int], None], end_td: Callable[[], None]) -> TdVm:
        """A new TD runs it, with that zeroed shared memory.

        `interrupt(vector)` must return at once. `end_td` is called when the TD has to be ended; it must return at once
        too, and lead to `detach`.
        """
        service_td = self._tdx_module.create_service_td(self.name, _params(self.config))
        self._failure = None
        self._end_td = end_td
        self._td = TdVm(
            memory=memory,
            tdcall=partial(self._tdcalls.tdcall, service_td),
            interrupt=interrupt,
            owner=self,
            history=self.history,
            log_areas=LogAreaReader(self.config.vcpus, self._note_log),
            quoting=self._quoting,
        )
        self._change(MigTdState.STARTING)
        return self._td

    def detach(self, failure: LabFailure) -> None:
        """The TD is gone. A reason that the TD gave itself before (ReportFatalError) stands."""
        if self._td is None:
            return
        self._td.end()
        self._td = self._end_td = None
        self._tdx_module.remove_service_td(self.name)
        self._failure = self._failure or failure
        self._change(MigTdState.LOST)
        for migration in list(self._under_way.values()):
            migration.lost(self._failure)

    # --- its migrations ---

    def ready_for(self, request_id: int) -> TdVm:
        """The TD that can take a migration with this request id.

        Raises Conflict: VMM-MIGTD-ABSENT if there is none, VMM-MIGRATION-EXISTS if one of the ids is being served.
        """
        if self._td is None:
            raise Conflict(failures.MIGTD_ABSENT, self.name)
        is_open = self._td.requests.is_open
        if request_id in self._under_way or any(map(is_open, request_ids(request_id))):
            raise Conflict(failures.MIGRATION_EXISTS, f"{self.name}, request id {request_id}")
        return self._td

    def begin(self, migration: HostMigration) -> None:
        """A migration is under way; one of the same request id that ended before is forgotten."""
        request_id = migration.request.request_id
        self._ended.pop(request_id, None)
        self._under_way[request_id] = migration

    def finish(self, migration: HostMigration) -> None:
        """The migration ended."""
        request_id = migration.request.request_id
        del self._under_way[request_id]
        self._ended[request_id] = migration
        while len(self._ended) > MAX_ENDED:
            del self._ended[next(iter(self._ended))]

    def migration(self, request_id: int) -> HostMigration:
        """The migration of that request id, under way or ended. Raises NotKnown (VMM-MIGRATION-UNKNOWN)."""
        found = self._under_way.get(request_id) or self._ended.get(request_id)
        if found is None:
            raise NotKnown(failures.MIGRATION_UNKNOWN, f"{self.name}, request id {request_id}")
        return found

    def migrations(self) -> list[HostMigration]:
        """All of them: first those that ended, in the order of their end."""
        return [*self._ended.values(), *self._under_way.values()]

    # --- TdOwner ---

    def td_waits(self) -> None:
        """WaitForRequest: it is ready."""
        if self._state is MigTdState.STARTING:
            self._change(MigTdState.READY)

    def td_accepted(self, request: Request) -> None:
        """It is about to see this request."""
        migration = self._under_way.get(request.request_id & _MARKS)
        if migration is not None:
            migration.accepted(request)

    def td_reported(self, request_id: int, operation: Operation, result: MigrationResult, data: bytes) -> None:
        """It reported the end of a request."""
        described: dict[str, object] = {"operation": operation.name, "result": result.name, "code": int(result)}
        # A failure and the start requests have no answer; what a guest puts there all the same may be anything, even a
        # key.
        is_answer = result is MigrationResult.Success and operation not in STARTS
        described |= {"data": data.hex()} if is_answer else {"length": len(data)}
        self.history.record(HistoryKind.RESULT, described, request_id)
        migration = self._under_way.get(request_id & _MARKS)
        if migration is not None:
            migration.reported(operation, result)

    def td_event(self, event: GuestEvent) -> None:
        """It lets people see something."""
        event = _printable(event)
        request_id = event.request_id
        match event:
            case PhaseEvent(_, phase):
                self.history.record(HistoryKind.PHASE, {"phase": phase.value}, request_id)
            case CheckEvent(_, check):
                data: dict[str, object] = {
                    "name": check.name.value,
                    "status": check.status.value,
                    "detail": check.detail,
                    **_explanation(check.explain),
                }
                self.history.record(HistoryKind.CHECK, data, request_id)
            case FailedEvent(_, identity, message, advice, explain):
                data = {"id": identity, "text": message, "advice": advice, **_explanation(explain)}
                self.history.record(HistoryKind.NOTE, data, request_id)
            case NoteEvent(_, text):
                self.history.record(HistoryKind.NOTE, {"text": text}, request_id)
        # By the whole id: what belongs to EnableLogArea, GetTDReport or GetMigtdData is no phase of the migration.
        migration = self._under_way.get(request_id)
        if migration is not None:
            migration.event(event)

    def td_failed(self, code: int, message: str) -> None:
        """ReportFatalError: end it, with its message as the reason."""
        self._failure = MigTdLost(failures.MIGTD_FATAL, guest_text(message) or f"code {code:#x}")
        if self._end_td is not None:
            self._end_td()

    def _note_log(self, vcpu: int, entry: LogEntry) -> None:
        request_id = None if entry.request_id == NO_REQUEST else entry.request_id
        data = {"vcpu": vcpu, "id": entry.id, "level": entry.level.name.lower(), "text": entry.text}
        self.history.record(HistoryKind.LOG, data, request_id)
        self._on_log(self.name, vcpu, entry)
        getattr(_log, _SEVERITY[entry.level])(entry.text, migtd=self.name, request_id=request_id)

    def _change(self, state: MigTdState) -> None:
        self._state = state
        data: dict[str, object] = {"state": state.value}
        if self._failure is not None:
            data["error"] = error_model(self._failure).model_dump()
            _log.warning(str(self._failure), migtd=self.name, id=self._failure.kind.id)
        self.history.record(HistoryKind.STATE, data)
        self._on_changed()


def _params(config: MigTdConfig) -> ServiceTdParams:
    """What its TDs are built with."""
    params = ServiceTdParams(vcpus=config.vcpus)
    tdinfo = replace(
        params.tdinfo,
        mrtd=params.tdinfo.mrtd if config.mrtd is None else bytes.fromhex(config.mrtd),
        mrowner=bytes.fromhex(config.mrowner),
        mrownerconfig=bytes.fromhex(config.mrownerconfig),
    )
    return replace(params, tdinfo=tdinfo)


def _printable(event: GuestEvent) -> GuestEvent:
    match event:
        case CheckEvent(_, check):
            detail, explain = guest_text(check.detail), guest_lines(check.explain)
            unchanged = detail == check.detail and explain == check.explain
            return event if unchanged else replace(event, check=replace(check, detail=detail, explain=explain))
        case FailedEvent(_, identity, message, advice, explain):
            return replace(
                event,
                id=guest_text(identity),
                message=guest_text(message),
                advice=guest_text(advice),
                explain=guest_lines(explain),
            )
        case NoteEvent(_, text):
            return replace(event, text=guest_text(text))
        case PhaseEvent():
            return event


def _explanation(lines: tuple[str, ...]) -> dict[str, object]:
    return {"explain": list(lines)} if lines else {}
