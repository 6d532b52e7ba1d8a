# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The calls of Service.MigTD, awaitable: requests, reports, and the byte stream to the peer (ghci-ratls.md 3).

Each puts a buffer into shared memory, calls the VMM, and looks at the buffer whenever the vector of the call fires,
until the VMM has answered. The VMM writes payload, length and status in this order; the guest copies them in the
opposite order, so that an answer half written is never taken for one, and decides on its copies only.

A buffer is given back when the VMM has answered in it. If the guest stopped waiting before (a deadline, a cancelled
task), the VMM may still write, so the buffer stays allocated. An open WaitForRequest or Receive is taken up by the next
call of its kind: no answer is lost. Any other is set aside until its answer is there, or until the VMM has acknowledged
the report that ends the request; after that acknowledgement it writes into no buffer of the request.

Whoever waits for requests keeps one page in reserve, so that a request which failed for want of memory is still
reported.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from migtd import failures
from migtd.deadlines import Deadlines
from migtd.errors import MigrationResult, MigTDError, NetworkError, OutOfResource, TdxModuleError, VmmCanceled
from migtd.guest.abi import PAGE_SIZE, TRANSPORT_VECTOR, VMCALL_SERVICE_VECTOR
from migtd.guest.ghci import (
    FAILED_CANCELED,
    FAILED_PEER_GONE,
    HEADER,
    MAX_SEND,
    REQUEST_BUFFER_SIZE,
    SEND_BUFFER_SIZE,
    STATUS_FAILED,
    STATUS_SUCCESS,
    push_report_status,
)
from migtd.guest.interfaces import Guest, SharedBuffer
from migtd.observer import Observer, SilentObserver

_STATUS: Final = struct.Struct("<Q")
_LENGTH: Final = struct.Struct("<I")


class Completion(enum.Enum):
    """What the header of a buffer says about the call that it was given with."""

    PENDING = enum.auto()
    SUCCESS = enum.auto()
    PEER_GONE = enum.auto()
    CANCELED = enum.auto()
    MALFORMED = enum.auto()


def ghci_status(status: int, length: int, size: int) -> Completion:
    """Judge the private copy of a header: status u64, length u32; at most `size` payload bytes fit behind it.

    Byte 0 = 1 is success, and malformed if `length` is above `size`. Byte 0 = 2 with byte 1 = 3: the VMM cancelled.
    Byte 0 = 2 with byte 1 = 1 and length 0: the peer is gone. Everything else is not finished yet (ghci-ratls.md 3).
    """
    outcome, reason = status & 0xFF, status >> 8 & 0xFF
    if outcome == STATUS_SUCCESS:
        return Completion.SUCCESS if length <= size else Completion.MALFORMED
    if outcome == STATUS_FAILED and reason == FAILED_CANCELED:
        return Completion.CANCELED
    if outcome == STATUS_FAILED and reason == FAILED_PEER_GONE and length == 0:
        return Completion.PEER_GONE
    return Completion.PENDING


class GhciServices:
    """The services over one guest. `observer` is told when a report was not acknowledged.

    Besides what it names itself, each method raises InvalidParameter (MIGTD-VMCALL-REFUSED), OutOfResource
    (MIGTD-SHARED-MEMORY-EXHAUSTED) and VmmInternalError (MIGTD-CHANNEL-LOST, MIGTD-CHANNEL-MALFORMED). Requests may use
    them side by side; one request has at most one `send` and one `receive` under way, and one task waits for requests.
    """

    def __init__(self, guest: Guest, deadlines: Deadlines, observer: Observer | None = None) -> None:
        self._guest = guest
        self._deadlines = deadlines
        self._observer = observer or SilentObserver()
        self._waiting: SharedBuffer | None = None
        """Buffer of the open WaitForRequest."""
        self._receiving: dict[int, SharedBuffer] = {}
        """Buffer of the open Receive, by request id."""
        self._set_aside: list[_SetAside] = []
        """Buffers whose answer nobody waits for."""
        self._freed = asyncio.Event()
        self._reserve: SharedBuffer | None = None
        """One page for a report when there is no other; `_lent_reserve` while it serves as that."""
        self._lent_reserve: SharedBuffer | None = None

    async def wait_for_request(self) -> tuple[int, bytes]:
        """The next request: status u64 (byte 0 should be 1, byte 1 is the operation) and payload.

        Any header but an all-zero one is an answer; judging it is the caller's. A length beyond the buffer gives the
        whole buffer, which has the size of no request. Waits as long as it takes.
        """
        if self._waiting is None:
            buffer = self._allocate(REQUEST_BUFFER_SIZE)
            with self._freed_on_refusal(buffer):
                self._guest.vmcall.migtd_wait_for_request(buffer, VMCALL_SERVICE_VECTOR)
            self._waiting = buffer
            self._keep_reserve()
        buffer = self._waiting
        status, length = await self._answer(buffer, VMCALL_SERVICE_VECTOR, _holds_request)
        if not status:
            # A length without a status is no answer, or one that is being written right now. By the time a call
            # returns, the VMM has finished what it was at; what the call answers does not matter.
            with contextlib.suppress(TdxModuleError):
                self._guest.tdcall.vp_info()
            status, length = _header(buffer)
        payload = buffer.read(HEADER.size, min(length, buffer.size - HEADER.size))
        self._waiting = None
        self._free(buffer)
        return status, payload

    async def report_status(
        self,
        request_id: int,
        result: MigrationResult,
        data: bytes = b"",
        *,
        on_call: Callable[[], None] = lambda: None,
    ) -> None:
        """End a request with its result and the answer's data, in a buffer of its own.

        Returns once the VMM acknowledged, or after the report deadline without that: the guest is done with the request
        in both cases, and the observer is told of the second. While no shared memory is left, waits as long for other
        requests to give some back, so that even a request that failed for want of it is reported; OutOfResource means
        that nothing was reported. `on_call` is called right before the VMM learns of the end.
        """
        # The stream of a request ends with it: the VMM may use the id again from the moment of the call.
        ended = self._end_stream(request_id)
        buffer = await self._filled_when_there_is_room(data)
        on_call()
        with self._freed_on_refusal(buffer):
            self._guest.vmcall.migtd_report_status(
                request_id, push_report_status(result), buffer, VMCALL_SERVICE_VECTOR
            )
        try:
            async with asyncio.timeout(self._deadlines.report):
                with self._lent(buffer):
                    await self._answer(buffer, VMCALL_SERVICE_VECTOR, _is_answered)
        except TimeoutError:
            self._observer.note(
                request_id, f"the VMM did not acknowledge ReportStatus within {self._deadlines.report:g} s"
            )
        else:
            self._reclaim(ended)

    async def send(self, request_id: int, data: bytes) -> None:
        """Hand `data` to the peer in as many Sends as it takes, each at most MAX_SEND bytes; no data, no Send.

        Raises VmmCanceled, NetworkError (MIGTD-TRANSPORT-ENDED, MIGTD-TRANSPORT-MALFORMED; MIGTD-DEADLINE-WRITE if one
        Send takes longer than the write deadline), InvalidParameter (MIGTD-TRANSPORT-SETUP-FAILED).
        """
        for offset in range(0, len(data), MAX_SEND):
            await self._send(request_id, data[offset : offset + MAX_SEND])

    async def receive(self, request_id: int) -> bytes:
        """The next bytes from the peer, at most MAX_SEND; `b""` is the end of the stream: the peer is gone.

        Raises VmmCanceled, NetworkError (MIGTD-DEADLINE-READ; MIGTD-TRANSPORT-MALFORMED: success without data or beyond
        the buffer, a broken framing like any other of the transport), InvalidParameter (MIGTD-TRANSPORT-SETUP-FAILED).
        """
        if request_id not in self._receiving:
            buffer = self._allocate(SEND_BUFFER_SIZE)
            with self._freed_on_refusal(buffer):
                self._guest.vmcall.migtd_receive(request_id, buffer, TRANSPORT_VECTOR)
            self._receiving[request_id] = buffer
        buffer = self._receiving[request_id]
        try:
            async with asyncio.timeout(self._deadlines.read):
                status, length = await self._answer(buffer, TRANSPORT_VECTOR, _is_answered)
        except TimeoutError as error:
            raise NetworkError(failures.DEADLINE_READ, f"{self._deadlines.read:g} s") from error
        completion = ghci_status(status, length, buffer.size - HEADER.size)
        data = buffer.read(HEADER.size, length) if completion is Completion.SUCCESS else b""
        del self._receiving[request_id]
        self._free(buffer)
        if completion is Completion.PEER_GONE:
            return b""
        _expect_success(completion, f"Receive with status {status:#x} and length {length}")
        if not data:
            raise NetworkError(failures.TRANSPORT_MALFORMED, "Receive succeeded without data")
        return data

    async def _send(self, request_id: int, data: bytes) -> None:
        buffer = self._filled(data)
        size = buffer.size - HEADER.size
        with self._freed_on_refusal(buffer):
            self._guest.vmcall.migtd_send(request_id, buffer, TRANSPORT_VECTOR)
        try:
            async with asyncio.timeout(self._deadlines.write):
                with self._lent(buffer, request_id):
                    status, length = await self._answer(buffer, TRANSPORT_VECTOR, _is_answered)
        except TimeoutError as error:
            raise NetworkError(failures.DEADLINE_WRITE, f"{self._deadlines.write:g} s") from error
        _expect_success(ghci_status(status, length, size), f"Send with status {status:#x} and length {length}")

    async def _answer(
        self, buffer: SharedBuffer, vector: int, answered: Callable[[int, int, int], bool]
    ) -> tuple[int, int]:
        """Wait until the header satisfies `answered`; return the very copy that did.

        What wakes this wait may as well be the answer in a buffer that was set aside.
        """
        size = buffer.size - HEADER.size
        seen = self._guest.interrupts.count(vector)
        while True:
            status, length = _header(buffer)
            if answered(status, length, size):
                return status, length
            seen = await self._guest.interrupts.wait(vector, seen)
            self._reclaim()

    def _allocate(self, size: int) -> SharedBuffer:
        self._reclaim()
        return self._guest.memory.allocate(size)

    def _filled(self, data: bytes) -> SharedBuffer:
        buffer = self._allocate(HEADER.size + len(data))
        buffer.write(0, HEADER.pack(0, len(data)) + data)
        return buffer

    async def _filled_when_there_is_room(self, data: bytes) -> SharedBuffer:
        """As `_filled`, or in the reserve; what is given back within the report deadline is waited for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._deadlines.report):
                while True:
                    self._freed.clear()
                    with contextlib.suppress(OutOfResource):
                        return self._filled_somewhere(data)
                    await self._freed.wait()
        return self._filled_somewhere(data)

    def _filled_somewhere(self, data: bytes) -> SharedBuffer:
        try:
            return self._filled(data)
        except OutOfResource:
            buffer = self._reserve
            if buffer is None or HEADER.size + len(data) > buffer.size:
                raise
            self._reserve, self._lent_reserve = None, buffer
            buffer.write(0, HEADER.pack(0, len(data)) + data)
            return buffer

    def _keep_reserve(self) -> None:
        if self._reserve is None and self._lent_reserve is None:
            with contextlib.suppress(OutOfResource):
                self._reserve = self._guest.memory.allocate(PAGE_SIZE)

    def _free(self, buffer: SharedBuffer) -> None:
        if buffer is self._lent_reserve:
            self._reserve, self._lent_reserve = buffer, None
        else:
            buffer.free()
        self._freed.set()

    @contextlib.contextmanager
    def _freed_on_refusal(self, buffer: SharedBuffer) -> Iterator[None]:
        """A call that the VMM refused leaves the buffer to the guest."""
        try:
            yield
        except MigTDError:
            self._free(buffer)
            raise

    @contextlib.contextmanager
    def _lent(self, buffer: SharedBuffer, request_id: int | None = None) -> Iterator[None]:
        """Free the buffer when the block ends; set it aside when the block is left before the VMM has answered."""
        try:
            yield
        except BaseException:
            self._set_aside.append(_SetAside(buffer, request_id))
            raise
        self._free(buffer)

    def _end_stream(self, request_id: int) -> list[_SetAside]:
        """Set aside what the stream of a request still has at the VMM; a later stream does not know it."""
        receiving = self._receiving.pop(request_id, None)
        if receiving is not None:
            self._set_aside.append(_SetAside(receiving, request_id))
        ended = [each for each in self._set_aside if each.request_id == request_id]
        for each in ended:
            each.request_id = None
        return ended

    def _reclaim(self, ended: Sequence[_SetAside] = ()) -> None:
        """Free what was set aside and has been answered since, and what the VMM is known to have let go."""
        set_aside, self._set_aside = self._set_aside, []
        for each in set_aside:
            if each in ended or _is_answered(*_header(each.buffer), each.buffer.size - HEADER.size):
                self._free(each.buffer)
            else:
                self._set_aside.append(each)


@dataclass(slots=True, eq=False)
class _SetAside:
    """A buffer that the VMM may still write into, for nobody; `request_id` while the request's stream goes on."""

    buffer: SharedBuffer
    request_id: int | None = None


def _header(buffer: SharedBuffer) -> tuple[int, int]:
    # Status before length, in two copies: whoever sees the status of an answer then sees its length too.
    (status,) = _STATUS.unpack(buffer.read(0, _STATUS.size))
    (length,) = _LENGTH.unpack(buffer.read(_STATUS.size, _LENGTH.size))
    return status, length


def _holds_request(status: int, length: int, _size: int) -> bool:
    return bool(status or length)


def _is_answered(status: int, length: int, size: int) -> bool:
    return ghci_status(status, length, size) is not Completion.PENDING


def _expect_success(completion: Completion, what: str) -> None:
    match completion:
        case Completion.CANCELED:
            raise VmmCanceled(failures.CANCELED)
        case Completion.PEER_GONE:
            raise NetworkError(failures.TRANSPORT_ENDED)
        case Completion.MALFORMED:
            raise NetworkError(failures.TRANSPORT_MALFORMED, what)
        case _:
            return
