# SPDX-License-Identifier: BSD-2-Clause-Patent
"""GetQuote and SetupEventNotifyInterrupt of one TD: from its buffer to the quoting service and back (policy.md 4.6)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from migtd.guest.abi import TDG_VP_VMCALL_GPA_INUSE
from migtd.guest.quote_messages import QUOTE_HEADER, QUOTE_VERSION, QuoteStatus
from vmm_stub import failures
from vmm_stub.quoting.errors import QuotingError
from vmm_stub.quoting.interface import Quoting
from vmm_stub.vmm.guest_buffer import CallRefused, GuestMemory, check_vector

_STATUS: Final = struct.Struct("<Q")
_STATUS_AT: Final = 8
_OUT_LEN: Final = struct.Struct("<I")
_OUT_LEN_AT: Final = 20

Note: TypeAlias = Callable[[QuotingError], None]


class QuoteCalls:
    """Serves one TD. `service` gives the host's quoting service of the moment, or None: it may come and go.

    `refused` is told why a request got no answer; the guest only learns that it did not.
    """

    def __init__(
        self,
        memory: GuestMemory,
        service: Callable[[], Quoting | None],
        interrupt: Callable[[int], None],
        refused: Note,
    ) -> None:
        self._memory = memory
        self._service = service
        self._interrupt = interrupt
        self._refused = refused
        self._vector = 0
        self._in_flight: set[_Buffer] = set()
        self._ended = False

    def setup(self, vector: int) -> None:
        """SetupEventNotifyInterrupt. Raises CallRefused."""
        check_vector(vector)
        self._vector = vector

    def get_quote(self, gpa: int, size: int) -> None:
        """GetQuote: the buffer is in flight when this returns, or answered. Without a service its status is an error.

        Raises CallRefused: on a buffer outside of shared memory, one that overlaps another in flight (GPA_INUSE), a
        version that is not 1, an in_len of 0 or beyond the buffer.
        """
        if size < QUOTE_HEADER.size:
            raise CallRefused
        buffer = _Buffer(self._memory.offset(gpa, size), size)
        if any(buffer.overlaps(other) for other in self._in_flight):
            raise CallRefused(TDG_VP_VMCALL_GPA_INUSE)
        service = self._service()
        if service is None:
            self._complete(buffer, QuoteStatus.ERROR, b"")
            return
        version, _, in_len, _ = QUOTE_HEADER.unpack(self._memory.read(buffer.offset, QUOTE_HEADER.size))
        if version != QUOTE_VERSION or not 0 < in_len <= buffer.room:
            raise CallRefused
        request = self._memory.read(buffer.offset + QUOTE_HEADER.size, in_len)
        self._write_out_len(buffer, 0)
        self._write_status(buffer, QuoteStatus.IN_FLIGHT)
        self._in_flight.add(buffer)
        try:
            service.get_quote(request, lambda status, data: self._complete(buffer, status, data))
        except QuotingError as error:
            self._refused(error)
            self._complete(buffer, QuoteStatus.SUCCESS if error.answer else QuoteStatus.ERROR, error.answer)

    def end(self) -> None:
        """The TD is gone: answers that are under way reach nobody."""
        self._ended = True
        self._in_flight.clear()

    def _complete(self, buffer: _Buffer, status: QuoteStatus, data: bytes) -> None:
        """Data and length first, the status last: it is what the guest looks at."""
        if self._ended:
            return
        if len(data) > buffer.room:
            detail = f"{len(data)} bytes, {buffer.room} fit"
            self._refused(QuotingError(failures.QUOTING_ANSWER_TOO_LARGE, detail))
            status, data = QuoteStatus.ERROR, b""
        self._memory.write(buffer.offset + QUOTE_HEADER.size, data)
        self._write_out_len(buffer, len(data))
        self._write_status(buffer, status)
        self._in_flight.discard(buffer)
        if self._vector:
            self._interrupt(self._vector)

    def _write_status(self, buffer: _Buffer, status: QuoteStatus) -> None:
        self._memory.write(buffer.offset + _STATUS_AT, _STATUS.pack(status))

    def _write_out_len(self, buffer: _Buffer, length: int) -> None:
        self._memory.write(buffer.offset + _OUT_LEN_AT, _OUT_LEN.pack(length))


@dataclass(frozen=True, slots=True)
class _Buffer:
    offset: int
    size: int

    @property
    def room(self) -> int:
        """Most bytes of data."""
        return self.size - QUOTE_HEADER.size

    def overlaps(self, other: _Buffer) -> bool:
        """Whether they share a byte."""
        return self.offset < other.offset + other.size and other.offset < self.offset + self.size
