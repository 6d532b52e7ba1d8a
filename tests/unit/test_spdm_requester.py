# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a requester reports for everything that is not the response it waits for, silently (spdm.md 9.4)."""

from __future__ import annotations

from typing import Any

import pytest

from migtd.attestation.mode import Evidence
from migtd.errors import InvalidParameter, MigrationResult, SecureSessionError
from migtd.failures import VERSION_RANGE
from migtd.spdm import failures
from migtd.spdm.chunking import Chunk, ChunkAck, cut
from migtd.spdm.core import SpdmEndpoint
from migtd.spdm.framing import BodyType, push_frame
from migtd.spdm.handshake import EndSession
from migtd.spdm.negotiation import Code
from migtd.spdm.requester import TABLE, RequesterState
from migtd.spdm.testing import Body, converse
from migtd.spdm.vendor import Opcode
from migtd.spdm.vendor_messages import MigrationInformation, RebindingTaken
from tests.unit.spdm_pairs import (
    DESTINATION,
    SOURCE,
    Committed,
    End,
    at_requester,
    make_end,
    make_ends,
    opened,
    told,
)

S = RequesterState
PLAIN, SECURED = BodyType.PLAIN, BodyType.SECURED
TAKEN = Opcode.MIGRATION_INFORMATION_RESPONSE
CLEAR = [
    S.VERSION,
    S.CAPABILITIES,
    S.ALGORITHMS,
    S.PUBLIC_KEY,
    S.KEY_EXCHANGE,
    S.SENDING,
    S.EVIDENCE,
    S.FETCHING,
    S.FINISH,
]
IN_RECORDS = [S.INFORMATION, S.END]
LARGE_Q, LARGE_R = Evidence(b"Q" * 5006, b"E" * 300), Evidence(b"q" * 5006, b"e" * 300)


def reached(state: RequesterState) -> tuple[End, End, Body]:
    """A source in `state`, the destination that took it there, and what that one would answer next."""
    source = make_end(is_source=True, evidence=LARGE_Q if state is S.SENDING else None)
    destination = make_end(is_source=False, evidence=LARGE_R if state is S.FETCHING else None)
    return source, destination, at_requester(state, source, destination)


def answered(state: RequesterState, message: bytes) -> tuple[End, Body]:
    """A source in `state`, and a record of `message` in the place of the honest one, which nobody saw."""
    source, destination, _ = reached(S.INFORMATION)
    session = destination.side.session
    assert isinstance(session, SpdmEndpoint)
    sealer = session._sealer
    assert sealer is not None
    sealer._sequence = 0
    if state is S.END:
        source.side.receive(push_frame(SECURED, sealer.seal(MigrationInformation(TAKEN, DESTINATION).push())))
        source.side.take()
    return source, (SECURED, sealer.seal(message))


def refused(source: End, body: Body, result: int = MigrationResult.SecureSessionError) -> None:
    """The source says nothing, reports exactly that, and writes nothing."""
    written = len(source.committed.keys)
    assert told(source, body) == []
    assert source.side.error is not None
    assert source.side.error.result == result
    assert len(source.committed.keys) == written


@pytest.mark.parametrize("state", [*CLEAR, *IN_RECORDS])
@pytest.mark.parametrize(
    ("error", "result"),
    [
        *((f"ff{result:02x}", result) for result in MigrationResult if result),
        ("ff00", 6),
        ("ffc8", 6),
        ("0100", 6),
        ("0300", 6),
        ("0400", 6),
        ("0600", 6),
        ("07e1", 6),
        ("4100", 6),
        ("0008", 6),
        ("4200", 6),
    ],
)
def test_an_error_is_reported_as_the_result_it_names_and_never_as_success(
    state: RequesterState, error: str, result: int
) -> None:
    message = bytes.fromhex(f"127f{error}")
    if state in IN_RECORDS:
        source, body = answered(state, message)
    else:
        source, body = reached(state)[0], (PLAIN, message)
    refused(source, body, result)
    assert source.side.error is not None
    assert source.side.error.kind is failures.SPDM_PEER_ERROR


@pytest.mark.parametrize("state", CLEAR)
def test_a_malformed_error_is_a_failure_of_the_session(state: RequesterState) -> None:
    for message in ("127fff", "127fff0800", "137fff08", "127f0f01", "127f"):
        source, _, _ = reached(state)
        refused(source, (PLAIN, bytes.fromhex(message)))


def test_a_last_acknowledgement_may_hold_an_error() -> None:
    source, destination, first = reached(S.SENDING)
    source.side.receive(push_frame(*first))
    source.side.take()
    refused(source, (PLAIN, ChunkAck(1, 1, bytes.fromhex("127fff08")).push()), 8)
    assert destination.side.error is None


@pytest.mark.parametrize("state", CLEAR)
def test_only_the_response_that_belongs_there_is_taken(state: RequesterState) -> None:
    row = TABLE[state]
    assert row is not None
    for code in (*(set(Code) - {row.code, Code.ERROR}), 0x00, 0x01, 0x7D, 0x80, 0xFF):
        source, _, (kind, response) = reached(state)
        refused(source, (kind, response[:1] + bytes((code,)) + response[2:]))


@pytest.mark.parametrize("state", CLEAR)
def test_another_version_is_refused(state: RequesterState) -> None:
    for version in (0x11, 0x13, 0x12 if state is S.VERSION else 0x10):
        source, _, (kind, response) = reached(state)
        refused(source, (kind, bytes((version,)) + response[1:]))
        assert source.side.error is not None
        assert source.side.error.kind is failures.SPDM_VERSION


@pytest.mark.parametrize(
    ("state", "offset", "value"),
    [
        (S.VERSION, 6, 0x01),
        (S.VERSION, 7, 0x13),
        (S.CAPABILITIES, 8, 0xC1),
        (S.CAPABILITIES, 12, 0x2A),
        (S.ALGORITHMS, 4, 0x33),
        (S.ALGORITHMS, 12, 0x10),
        (S.KEY_EXCHANGE, 2, 0x01),  # heartbeat
        (S.KEY_EXCHANGE, 4, 0xFE),  # session id
        (S.KEY_EXCHANGE, 6, 0x00),  # MutAuthRequested
        (S.KEY_EXCHANGE, 6, 0x02),
        (S.KEY_EXCHANGE, 7, 0x00),  # ReqSlotID
        (S.KEY_EXCHANGE, 149, 0x11),  # secured-message version
        (S.KEY_EXCHANGE, 40, 0x00),  # share
        (S.KEY_EXCHANGE, 150, 0x00),  # signature
        (S.PUBLIC_KEY, 13, 0x01),
        (S.PUBLIC_KEY, 15, 0x01),
        (S.PUBLIC_KEY, 16, 0x02),
        (S.EVIDENCE, 15, 0x08),
        (S.EVIDENCE, 16, 0x04),
        (S.SENDING, 2, 0x01),  # early error
        (S.SENDING, 3, 0x02),
        (S.SENDING, 4, 0x01),
        (S.FINISH, 4, 0x00),
        (S.FINISH, 2, 0x01),
    ],
)
def test_a_response_with_another_value_is_refused(state: RequesterState, offset: int, value: int) -> None:
    source, _, (kind, response) = reached(state)
    changed = bytearray(response)
    assert changed[offset] != value
    changed[offset] = value
    refused(source, (kind, bytes(changed)))


def test_the_macs_of_the_two_sides_are_not_each_others() -> None:
    source, _, _ = reached(S.FINISH)
    finish = source.side.sent[-1][1]
    refused(source, (PLAIN, bytes.fromhex("12650000") + finish[-48:]))
    assert source.side.error is not None
    assert source.side.error.kind is failures.SPDM_SIGNATURE


@pytest.mark.parametrize("state", [*CLEAR, *IN_RECORDS])
def test_what_is_not_protected_as_it_must_be_is_refused(state: RequesterState) -> None:
    source, _, (kind, response) = reached(state)
    refused(source, (PLAIN if kind is SECURED else SECURED, response))


@pytest.mark.parametrize("state", IN_RECORDS)
def test_a_record_that_was_changed_is_refused(state: RequesterState) -> None:
    for offset in (0, 4, 12, 14, -1):
        source, _, (kind, record) = reached(state)
        changed = bytearray(record)
        changed[offset] ^= 1
        refused(source, (kind, bytes(changed)))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (S.INFORMATION, EndSession(Code.END_SESSION_ACK).push()),
        (S.INFORMATION, RebindingTaken().push()),
        (S.INFORMATION, MigrationInformation(Opcode.MIGRATION_INFORMATION_REQUEST, DESTINATION).push()),
        (S.INFORMATION, MigrationInformation(Opcode.MIGRATION_INFORMATION_RESPONSE, DESTINATION).push() + b"\0"),
        (S.END, MigrationInformation(Opcode.MIGRATION_INFORMATION_RESPONSE, DESTINATION).push()),
        (S.END, bytes.fromhex("126c0001")),
        (S.END, bytes.fromhex("136c0000")),
        (S.END, bytes.fromhex("127f0f0001")),
    ],
)
def test_another_message_in_a_record_is_refused(state: RequesterState, message: bytes) -> None:
    refused(*answered(state, message))


def test_a_key_that_cannot_be_taken_ends_the_session_without_its_end() -> None:
    error = InvalidParameter(VERSION_RANGE)
    source, destination = make_end(is_source=True, commit=Committed(error)), make_end(is_source=False)
    converse(source.side, destination.side)
    assert source.side.error is error
    assert source.side.end is None
    assert destination.side.end is None
    assert destination.committed.keys == [SOURCE]
    assert destination.side.error is not None
    assert destination.side.error.kind is failures.SPDM_ENDED


@pytest.mark.parametrize("state", [each for each in CLEAR if each not in (S.EVIDENCE, S.SENDING)])
def test_a_large_response_is_taken_for_the_evidence_only(state: RequesterState) -> None:
    source, _, _ = reached(state)
    refused(source, (PLAIN, bytes.fromhex("127f0f0001")))


def test_a_large_response_before_the_last_chunk_is_refused() -> None:
    source, _, first = reached(S.SENDING)
    refused(source, (PLAIN, bytes.fromhex("127f0f0001")))
    source, _, first = reached(S.SENDING)
    source.side.receive(push_frame(*first))
    source.side.take()
    refused(source, (PLAIN, ChunkAck(1, 1, bytes.fromhex("127f0f0001")).push()))


@pytest.mark.parametrize(
    "ack",
    [
        ChunkAck(2, 1, b"\x12\x7e"),
        ChunkAck(1, 0, b"\x12\x7e"),
        ChunkAck(1, 2, b"\x12\x7e"),
        ChunkAck(1, 1),
        ChunkAck(1, 1, b"\x12"),
        ChunkAck(1, 1, ChunkAck(1, 1, b"\x12\x7e").push()),
    ],
)
def test_a_wrong_last_acknowledgement_is_refused(ack: ChunkAck) -> None:
    source, _, first = reached(S.SENDING)
    source.side.receive(push_frame(*first))
    source.side.take()
    refused(source, (PLAIN, ack.push()))


def test_a_response_before_the_last_chunk_is_refused() -> None:
    source, _, _ = reached(S.SENDING)
    refused(source, (PLAIN, ChunkAck(1, 0, b"\x12\x7e").push()))


@pytest.mark.parametrize(
    "chunk",
    [
        Chunk(Code.CHUNK_RESPONSE, 2, 0, b"x" * 4016, total=5389),
        Chunk(Code.CHUNK_RESPONSE, 1, 1, b"x" * 4020),
        Chunk(Code.CHUNK_RESPONSE, 1, 0, b"x" * 4016, total=65_537),
        Chunk(Code.CHUNK_RESPONSE, 1, 0, b"x" * 4016, total=4016),
        Chunk(Code.CHUNK_RESPONSE, 1, 0, b"x" * 4016, total=4032),
        Chunk(Code.CHUNK_RESPONSE, 1, 0, b"x" * 4016, total=5389, last=True),
        Chunk(Code.CHUNK_SEND, 1, 0, b"x" * 4016, total=5389),
    ],
)
def test_a_wrong_chunk_is_refused(chunk: Chunk) -> None:
    source, _, _ = reached(S.FETCHING)
    refused(source, (PLAIN, chunk.push()))


def test_a_response_that_would_have_fitted_into_the_acknowledgement_is_not_fetched() -> None:
    for total, refused_at_once in ((4026, True), (4027, False)):
        source = make_end(is_source=True, evidence=LARGE_Q)
        destination = make_end(is_source=False, evidence=LARGE_R)
        first = at_requester(S.SENDING, source, destination)
        source.side.receive(push_frame(*first))
        source.side.receive(push_frame(PLAIN, bytes.fromhex("127f0f0001")))
        chunk = Chunk(Code.CHUNK_RESPONSE, 1, 0, b"x" * 4016, total=total)
        source.side.receive(push_frame(PLAIN, chunk.push()))
        assert (source.side.error is not None) == refused_at_once


@pytest.mark.parametrize("code", [Code.CHUNK_RESPONSE, Code.ERROR, Code.CHUNK_SEND_ACK, Code.FINISH_RSP])
def test_chunks_bring_nothing_but_evidence(code: Code) -> None:
    source, _, _ = reached(S.FETCHING)
    first, second = cut(bytes((0x12, code)) + bytes(5000), Code.CHUNK_RESPONSE, 1)
    source.side.receive(push_frame(PLAIN, first.push()))
    source.side.take()
    refused(source, (PLAIN, second.push()))


def test_a_stream_that_ends_before_the_last_answer_fails_the_source_alone() -> None:
    source, destination, _ = reached(S.END)
    source.side.receive(b"")
    assert isinstance(source.side.error, SecureSessionError)
    assert source.side.end is None
    # The destination had everything that it needs, and has said so.
    assert destination.side.end is not None


def test_a_session_is_complete_only_after_its_end_was_acknowledged() -> None:
    source, destination, answer = reached(S.END)
    assert source.committed.keys == [DESTINATION]
    assert not source.side.ended
    source.side.receive(push_frame(*answer))
    assert source.side.end is not None
    assert destination.side.end is not None
    source.side.session.receive_data(b"whatever")
    source.side.session.receive_data(b"")
    assert source.side.session.data_to_send() == b""


def test_the_evidence_of_rebindings_is_not_taken_in_a_migration() -> None:
    source, destination = make_ends()
    kind, response = at_requester(S.EVIDENCE, source, destination)
    changed: Any = bytearray(response)
    changed[15], changed[17] = 0x08, 0x02
    refused(source, (kind, bytes(changed)))


def test_the_end_of_a_session_is_acknowledged_in_a_record() -> None:
    source, destination, (_, record) = reached(S.END)
    assert opened(source, record).hex() == "126c0000"
    assert destination.side.error is None
