# SPDX-License-Identifier: BSD-2-Clause-Patent
"""GetQuote as a MigTD uses it: a quote over its TDREPORT, and collateral, from the host (policy.md 4.5, 4.6).

The host answers in a shared buffer, at once or later, and fires a vector. The guest copies the answer once and looks at
the copy only. Busy, which is the error status, is asked again: up to 5 times, with a new TDREPORT each time and a
pause that doubles. Everything else ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from migtd import failures
from migtd.attestation.quote.collateral import CollateralSet, pull_packed
from migtd.attestation.quote.errors import QuoteError
from migtd.errors import InvalidParameter, LabFailure, MutualAttestationError
from migtd.guest.abi import QUOTE_VECTOR
from migtd.guest.interfaces import Guest, SharedBuffer
from migtd.guest.quote_messages import (
    QUOTE_HEADER,
    QUOTE_VERSION,
    BareReport,
    CollateralRequest,
    MessageMalformed,
    QgsRefused,
    QuoteForm,
    QuoteRequest,
    QuoteStatus,
    pull_collateral_answer,
    pull_quote_answer,
    push_request,
)

MAX_QUOTE: Final = 8192
"""Most bytes of a quote (policy.md 4.1)."""
BARE_BUFFER_SIZE: Final = 64 << 10
QUOTE_BUFFER_SIZE: Final = 16 << 10
COLLATERAL_BUFFER_SIZE: Final = 128 << 10
"""Twice what the reference takes: PCK CRLs grow."""

_STATUS: Final = struct.Struct("<Q")
_STATUS_AT: Final = 8
_LENGTHS: Final = struct.Struct("<II")
_LENGTHS_AT: Final = 16
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class QuoteRetry:
    """Asking again: at most `retries` times, `first_delay` seconds before the first, twice as long before each next.

    `deadline` is how many seconds one request may stay in flight.
    """

    retries: int = 5
    first_delay: float = 0.02
    deadline: float = 60.0


class QuoteClient:
    """The GetQuote calls of one TD. Make one for a guest: it has the vector, and keeps what the host still writes to.

    Concurrent callers each have a buffer of their own. Every method raises MutualAttestationError (MIGTD-GET-QUOTE-…,
    MIGTD-DEADLINE-QUOTE), OutOfResource (MIGTD-SHARED-MEMORY-EXHAUSTED), TdxModuleError (MIGTD-TDCALL-FAILED) and
    VmmInternalError (MIGTD-CHANNEL-LOST, MIGTD-CHANNEL-MALFORMED).
    """

    def __init__(
        self,
        guest: Guest,
        retry: QuoteRetry | None = None,
        *,
        form: QuoteForm = QuoteForm.QGS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._guest = guest
        self._retry = retry or QuoteRetry()
        self._form = form
        self._sleep = sleep
        self._set_up = False
        self._set_aside: list[SharedBuffer] = []
        """Buffers that were in flight when their caller gave up."""

    async def quote(self, tdreport_of: Callable[[], bytes], form: QuoteForm | None = None) -> bytes:
        """A quote, 1 to 8,192 bytes, over what `tdreport_of` gives (TDREPORT, 1024 bytes); asked anew at each attempt.

        It is asked for in `form`, or in the client's own.

        The bytes are the host's word: nothing in them was looked at.
        """
        if (form or self._form) is QuoteForm.BARE:
            quote = await self._ask(lambda: push_request(BareReport(tdreport_of())), BARE_BUFFER_SIZE, bytes)
        else:
            quote = await self._ask(
                lambda: push_request(QuoteRequest(tdreport_of())), QUOTE_BUFFER_SIZE, pull_quote_answer
            )
        if len(quote) > MAX_QUOTE:
            raise MutualAttestationError(failures.GET_QUOTE_TOO_LARGE, f"{len(quote)} bytes")
        if not quote:
            raise MutualAttestationError(failures.GET_QUOTE_MALFORMED, "a quote of 0 bytes")
        return quote

    async def collateral(self, fmspc: bytes | None = None) -> CollateralSet:
        """The host's collateral set: for the platform of that FMSPC (6 bytes) if it has it, else for its own.

        The set is the host's word: the verifier judges it.
        """
        return await self._ask(
            lambda: push_request(CollateralRequest(fmspc)),
            COLLATERAL_BUFFER_SIZE,
            lambda data: pull_packed(pull_collateral_answer(data)),
        )

    def collateral_at_once(self, fmspc: bytes) -> CollateralSet:
        """As `collateral`, where nothing can be awaited (a TLS verify callback): one attempt.

        A host that does not answer within the call itself is a MutualAttestationError (MIGTD-DEADLINE-QUOTE).
        """
        with self._called(push_request(CollateralRequest(fmspc)), COLLATERAL_BUFFER_SIZE) as buffer:
            status = _status(buffer)
            if status == QuoteStatus.IN_FLIGHT:
                raise MutualAttestationError(failures.DEADLINE_QUOTE, "not at once")
            data = _data(buffer, status)
        if data is None:
            raise MutualAttestationError(failures.GET_QUOTE_BUSY, "1 attempt")
        return _pulled(data, lambda answer: pull_packed(pull_collateral_answer(answer)))

    async def _ask(self, request_of: Callable[[], bytes], size: int, pull: Callable[[bytes], T]) -> T:
        delay = self._retry.first_delay
        for attempt in range(self._retry.retries + 1):
            if attempt:
                await self._sleep(delay)
                delay *= 2
            data = await self._exchange(request_of(), size)
            if data is not None:
                return _pulled(data, pull)
        raise MutualAttestationError(failures.GET_QUOTE_BUSY, f"{self._retry.retries + 1} attempts")

    async def _exchange(self, request: bytes, size: int) -> bytes | None:
        """The data of one answer; None if the host is busy."""
        seen = self._guest.interrupts.count(QUOTE_VECTOR)
        with self._called(request, size) as buffer:
            try:
                async with asyncio.timeout(self._retry.deadline):
                    while (status := _status(buffer)) == QuoteStatus.IN_FLIGHT:
                        seen = await self._guest.interrupts.wait(QUOTE_VECTOR, seen)
            except TimeoutError as error:
                raise MutualAttestationError(failures.DEADLINE_QUOTE, f"{self._retry.deadline:g} s") from error
            return _data(buffer, status)

    @contextlib.contextmanager
    def _called(self, request: bytes, size: int) -> Iterator[SharedBuffer]:
        """A buffer with which GetQuote was called. Behind the block it is freed, or set aside if still in flight."""
        self._reclaim()
        self._set_up_vector()
        buffer = self._guest.memory.allocate(size)
        buffer.write(0, QUOTE_HEADER.pack(QUOTE_VERSION, QuoteStatus.SUCCESS, len(request), 0) + request)
        try:
            self._guest.vmcall.get_quote(buffer)
        except InvalidParameter as error:
            buffer.free()
            raise MutualAttestationError(failures.GET_QUOTE_REFUSED, str(error)) from error
        try:
            yield buffer
        finally:
            self._set_aside.append(buffer)
            self._reclaim()

    def _set_up_vector(self) -> None:
        if not self._set_up:
            try:
                self._guest.vmcall.setup_event_notify_interrupt(QUOTE_VECTOR)
            except InvalidParameter as error:
                raise MutualAttestationError(failures.GET_QUOTE_REFUSED, str(error)) from error
            self._set_up = True

    def _reclaim(self) -> None:
        """Free what is no longer in flight: the host is done with it."""
        in_flight = []
        for buffer in self._set_aside:
            if _status(buffer) == QuoteStatus.IN_FLIGHT:
                in_flight.append(buffer)
            else:
                buffer.free()
        self._set_aside = in_flight


async def fetch_quote(guest: Guest, tdreport_of: Callable[[], bytes], form: QuoteForm = QuoteForm.QGS) -> bytes:
    """`QuoteClient.quote` for a single call."""
    return await QuoteClient(guest, form=form).quote(tdreport_of)


async def fetch_collateral(guest: Guest, fmspc: bytes | None = None) -> CollateralSet:
    """`QuoteClient.collateral` for a single call."""
    return await QuoteClient(guest).collateral(fmspc)


def _status(buffer: SharedBuffer) -> int:
    (status,) = _STATUS.unpack(buffer.read(_STATUS_AT, _STATUS.size))
    return int(status)


def _data(buffer: SharedBuffer, status: int) -> bytes | None:
    """The data of an answered buffer in private memory; None for busy. `status` was read before, as it comes last.

    Raises MutualAttestationError (MIGTD-GET-QUOTE-MALFORMED) on an unknown status or a length beyond the buffer.
    """
    if status == QuoteStatus.ERROR:
        return None
    _, out_len = _LENGTHS.unpack(buffer.read(_LENGTHS_AT, _LENGTHS.size))
    room = buffer.size - QUOTE_HEADER.size
    if status != QuoteStatus.SUCCESS or out_len > room:
        raise MutualAttestationError(failures.GET_QUOTE_MALFORMED, f"status {status:#x}, {out_len} of {room} bytes")
    return buffer.read(QUOTE_HEADER.size, out_len)


def _pulled(data: bytes, pull: Callable[[bytes], T]) -> T:
    try:
        return pull(data)
    except QgsRefused as error:
        raise MutualAttestationError(failures.GET_QUOTE_REFUSED, f"QGS error {error.code:#x}") from error
    except (MessageMalformed, QuoteError) as error:
        raise MutualAttestationError(failures.GET_QUOTE_MALFORMED, _words(error)) from error


def _words(error: Exception) -> str:
    return (error.detail or str(error)) if isinstance(error, LabFailure) else str(error)
