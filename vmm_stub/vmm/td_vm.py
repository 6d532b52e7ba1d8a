# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The VMM's view of one running TD: every call that leaves it, every interrupt that goes in (ghci-ratls.md 2 and 3).

Sans-IO: whoever moves the messages (channel_server.py, in_process.py) calls `handle_call` and `handle_event`, and is
called back with interrupts. What a guest passes never raises and never reaches outside its shared memory: a wrong
operand is answered in R10, as GHCI says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

from migtd.errors import InvalidParameter, LabFailure, MigrationResult
from migtd.guest.abi import MIGTD_API_VERSION, MigTdLeaf, TdCallLeaf, VmCallLeaf
from migtd.guest.channel import Registers
from migtd.guest.events import GuestEvent, pull_event
from migtd.guest.ghci import TDINFO_SIZE, Operation, Request, pull_log_area_answer, pull_report_status
from vmm_stub import failures
from vmm_stub.quoting.interface import Quoting
from vmm_stub.tdx_module.report import TDREPORT_SIZE
from vmm_stub.vmm.call_record import describe_call
from vmm_stub.vmm.delivery import Delivery
from vmm_stub.vmm.guest_buffer import CallRefused, GuestBuffer, GuestMemory, claim_buffer
from vmm_stub.vmm.history import HistoryKind, MigTdHistory
from vmm_stub.vmm.log_area import LogAreaReader
from vmm_stub.vmm.memory_file import HostMemory
from vmm_stub.vmm.quote_calls import QuoteCalls
from vmm_stub.vmm.requests import RequestQueue

TdCallHandler: TypeAlias = Callable[[Registers, bytes], tuple[Registers, bytes]]
"""The TDX module's TDCALLs, for one service TD."""

_START_MIGRATION_SIZE: Final = 56
_ANSWER_SIZES: Final = {Operation.GetTDReport: TDREPORT_SIZE, Operation.GetMigtdData: TDINFO_SIZE}
_FATAL_MESSAGE: Final = 1 << 63
_MAX_FATAL_TEXT: Final = 4096
_LEAF_BITS: Final = 0xFFFF


class TdOwner(Protocol):
    """Told of what a TD does. Must not raise; called inside `handle_call`, so it must not wait either."""

    def td_waits(self) -> None:
        """The TD called WaitForRequest."""

    def td_accepted(self, request: Request) -> None:
        """The TD is about to see this request."""

    def td_reported(self, request_id: int, operation: Operation, result: MigrationResult, data: bytes) -> None:
        """The TD reported the end of a request, with the answer data. The one report of this request."""

    def td_event(self, event: GuestEvent) -> None:
        """The TD lets people see something."""

    def td_failed(self, code: int, message: str) -> None:
        """ReportFatalError: the TD is to be ended."""


class TdVm:
    """One TD: its shared memory, its requests, the transports of its migrations, its log areas.

    `interrupt(vector)` delivers an interrupt and must return at once. `quoting` gives the host's quoting service of the
    moment, if there is one.
    """

    def __init__(
        self,
        *,
        memory: HostMemory,
        tdcall: TdCallHandler,
        interrupt: Callable[[int], None],
        owner: TdOwner,
        history: MigTdHistory,
        log_areas: LogAreaReader,
        quoting: Callable[[], Quoting | None] = lambda: None,
    ) -> None:
        self._memory = GuestMemory(memory)
        self._tdcall = tdcall
        self._deliver_interrupt = interrupt
        self._owner = owner
        self._history = history
        self._log_areas = log_areas
        self._deliveries: dict[int, Delivery] = {}
        self._quotes = QuoteCalls(self._memory, quoting, self._interrupt, self._note_refused_quote)
        self._ended = False
        self.requests = RequestQueue(owner.td_accepted)
        self._vmcalls: dict[int, Callable[[Registers], None]] = {
            VmCallLeaf.GET_QUOTE: self._get_quote,
            VmCallLeaf.REPORT_FATAL_ERROR: self._report_fatal_error,
            VmCallLeaf.SETUP_EVENT_NOTIFY_INTERRUPT: self._setup_event_notify_interrupt,
            VmCallLeaf.MIGTD: self._migtd,
        }
        """The older Service call belongs to the vsock transport; without it, it is an unknown leaf."""
        self._migtd_calls: dict[int, Callable[[Registers], None]] = {
            MigTdLeaf.WAIT_FOR_REQUEST: self._wait_for_request,
            MigTdLeaf.REPORT_STATUS: self._report_status,
            MigTdLeaf.SEND: self._send,
            MigTdLeaf.RECEIVE: self._receive,
        }

    def handle_call(self, registers: Registers, data: bytes = b"") -> tuple[Registers, bytes]:
        """One call of the guest: registers and data after it."""
        self._log_areas.poll(self._memory)
        if registers.rax == TdCallLeaf.VP_VMCALL:
            after, answer = Registers(r10=self._vmcall(registers)), b""
        else:
            after, answer = self._tdcall(registers, data)
        self._history.record(HistoryKind.CALL, describe_call(registers, data, after, answer), _request_of(registers))
        return after, answer

    def handle_event(self, data: bytes) -> None:
        """One EVENT message of the guest. Raises VmmInternalError (MIGTD-CHANNEL-MALFORMED) at a line that is none."""
        for line in data.split(b"\n"):
            self._owner.td_event(pull_event(line))

    def open_transport(self, request_id: int, delivery: Delivery) -> None:
        """From now on, Send and Receive of this request go there."""
        self._deliveries[request_id] = delivery

    def close_transport(self, request_id: int) -> None:
        """From now on, Send and Receive of this request are refused."""
        delivery = self._deliveries.pop(request_id, None)
        if delivery is not None:
            delivery.forget()

    def end(self) -> None:
        """The TD is gone: read its last words, then never touch its memory again."""
        if not self._ended:
            self._ended = True
            self._log_areas.poll(self._memory)
            self._quotes.end()
            self.requests.forget()
            for request_id in list(self._deliveries):
                self.close_transport(request_id)

    def _interrupt(self, vector: int) -> None:
        self._history.record(HistoryKind.INTERRUPT, {"vector": hex(vector)})
        self._deliver_interrupt(vector)

    def _vmcall(self, registers: Registers) -> int:
        """TDG.VP.VMCALL: the status for R10."""
        serve = self._vmcalls.get(registers.r11) if registers.r10 == 0 else None
        try:
            if serve is None:
                raise CallRefused  # noqa: TRY301 - one place turns refusals into a status
            serve(registers)
        except CallRefused as refused:
            return refused.status
        return 0

    def _migtd(self, registers: Registers) -> None:
        serve = self._migtd_calls.get(registers.r12 & _LEAF_BITS)
        if serve is None or registers.r12 >> 16 != MIGTD_API_VERSION:
            raise CallRefused
        serve(registers)

    def _claim(self, gpa: int, size: int, vector: int, *, minimum: int = 0) -> GuestBuffer:
        return claim_buffer(self._memory, gpa, size, vector, self._interrupt, minimum=minimum)

    def _wait_for_request(self, registers: Registers) -> None:
        room = _START_MIGRATION_SIZE + TDINFO_SIZE
        buffer = self._claim(registers.r14, registers.r13, registers.r15, minimum=room)
        self.requests.wait(buffer)
        self._owner.td_waits()

    def _report_status(self, registers: Registers) -> None:
        request_id = registers.r13
        try:
            buffer = self._claim(registers.rbx, registers.r15, registers.rdi)
            operation = self.requests.served(request_id)
            data = buffer.take()
            result = pull_report_status(registers.r14)
            self._take_answer(operation, result, data)
        except InvalidParameter as error:
            self._note_refused_report(request_id, str(error))
            raise CallRefused from error
        except CallRefused:
            self._note_refused_report(request_id, "wrong buffer, or a request that is not being served")
            raise
        self.requests.reported(request_id)
        self._owner.td_reported(request_id, operation, result, data)
        # Last: once it sees this, the guest counts on the request's other buffers being its own again.
        buffer.complete()

    def _take_answer(self, operation: Operation, result: MigrationResult, data: bytes) -> None:
        """Raises InvalidParameter or CallRefused if the data is no answer to the operation."""
        if result is not MigrationResult.Success:
            return
        if operation is Operation.EnableLogArea:
            self._log_areas.enable(self._memory, pull_log_area_answer(data))
        elif len(data) != _ANSWER_SIZES.get(operation, len(data)):
            raise CallRefused

    def _note_refused_report(self, request_id: int, detail: str) -> None:
        kind = failures.REPORT_REFUSED
        self._history.record(HistoryKind.NOTE, {"id": kind.id, "text": f"{kind.summary}: {detail}"}, request_id)

    def _send(self, registers: Registers) -> None:
        self._transport(registers).post_send(self._claim(registers.r15, registers.r14, registers.rbx))

    def _receive(self, registers: Registers) -> None:
        self._transport(registers).post_receive(self._claim(registers.r15, registers.r14, registers.rbx))

    def _transport(self, registers: Registers) -> Delivery:
        try:
            return self._deliveries[registers.r13]
        except KeyError:
            raise CallRefused from None

    def _get_quote(self, registers: Registers) -> None:
        self._quotes.get_quote(registers.r12, registers.r13)

    def _setup_event_notify_interrupt(self, registers: Registers) -> None:
        self._quotes.setup(registers.r12)

    def _note_refused_quote(self, error: LabFailure) -> None:
        self._history.record(HistoryKind.NOTE, {"id": error.kind.id, "text": str(error)})

    def _report_fatal_error(self, registers: Registers) -> None:
        message = b""
        if registers.r12 & _FATAL_MESSAGE:
            offset = self._memory.offset(registers.r13, 1)
            message = self._memory.read(offset, _MAX_FATAL_TEXT).partition(b"\0")[0]
        self._owner.td_failed(registers.r12 & ~_FATAL_MESSAGE, message.decode("utf-8", "replace"))


def _request_of(registers: Registers) -> int | None:
    """The request id in the registers of a call that has one there."""
    if registers.rax == TdCallLeaf.VP_VMCALL and registers.r11 == VmCallLeaf.MIGTD:
        leaf = registers.r12 & _LEAF_BITS
        return registers.r13 if leaf in (MigTdLeaf.REPORT_STATUS, MigTdLeaf.SEND, MigTdLeaf.RECEIVE) else None
    return None
