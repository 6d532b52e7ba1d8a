# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The asyncio shell around a session protocol."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest

from migtd import failures
from migtd.attestation.mode import Evidence
from migtd.checks import CheckRunner
from migtd.deadlines import Deadlines
from migtd.errors import (
    InvalidParameter,
    MigTDError,
    MutualAttestationError,
    NetworkError,
    PolicyUnsatisfiedError,
    SecureSessionError,
    VmmCanceled,
)
from migtd.migration.data import ExchangeInformation
from migtd.migration.driver import run_session
from migtd.migration.session import PeerInformation, SessionContext, SessionEvent, SessionProtocol
from migtd.observer import Phase
from migtd.testing import ScriptedServices
from migtd.testing_session import InsecurePlainSession, ScriptedMode

ID = 7
OURS = ExchangeInformation(bytes(range(32)), 1, 1)
THEIRS = ExchangeInformation(bytes(range(32, 64)), 1, 2)
DEADLINES = Deadlines().with_all(5.0)


def plain(local: ExchangeInformation, mode: ScriptedMode, *, is_source: bool = True) -> InsecurePlainSession:
    return InsecurePlainSession(SessionContext(is_source, local, mode, CheckRunner({}, lambda _: None)))


async def drive(
    session: SessionProtocol,
    services: ScriptedServices,
    mode: ScriptedMode | None = None,
    deadlines: Deadlines = DEADLINES,
    phases: list[Phase] | None = None,
) -> ExchangeInformation:
    entered: list[Phase] = phases if phases is not None else []
    return await run_session(
        session, services, ID, mode=mode or ScriptedMode(), deadlines=deadlines, on_phase=entered.append
    )


async def test_two_sides_get_what_the_other_sent_and_enter_the_same_phases() -> None:
    one, other = ScriptedServices(), ScriptedServices()
    one.connect(other, ID)
    phases: tuple[list[Phase], list[Phase]] = ([], [])
    results = await asyncio.gather(
        drive(plain(OURS, ScriptedMode()), one, phases=phases[0]),
        drive(plain(THEIRS, ScriptedMode(), is_source=False), other, phases=phases[1]),
    )
    assert list(results) == [THEIRS, OURS]
    assert phases == ([Phase.HANDSHAKE, Phase.EXCHANGE], [Phase.HANDSHAKE, Phase.EXCHANGE])


async def test_bytes_that_arrive_one_at_a_time_give_the_same_result() -> None:
    peer = ScriptedServices()
    one = ScriptedServices()
    peer.connect(one, ID)
    await asyncio.gather(drive(plain(OURS, ScriptedMode()), one), drive(plain(THEIRS, ScriptedMode()), peer))
    again = ScriptedServices()
    for byte in peer.sent[ID]:
        again.feed(ID, bytes([byte]))
    assert await drive(plain(OURS, ScriptedMode()), again) == THEIRS


async def test_refusal_of_the_peer_is_sent_to_it_and_raised_here() -> None:
    one, other = ScriptedServices(), ScriptedServices()
    one.connect(other, ID)
    refusing = ScriptedMode(refusal=PolicyUnsatisfiedError(failures.INTERNAL, "test"))
    results = await asyncio.gather(
        drive(plain(OURS, refusing), one, refusing),
        drive(plain(THEIRS, ScriptedMode()), other),
        return_exceptions=True,
    )
    assert isinstance(results[0], PolicyUnsatisfiedError)
    assert isinstance(results[1], SecureSessionError)
    assert results[1].kind is failures.TLS_ALERT


async def test_last_words_that_cannot_be_sent_do_not_hide_the_refusal() -> None:
    refusing = ScriptedMode(refusal=PolicyUnsatisfiedError(failures.INTERNAL, "test"))
    sender = ScriptedServices()
    sender.feed(ID, b"")
    with pytest.raises(NetworkError):
        await drive(plain(THEIRS, ScriptedMode()), sender)
    services = _BrokenAfterFirstSend()
    services.feed(ID, bytes(sender.sent[ID]))
    with pytest.raises(PolicyUnsatisfiedError) as caught:
        await drive(plain(OURS, refusing), services, refusing)
    assert "last words" in caught.value.__notes__[0]
    assert failures.TRANSPORT_ENDED.summary in caught.value.__notes__[0]


async def test_last_words_that_hang_end_with_the_session_deadline_and_do_not_hide_the_refusal() -> None:
    error = MutualAttestationError(failures.INTERNAL, "no quote")
    mode = ScriptedMode(evidence_error=error)
    services = _HangingSend()
    with pytest.raises(MutualAttestationError) as caught:
        await drive(plain(OURS, mode), services, mode, Deadlines().with_all(0.05))
    assert caught.value is error
    assert "deadline" in caught.value.__notes__[0]


async def test_missing_evidence_is_given_to_the_session_which_refuses_with_it() -> None:
    error = MutualAttestationError(failures.INTERNAL, "no quote")
    mode = ScriptedMode(evidence_error=error)
    services = ScriptedServices()
    with pytest.raises(MutualAttestationError):
        await drive(plain(OURS, mode), services, mode)
    assert services.sent[ID] == b"R\0\0\0\0"


async def test_silent_peer_ends_in_the_session_deadline() -> None:
    with pytest.raises(NetworkError) as caught:
        await drive(plain(OURS, ScriptedMode()), ScriptedServices(), deadlines=Deadlines().with_all(0.05))
    assert caught.value.kind is failures.DEADLINE_SESSION


async def test_evidence_that_never_comes_ends_in_the_session_deadline() -> None:
    class Waiting(ScriptedMode):
        async def local_evidence(self, report_data: bytes) -> Evidence:
            await asyncio.Event().wait()
            raise AssertionError(report_data)

    mode = Waiting()
    with pytest.raises(NetworkError) as caught:
        await drive(plain(OURS, mode), ScriptedServices(), mode, Deadlines().with_all(0.05))
    assert caught.value.kind is failures.DEADLINE_SESSION


async def test_time_out_of_the_transport_itself_is_not_taken_for_the_session_deadline() -> None:
    services = ScriptedServices()
    services.feed(ID, TimeoutError("not ours"))
    with pytest.raises(TimeoutError, match="not ours"):
        await drive(plain(OURS, ScriptedMode()), services)


async def test_end_of_stream_before_the_exchange_is_a_network_error() -> None:
    services = ScriptedServices()
    services.feed(ID, b"")
    with pytest.raises(NetworkError) as caught:
        await drive(plain(OURS, ScriptedMode()), services)
    assert caught.value.kind is failures.TRANSPORT_ENDED


async def test_session_that_takes_the_end_of_the_stream_in_silence_is_not_fed_for_ever() -> None:
    services = ScriptedServices()
    services.feed(ID, b"")
    session = _Silent([])
    with pytest.raises(NetworkError) as caught:
        await drive(session, services)
    assert caught.value.kind is failures.TRANSPORT_ENDED
    assert session.received == [b""]


async def test_session_that_is_complete_with_the_end_of_the_stream_succeeds() -> None:
    services = ScriptedServices()
    services.feed(ID, b"")
    assert await drive(_Silent([PeerInformation(THEIRS)]), services) == THEIRS


@pytest.mark.parametrize(
    "error",
    [
        VmmCanceled(failures.CANCELED),
        InvalidParameter(failures.TRANSPORT_SETUP_FAILED),
        NetworkError(failures.DEADLINE_READ),
    ],
)
async def test_error_of_the_transport_is_raised_as_it_is(error: MigTDError) -> None:
    services = ScriptedServices()
    services.cancel(ID, error)
    with pytest.raises(type(error)) as caught:
        await drive(plain(OURS, ScriptedMode()), services)
    assert caught.value is error


async def test_result_is_not_returned_before_everything_was_handed_over() -> None:
    services = ScriptedServices()
    session = _Silent([PeerInformation(THEIRS)], last=b"our forty bytes")
    services.feed(ID, b"theirs")
    services.fail_sends(ID, NetworkError(failures.DEADLINE_WRITE))
    with pytest.raises(NetworkError) as caught:
        await drive(session, services)
    assert caught.value.kind is failures.DEADLINE_WRITE


class _Silent:
    """A session that says nothing, and gives `events` and `last` after its first input."""

    def __init__(self, events: list[SessionEvent], last: bytes = b"") -> None:
        self.received: list[bytes] = []
        self._events = deque(events)
        self._out = last

    def next_event(self) -> SessionEvent | None:
        return self._events.popleft() if self.received and self._events else None

    def receive_data(self, data: bytes) -> None:
        self.received.append(data)

    def data_to_send(self) -> bytes:
        if not self.received:
            return b""
        data, self._out = self._out, b""
        return data

    def provide_evidence(self, evidence: Evidence) -> None:
        raise AssertionError(evidence)

    def evidence_failed(self, error: MigTDError) -> None:
        raise AssertionError(error)


class _BrokenAfterFirstSend(ScriptedServices):
    async def send(self, request_id: int, data: bytes) -> None:
        await super().send(request_id, data)
        self.fail_sends(request_id, NetworkError(failures.TRANSPORT_ENDED))


class _HangingSend(ScriptedServices):
    async def send(self, request_id: int, data: bytes) -> None:
        await asyncio.Event().wait()
        raise AssertionError(request_id, data)
