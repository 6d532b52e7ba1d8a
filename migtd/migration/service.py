# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The request loop of a MigTD: takes requests from the VMM and ends each in exactly one ReportStatus (ghci-ratls.md 1).

Requests are handed over one at a time and served concurrently, each in its own task. Errors that leave the request id
readable are reported for it; nothing that a request does or meets ends the loop, only the loss of the host.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import structlog

from migtd import failures
from migtd.attestation.mode import AttestationMode
from migtd.checks import Check, CheckName, CheckRunner
from migtd.deadlines import Deadlines
from migtd.errors import MigrationResult, MigTDError, OutOfResource, Unsupported
from migtd.guest.ghci import (
    NO_REQUEST,
    REQUESTED_REPORT_DATA,
    EnableLogArea,
    GetMigtdData,
    GetTdReport,
    PolicyVersion,
    Start,
    StartMigration,
    StartRebinding,
    pull_operation,
    pull_request,
    pull_request_id,
    push_log_area_answer,
)
from migtd.guest.interfaces import TdCall
from migtd.migration.commit import check_and_commit, local_information
from migtd.migration.driver import Transport, run_pre_session, run_rebinding_session, run_session
from migtd.migration.logging import LogLevel, MigTdLog
from migtd.migration.pre_session import PreSession
from migtd.migration.rebinding import accept, approve, own_tdinfo, read_old_side
from migtd.migration.session import RebindingContext, SessionContext, SessionFactory, SwappedPeerData
from migtd.observer import Observer, Phase

_output = structlog.get_logger("migtd")

_BAD_ANSWERS: Final = frozenset(
    {failures.REQUEST_MALFORMED, failures.REQUEST_STATUS_UNKNOWN, failures.TRANSPORT_MALFORMED}
)
"""What WaitForRequest may fail with while the host is there: it answered nonsense, the next answer may make sense."""

_PEER_CHECKS: Final = (
    frozenset({CheckName.QUOTE_PEER, CheckName.POLICY}),
    frozenset({CheckName.TDREPORT_MAC, CheckName.POLICY}),
)
"""A mode that leaves out both of one, in a migration or a rebinding, verifies nothing of its peer: it is loud."""


class RequestServices(Transport, Protocol):
    """The four MigTD services of the VMM as the core uses them (ghci-ratls.md 3)."""

    async def wait_for_request(self) -> tuple[int, bytes]:
        """Status and payload of the next completed WaitForRequest, not yet looked at."""

    async def report_status(
        self, request_id: int, result: MigrationResult, data: bytes = b"", *, on_call: Callable[[], None]
    ) -> None:
        """ReportStatus with the answer data; returns once the VMM acknowledged it or the report deadline passed.

        `on_call` is called when the VMM is about to learn of it. OutOfResource means that nothing was reported: the
        call needs a buffer, and within the report deadline there was none.
        """


class MigTd:
    """Serves the requests of one host with one attestation mode and one session protocol, both chosen at start.

    The mode says whether it works with policy v1 or v2, and with that which requests there are. `random` gives so many
    random bytes: the token of a rebinding is drawn from it.
    """

    def __init__(
        self,
        tdcall: TdCall,
        services: RequestServices,
        *,
        log: MigTdLog,
        mode: AttestationMode,
        session_factory: SessionFactory,
        deadlines: Deadlines,
        observer: Observer,
        random: Callable[[int], bytes],
    ) -> None:
        self._tdcall = tdcall
        self._services = services
        self._log = log
        self._mode = mode
        self._session_factory = session_factory
        self._deadlines = deadlines
        self._observer = observer
        self._random = random
        self._policy = PolicyVersion.V1 if mode.v2 is None else PolicyVersion.V2
        self._being_served: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Serve until the host is gone, then raise what WaitForRequest failed with (MIGTD-CHANNEL-LOST as a rule).

        Requests under way are cancelled then: there is nobody left to report to.
        """
        async with asyncio.TaskGroup() as group:
            end = await self._accept_requests(group)
            for task in self._tasks:
                task.cancel()
        raise end

    async def _accept_requests(self, group: asyncio.TaskGroup) -> MigTDError:
        while True:
            try:
                status, payload = await self._services.wait_for_request()
            except OutOfResource as error:
                if not self._tasks:
                    return error
                # The requests under way have the memory; the first that ends gives some back.
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            except MigTDError as error:
                if error.kind not in _BAD_ANSWERS:
                    return error
                self._failed(NO_REQUEST, error)
            else:
                self._accept(status, payload, group)
            # A host that answers faster than we look must not keep the requests under way from going on.
            await asyncio.sleep(0)

    def _accept(self, status: int, payload: bytes, group: asyncio.TaskGroup) -> None:
        request_id = pull_request_id(payload)
        if request_id is None:
            text = f"a request without an id was dropped: status {status:#x}, {len(payload)} bytes"
            self._log.write(LogLevel.ERROR, text)
            self._observer.note(NO_REQUEST, text)
        elif request_id in self._being_served:
            self._log.write(LogLevel.WARN, "ignored: a request with this id is being served", request_id)
            self._observer.note(request_id, "ignored: a request with this id is being served")
        else:
            self._being_served.add(request_id)
            task = group.create_task(self._serve_request(request_id, status, payload))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve_request(self, request_id: int, status: int, payload: bytes) -> None:
        self._observer.phase(request_id, Phase.ACCEPTED)
        try:
            data = await self._answer(request_id, status, payload)
        except MigTDError as error:
            self._failed(request_id, error)
            result, data = error.result, b""
        except Exception as error:  # noqa: BLE001 - whatever happens in a request, the VMM gets its answer
            _output.exception("unexpected error in a request", request_id=request_id)
            internal = Unsupported(failures.INTERNAL, type(error).__name__)
            self._failed(request_id, internal)
            result, data = internal.result, b""
        else:
            self._observer.phase(request_id, Phase.DONE)
            self._log.write(LogLevel.INFO, "done", request_id)
            result = MigrationResult.Success
        await self._report(request_id, result, data)

    async def _report(self, request_id: int, result: MigrationResult, data: bytes) -> None:
        """Make the one ReportStatus of a request. If it fails nothing is left to try, but people are told."""
        try:
            await self._report_what_fits(request_id, result, data)
        except MigTDError as error:
            text = f"ReportStatus {result.name} failed: {error.kind.id}: {error}"
        except Exception as error:  # noqa: BLE001 - one request's report must not end the others
            _output.exception("unexpected error in ReportStatus", request_id=request_id)
            text = f"ReportStatus {result.name} failed: {failures.INTERNAL.id}: {type(error).__name__}"
        else:
            return
        finally:
            self._being_served.discard(request_id)
        if result is MigrationResult.Success:
            text += "; what the request asked for was done: a migration's key is written"
        self._log.write(LogLevel.ERROR, text, request_id)
        self._observer.note(request_id, text)

    async def _report_what_fits(self, request_id: int, result: MigrationResult, data: bytes) -> None:
        """Report; an answer for which there is no buffer gives way to the failure to make one, which needs less."""

        def no_longer_served() -> None:
            # The VMM may use the id again from the call on, before it acknowledges; not earlier.
            self._being_served.discard(request_id)

        try:
            await self._services.report_status(request_id, result, data, on_call=no_longer_served)
        except OutOfResource as error:
            if not data:
                raise
            self._failed(request_id, error)
            await self._services.report_status(request_id, error.result, on_call=no_longer_served)

    async def _answer(self, request_id: int, status: int, payload: bytes) -> bytes:
        """Do what one request asks for and return the answer data."""
        request = pull_request(pull_operation(status), payload, self._policy)
        self._log.write(LogLevel.INFO, type(request).__name__, request_id)
        match request:
            case EnableLogArea():
                return push_log_area_answer(self._log.enable(request.max_level))
            case GetTdReport():
                return self._tdcall.mr_report(REQUESTED_REPORT_DATA)
            case GetMigtdData():
                return own_tdinfo(self._tdcall)
            case StartMigration():
                await self._migrate(request)
                return b""
            case StartRebinding():
                await self._rebind(request)
                return b""

    async def _migrate(self, request: StartMigration) -> None:
        request_id, is_source = request.request_id, request.is_source
        checks = self._begin(request, self._mode.skips)
        local = local_information(self._tdcall, request.target, is_source=is_source)
        swapped, early = await self._swap_peer_data(request_id)
        peer = await run_session(
            self._session_factory(SessionContext(is_source, local, self._mode, checks, swapped)),
            self._services,
            request_id,
            mode=self._mode,
            deadlines=self._deadlines,
            on_phase=lambda phase: self._observer.phase(request_id, phase),
            early=early,
        )
        self._observer.phase(request_id, Phase.COMMIT)
        check_and_commit(self._tdcall, request.target, is_source=is_source, local=local, peer=peer, checks=checks)

    async def _rebind(self, request: StartRebinding) -> None:
        request_id, target, v2 = request.request_id, request.target, self._mode.v2
        if v2 is None:
            raise Unsupported(failures.INTERNAL, "a rebinding with policy v1")
        checks = self._begin(request, v2.rebinding_skips)
        swapped, early = await self._swap_peer_data(request_id)
        if swapped is None:
            raise Unsupported(failures.INTERNAL, "a rebinding without a pre-session exchange")
        initial, random = request.initial_tdinfo, self._random
        old = read_old_side(self._tdcall, target, initial, random=random, checks=checks) if request.is_source else None
        agreed = await run_rebinding_session(
            self._session_factory.rebinding(RebindingContext(v2, checks, swapped, old)),
            self._services,
            request_id,
            mode=v2,
            deadlines=self._deadlines,
            on_phase=lambda phase: self._observer.phase(request_id, phase),
            early=early,
        )
        self._observer.phase(request_id, Phase.COMMIT)
        if request.is_source:
            approve(self._tdcall, target, agreed)
        else:
            accept(self._tdcall, agreed)

    def _begin(self, request: Start, skips: Mapping[CheckName, str]) -> CheckRunner:
        """What comes first, before anything crosses the wire: a warning, and the VMM's init data judged."""
        if any(skips.keys() >= checks for checks in _PEER_CHECKS):
            self._warn_of_mode(request.request_id)
        if request.initial_tdinfo is not None and self._mode.v2 is not None:
            self._mode.v2.check_initial_tdinfo(request.initial_tdinfo)
        return CheckRunner(skips, lambda check: self._record(request.request_id, check))

    async def _swap_peer_data(self, request_id: int) -> tuple[SwappedPeerData | None, bytes]:
        """The pre-session exchange, and what came behind it; nothing with policy v1, which has none."""
        if self._mode.v2 is None:
            return None, b""
        self._observer.phase(request_id, Phase.PRE_SESSION)
        local = self._mode.v2.peer_data
        end = await run_pre_session(PreSession(local), self._services, request_id, deadlines=self._deadlines)
        return SwappedPeerData(local, end.remote), end.rest

    def _warn_of_mode(self, request_id: int) -> None:
        text = (
            f"attestation mode {self._mode.name} verifies NOTHING of the peer: whoever answers gets the keys;"
            " use it to try things out, never to protect anything"
        )
        self._log.write(LogLevel.WARN, text, request_id)
        self._observer.note(request_id, text)

    def _record(self, request_id: int, check: Check) -> None:
        text = f"check {check.name} {check.status}"
        self._log.write(LogLevel.INFO, f"{text}: {check.detail}" if check.detail else text, request_id)
        self._observer.check(request_id, check)

    def _failed(self, request_id: int, error: MigTDError) -> None:
        self._log.write(LogLevel.ERROR, f"{error.kind.id}: {error}", request_id)
        for note in getattr(error, "__notes__", ()):
            self._log.write(LogLevel.WARN, note, request_id)
        self._observer.failed(request_id, error)
