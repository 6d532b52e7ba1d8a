# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The asyncio shell around the protocols: moves bytes, fetches evidence, keeps the deadlines (ghci-ratls.md 5)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeAlias

from migtd import failures
from migtd.attestation.mode import AttestationMode, Evidence, PolicyV2Mode
from migtd.deadlines import Deadlines
from migtd.errors import MigTDError, NetworkError
from migtd.migration.data import ExchangeInformation
from migtd.migration.pre_session import PreSession, PreSessionResult
from migtd.migration.session import (
    EvidenceNeeded,
    PeerInformation,
    PhaseEntered,
    RebindingAgreed,
    SessionProtocol,
)
from migtd.observer import Phase

PORTION: Final = 4096
"""Most bytes that a session gets in one turn of the event loop: 150 of the smallest TLS records."""


class Transport(Protocol):
    """Delivery of one request's bytes to and from its peer (Service.MigTD.Send and Receive, ghci-ratls.md 3)."""

    async def send(self, request_id: int, data: bytes) -> None:
        """Hand over all of `data`. Raises NetworkError, VmmCanceled or InvalidParameter (no transport)."""

    async def receive(self, request_id: int) -> bytes:
        """Some bytes from the peer; `b""` is the end of the stream. Raises as `send` does."""


async def run_session(
    session: SessionProtocol,
    transport: Transport,
    request_id: int,
    *,
    mode: AttestationMode,
    deadlines: Deadlines,
    on_phase: Callable[[Phase], None],
    early: bytes = b"",
) -> ExchangeInformation:
    """Drive one session to its end and return what the peer sent; everything this side has to say was handed over.

    `early` is what came of it with the pre-session exchange. `on_phase` hears of each phase that the session enters.
    Raises what the session refuses with, what the transport ends with, or NetworkError (MIGTD-DEADLINE-SESSION). A
    refusal's last words (an alert) are still sent, within the same deadline; if they cannot be, the refusal is raised
    all the same and carries a note of it.
    """
    driver = _Driver(session, transport, request_id, mode.local_evidence, on_phase)
    end = await _run_in_time(driver, deadlines, early)
    if not isinstance(end, PeerInformation):
        raise RuntimeError("a session of a migration that ends as another")  # noqa: TRY004 - a defect, not a type
    return end.information


async def run_rebinding_session(
    session: SessionProtocol,
    transport: Transport,
    request_id: int,
    *,
    mode: PolicyV2Mode,
    deadlines: Deadlines,
    on_phase: Callable[[Phase], None],
    early: bytes = b"",
) -> RebindingAgreed:
    """As `run_session`, for a session of a rebinding."""
    driver = _Driver(session, transport, request_id, mode.local_report, on_phase)
    end = await _run_in_time(driver, deadlines, early)
    if not isinstance(end, RebindingAgreed):
        raise RuntimeError("a session of a rebinding that ends as another")  # noqa: TRY004 - a defect, not a type
    return end


async def run_pre_session(
    exchange: PreSession, transport: Transport, request_id: int, *, deadlines: Deadlines
) -> PreSessionResult:
    """Drive the exchange before the session to its end; everything that this side has to say was handed over.

    Raises what the exchange refuses with, what the transport ends with, or NetworkError (MIGTD-DEADLINE-PRE-SESSION).
    """
    try:
        async with asyncio.timeout(deadlines.pre_session) as scope:
            return await _exchange(exchange, transport, request_id)
    except TimeoutError as error:
        if not scope.expired():
            raise
        raise NetworkError(failures.DEADLINE_PRE_SESSION, f"{deadlines.pre_session:g} s") from error


async def _exchange(exchange: PreSession, transport: Transport, request_id: int) -> PreSessionResult:
    """Send while receiving: where both sides have much to say, neither may wait for the other to listen first."""

    async def flush() -> None:
        while data := exchange.data_to_send():
            await transport.send(request_id, data)

    sending: asyncio.Task[None] | None = None
    try:
        while True:
            if sending is None or sending.done():
                if sending is not None:
                    sending.result()
                sending = asyncio.create_task(flush())
            if exchange.result is not None:
                await sending
                await flush()
                return exchange.result
            exchange.receive_data(await _received(transport, request_id, sending))
    finally:
        if sending is not None:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def _received(transport: Transport, request_id: int, sending: asyncio.Task[None]) -> bytes:
    """What comes next. Raises at once what the sending fails with."""
    receiving = asyncio.create_task(transport.receive(request_id))
    try:
        await asyncio.wait({receiving, sending}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done() and not receiving.done():
            sending.result()
        return await receiving
    finally:
        if not receiving.done():
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)


SessionEnd: TypeAlias = PeerInformation | RebindingAgreed


async def _run_in_time(driver: _Driver, deadlines: Deadlines, early: bytes) -> SessionEnd:
    end = asyncio.get_running_loop().time() + deadlines.session
    try:
        async with asyncio.timeout_at(end) as scope:
            return await driver.run(early)
    except TimeoutError as error:
        if not scope.expired():
            raise
        raise NetworkError(failures.DEADLINE_SESSION, f"{deadlines.session:g} s") from error
    except MigTDError as refusal:
        await driver.send_last_words(refusal, end)
        raise


class _Driver:
    def __init__(
        self,
        session: SessionProtocol,
        transport: Transport,
        request_id: int,
        local_evidence: Callable[[bytes], Awaitable[Evidence]],
        on_phase: Callable[[Phase], None],
    ) -> None:
        self._session = session
        self._transport = transport
        self._request_id = request_id
        self._local_evidence = local_evidence
        self._on_phase = on_phase
        self._end: SessionEnd | None = None

    async def run(self, early: bytes) -> SessionEnd:
        await self._drain_events()
        await self._flush()
        if early:
            await self._take(early)
        ended = False
        while self._end is None:
            if ended:
                raise NetworkError(failures.TRANSPORT_ENDED)
            data = await self._transport.receive(self._request_id)
            # A session that is content with an early end says so by an event; one that stays silent waits in vain.
            ended = not data
            await self._take(data)
        return self._end

    async def _take(self, data: bytes) -> None:
        """Feed the session, in portions: what each costs is the peer's choice.

        Neither that, nor a host that always has data at once, may stop the deadline or the other requests.
        """
        for offset in range(0, max(len(data), 1), PORTION):
            await asyncio.sleep(0)
            self._session.receive_data(data[offset : offset + PORTION])
            await self._drain_events()
            await self._flush()
            if self._end is not None:
                return

    async def send_last_words(self, refusal: MigTDError, end: float) -> None:
        try:
            async with asyncio.timeout_at(end):
                await self._flush()
        except (MigTDError, TimeoutError) as error:
            refusal.add_note(f"the last words to the peer could not be sent: {str(error) or 'the deadline passed'}")

    async def _drain_events(self) -> None:
        while (event := self._session.next_event()) is not None:
            match event:
                case EvidenceNeeded(report_data):
                    await self._fetch_evidence(report_data)
                case PhaseEntered(phase):
                    self._on_phase(phase)
                case PeerInformation() | RebindingAgreed():
                    self._end = event

    async def _fetch_evidence(self, report_data: bytes) -> None:
        try:
            evidence = await self._local_evidence(report_data)
        except MigTDError as error:
            self._session.evidence_failed(error)
        else:
            self._session.provide_evidence(evidence)

    async def _flush(self) -> None:
        while data := self._session.data_to_send():
            await self._transport.send(self._request_id, data)
