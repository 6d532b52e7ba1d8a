# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Requests on their way to one TD: queued, handed out one by one, reported once (ghci-ratls.md 3.1)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from migtd.guest.abi import TDG_VP_VMCALL_GPA_INUSE
from migtd.guest.ghci import STATUS_SUCCESS, Operation, Request, push_request
from vmm_stub.vmm.guest_buffer import CallRefused, GuestBuffer


class RequestQueue:
    """Requests of one TD in the order in which they were put.

    A request id is open from `put` until it was reported; while it is, it cannot be put again. `handed_out` is told of
    each request just before the guest can see it.
    """

    def __init__(self, handed_out: Callable[[Request], None]) -> None:
        self._handed_out = handed_out
        self._queue: deque[Request] = deque()
        self._slot: GuestBuffer | None = None
        self._open: dict[int, Operation | None] = {}
        """Operation by request id, None while it is still queued."""

    def is_open(self, request_id: int) -> bool:
        """Whether the id is queued or being served."""
        return request_id in self._open

    def put(self, request: Request) -> None:
        """Queue one request; it goes out at once if the guest waits. Raises ValueError if its id is open."""
        if request.request_id in self._open:
            raise ValueError(f"request id {request.request_id:#x} is open")
        self._open[request.request_id] = None
        self._queue.append(request)
        self._match()

    def wait(self, buffer: GuestBuffer) -> None:
        """Service.MigTD.WaitForRequest. Raises CallRefused if one is pending."""
        if self._slot is not None:
            raise CallRefused(TDG_VP_VMCALL_GPA_INUSE)
        self._slot = buffer
        self._match()

    def served(self, request_id: int) -> Operation:
        """The operation of a request that the guest may report.

        Raises CallRefused if it was not handed out or is done.
        """
        operation = self._open.get(request_id)
        if operation is None:
            raise CallRefused
        return operation

    def reported(self, request_id: int) -> None:
        """The request is done; its id may be used again."""
        del self._open[request_id]

    def withdraw(self, request_id: int) -> None:
        """Take back a request that the guest has not seen yet; otherwise nothing happens."""
        if self._open.get(request_id, Operation.StartMigration) is None:
            del self._open[request_id]
            self._queue = deque(each for each in self._queue if each.request_id != request_id)

    def forget(self) -> None:
        """The TD ended: its buffer must not be touched any more."""
        self._slot = None

    def _match(self) -> None:
        if self._slot is None or not self._queue:
            return
        request = self._queue.popleft()
        buffer, self._slot = self._slot, None
        operation, payload = push_request(request)
        self._open[request.request_id] = operation
        self._handed_out(request)
        buffer.complete(STATUS_SUCCESS | operation << 8, payload)
