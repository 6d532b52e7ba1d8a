# SPDX-License-Identifier: BSD-2-Clause-Patent
"""For tests of a MigTD: a host that answers every call of its guest as a test says, lies and silence included.

The TDX module behind it is the emulated one: it is what a guest may trust. Without a script the host behaves.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from migtd.errors import MigrationResult
from migtd.guest.abi import PAGE_SIZE, SHARED_BIT, Field, MigTdLeaf, TdCallLeaf, VmCallLeaf
from migtd.guest.channel import Registers
from migtd.guest.ghci import (
    FAILED_CANCELED,
    FAILED_PEER_GONE,
    HEADER,
    STATUS_FAILED,
    STATUS_SUCCESS,
    Request,
    pull_log_area_answer,
    pull_report_status,
    push_request,
)
from migtd.guest.interfaces import TargetTd
from migtd.migration.data import VersionRange
from migtd.migration.logging import LogEntry, pull_log_page
from vmm_stub.tdx_module.calls import TdCallFilter, TdCalls
from vmm_stub.tdx_module.module import TdxModule
from vmm_stub.tdx_module.platform import Platform
from vmm_stub.tdx_module.service_td import ServiceTd, ServiceTdParams
from vmm_stub.tdx_module.tdcs import TdcsState

PEER_GONE: Final = STATUS_FAILED | FAILED_PEER_GONE << 8
CANCELED: Final = STATUS_FAILED | FAILED_CANCELED << 8
NAME: Final = "migtd"
MEMORY: Final = 4 << 20


class LyingMemory:
    """Shared memory as a hostile host keeps it: `after_read(offset, length)` is called right behind each read.

    Stands in for the memoryview that a channel gives its guest. `raw` is the memory itself, for the host.
    """

    def __init__(self, raw: memoryview, after_read: Callable[[int, int], None], offset: int = 0) -> None:
        self.raw = raw
        self._after_read = after_read
        self._offset = offset

    def __len__(self) -> int:
        return len(self.raw)

    def __getitem__(self, where: slice) -> LyingMemory:
        start, _, _ = where.indices(len(self.raw))
        return LyingMemory(self.raw[where], self._after_read, self._offset + start)

    def __setitem__(self, where: slice, data: bytes) -> None:
        self.raw[where] = data

    def __bytes__(self) -> bytes:
        copy = bytes(self.raw)
        self._after_read(self._offset, len(copy))
        return copy

    def release(self) -> None:
        """Let the part of the memory go."""
        self.raw.release()


@dataclass(slots=True)
class GuestCall:
    """One Service.MigTD call: `offset` and `size` of its buffer, `status` the register of ReportStatus."""

    host: ScriptedHost
    leaf: MigTdLeaf
    request_id: int
    offset: int
    size: int
    vector: int
    status: int = 0

    def payload(self) -> bytes:
        """What the guest put into the buffer."""
        _, length = HEADER.unpack(self.host.raw[self.offset : self.offset + HEADER.size])
        at = self.offset + HEADER.size
        return bytes(self.host.raw[at : at + length])

    def answer(self, status: int = STATUS_SUCCESS, payload: bytes = b"", length: int | None = None) -> None:
        """Answer in place and fire the vector. `length` is the length that the header claims, if not the true one."""
        self.write(status, payload, length)
        self.host.interrupt(self.vector)

    def write(self, status: int, payload: bytes = b"", length: int | None = None) -> None:
        """Answer in place and say nothing of it."""
        room = self.host.raw[self.offset : self.offset + self.size]
        part = payload[: self.size - HEADER.size]
        room[HEADER.size : HEADER.size + len(part)] = part
        room[: HEADER.size] = HEADER.pack(status, len(payload) if length is None else length)
        self.host.on_answered(self)


@dataclass(frozen=True, slots=True)
class ReportCall:
    """One ReportStatus call as the host got it."""

    request_id: int
    result: MigrationResult
    data: bytes


class ScriptedHost:
    """The host of one TD (`migtd.guest.channel.Channel`).

    A test replaces `on_wait`, `on_report`, `on_send`, `on_receive`: each takes the call, answers it at once, later or
    never, and returns the status for R10. `on_call` sees the registers of every call first, `status_of` may refuse a
    TDCALL (TdCallFilter), and `fire` is what delivers an interrupt.
    """

    def __init__(
        self,
        *,
        versions: VersionRange | None = None,
        vcpus: int = 1,
        servtd_attr: int = 0,
        memory: memoryview | None = None,
    ) -> None:
        self.raw = memory if memory is not None else memoryview(bytearray(MEMORY))
        """The shared memory as it is."""
        self.shared_memory = self.raw
        """What the guest takes for it."""
        module = TdxModule(Platform.generate(os.urandom), versions or VersionRange(1, 1), os.urandom)
        self._tdcs = module.create_target(NAME, servtd_attr=servtd_attr)
        self._service_td = module.create_service_td(NAME, ServiceTdParams(vcpus=vcpus))
        self._tdcalls = TdCalls(module, self._filter)
        self.tdcalls: list[int] = []
        """Leaves of the TDCALLs that were made."""
        self.dec_key_writes = 0
        """TDG.SERVTD.WR calls for elements of MIG_DEC_KEY that were let through."""
        self.waiting: GuestCall | None = None
        self.receiving: dict[int, GuestCall] = {}
        self.reports: list[ReportCall] = []
        self.sent: dict[int, bytearray] = defaultdict(bytearray)
        self.fatal: list[int] = []
        """Codes of ReportFatalError."""
        self.peer: ScriptedHost | None = None
        """Where `deliver` takes what is sent."""
        self.status_of: TdCallFilter = lambda _td, _registers: None
        self.on_return: Callable[[Registers, Registers], None] = lambda _call, _answer: None
        """May change what a TDCALL answers."""
        self.vmcall_status: Callable[[MigTdLeaf], int] = lambda _: 0
        """Completion status of a TDG.VP.VMCALL<Service.MigTD>; not 0: the VMM never sees the call."""
        self.on_reported: Callable[[ReportCall], None] = lambda _: None
        self.on_answered: Callable[[GuestCall], None] = lambda _: None
        self.on_wait: Callable[[GuestCall], int] = self.wait
        self.on_report: Callable[[GuestCall], int] = self.acknowledge
        self.on_send: Callable[[GuestCall], int] = self.deliver
        self.on_receive: Callable[[GuestCall], int] = self.keep_receive
        self.on_call: Callable[[Registers], None] = lambda _: None
        self.fire: Callable[[int], None] = lambda _: None
        self._requests: deque[tuple[int, bytes]] = deque()
        self._peer_data: dict[int, deque[tuple[int, bytes]]] = defaultdict(deque)

    # --- state ---

    @property
    def target(self) -> TargetTd:
        """The target TD of this host."""
        return self._tdcs.target

    def tdcs(self) -> TdcsState:
        """A look at the target TD."""
        return self._tdcs.state()

    def reports_of(self, request_id: int) -> list[ReportCall]:
        """The ReportStatus calls of one request id."""
        return [report for report in self.reports if report.request_id == request_id]

    def log_entries(self, request_id: int) -> list[LogEntry]:
        """What stands in the log areas that the guest announced in its answer to that EnableLogArea."""
        (report,) = self.reports_of(request_id)
        offsets = [area.address ^ SHARED_BIT for area in pull_log_area_answer(report.data)]
        return [entry for at in offsets for entry in pull_log_page(bytes(self.raw[at : at + PAGE_SIZE]))]

    def lie_in_memory(self, after_read: Callable[[int, int], None]) -> None:
        """Let the guest read from a LyingMemory. For before the guest starts."""
        self.shared_memory = cast("memoryview", LyingMemory(self.raw, after_read))

    # --- what a host does by itself ---

    def put(self, request: Request) -> None:
        """Hand out a well-formed request."""
        operation, payload = push_request(request)
        self.put_raw(STATUS_SUCCESS | operation << 8, payload)

    def put_raw(self, status: int, payload: bytes) -> None:
        """Hand out any answer to WaitForRequest, now or when the guest waits for one."""
        self._requests.append((status, payload))
        self._serve_wait()

    def feed(self, request_id: int, data: bytes, status: int = STATUS_SUCCESS) -> None:
        """Data of the peer, or another end of a Receive."""
        self._peer_data[request_id].append((status, data))
        self._serve_receive(request_id)

    def interrupt(self, vector: int) -> None:
        """Fire a vector."""
        self.fire(vector)

    # --- the default script ---

    def wait(self, call: GuestCall) -> int:
        """WaitForRequest: hand out what was put."""
        self.waiting = call
        self._serve_wait()
        return 0

    def acknowledge(self, call: GuestCall) -> int:
        """ReportStatus: acknowledge."""
        call.answer()
        return 0

    def deliver(self, call: GuestCall) -> int:
        """Send: remember, and give it to the peer."""
        payload = call.payload()
        self.sent[call.request_id] += payload
        if self.peer is not None:
            self.peer.feed(call.request_id, payload)
        call.answer()
        return 0

    def keep_receive(self, call: GuestCall) -> int:
        """Receive: answer when there is data."""
        self.receiving[call.request_id] = call
        self._serve_receive(call.request_id)
        return 0

    # --- Channel ---

    def call(self, registers: Registers, data: bytes = b"") -> tuple[Registers, bytes]:
        """One call of the guest."""
        self.on_call(registers)
        if registers.rax != TdCallLeaf.VP_VMCALL:
            answer, out = self._tdcalls.tdcall(self._service_td, registers, data)
            self.on_return(registers, answer)
            return answer, out
        if registers.r11 == VmCallLeaf.REPORT_FATAL_ERROR:
            self.fatal.append(registers.r12 & 0xFFFFFFFF)
            return Registers(), b""
        if status := self.vmcall_status(MigTdLeaf(registers.r12 & 0xFFFF)):
            return Registers(rax=status), b""
        return Registers(r10=self._serve(registers)), b""

    def event(self, data: bytes) -> None:
        """Ignore: tests look at an observer of their own."""

    def listen(self, on_interrupt: Callable[[int], None], on_lost: Callable[[], None]) -> None:  # noqa: ARG002 - never lost
        """Deliver interrupts from the running loop."""
        loop = asyncio.get_running_loop()

        def fire(vector: int) -> None:
            loop.call_soon(on_interrupt, vector)

        self.fire = fire

    def close(self) -> None:
        """Nothing to do."""

    # --- inside ---

    def _filter(self, service_td: ServiceTd, registers: Registers) -> int | None:
        self.tdcalls.append(registers.rax)
        status = self.status_of(service_td, registers)
        is_key = registers.rdx in range(Field.MIG_DEC_KEY, Field.MIG_DEC_KEY + 4)
        if status is None and registers.rax == TdCallLeaf.SERVTD_WR and is_key:
            self.dec_key_writes += 1
        return status

    def _serve(self, registers: Registers) -> int:
        leaf = MigTdLeaf(registers.r12 & 0xFFFF)
        match leaf:
            case MigTdLeaf.WAIT_FOR_REQUEST:
                call = GuestCall(self, leaf, 0, registers.r14 ^ SHARED_BIT, registers.r13, registers.r15)
                return self.on_wait(call)
            case MigTdLeaf.REPORT_STATUS:
                at = registers.rbx ^ SHARED_BIT
                call = GuestCall(self, leaf, registers.r13, at, registers.r15, registers.rdi, registers.r14)
                report = ReportCall(call.request_id, pull_report_status(call.status), call.payload())
                self.reports.append(report)
                self.on_reported(report)
                return self.on_report(call)
        call = GuestCall(self, leaf, registers.r13, registers.r15 ^ SHARED_BIT, registers.r14, registers.rbx)
        return self.on_send(call) if leaf is MigTdLeaf.SEND else self.on_receive(call)

    def _serve_wait(self) -> None:
        if self.waiting is not None and self._requests:
            call, self.waiting = self.waiting, None
            call.answer(*self._requests.popleft())

    def _serve_receive(self, request_id: int) -> None:
        waiting = self._peer_data[request_id]
        if waiting and request_id in self.receiving:
            self.receiving.pop(request_id).answer(*waiting.popleft())
