# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Every SPDM parser and both state machines on bytes that mean nothing, or almost something.

Invariant of a parser: it refuses with a SpdmRefusal, or what it read writes back to the very bytes it was given.
Invariant of a state machine: it refuses with a MigTDError, says at most one ERROR after that, and releases no key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migtd.attestation.mode import Evidence
from migtd.errors import MigTDError
from migtd.spdm import handshake, negotiation, vendor, vendor_messages
from migtd.spdm.chunking import Assembler, pull_chunk, pull_chunk_ack, pull_chunk_get
from migtd.spdm.errors import SpdmRefusal
from migtd.spdm.framing import BodyType, FrameCutter, push_frame
from migtd.spdm.keys import DirectionKeys
from migtd.spdm.negotiation import Code
from migtd.spdm.records import RecordOpener, RecordSealer
from migtd.spdm.testing import bodies, converse
from migtd.spdm.vendor import Opcode
from migtd.spdm.vendor_messages import Mode
from tests.unit.spdm_pairs import make_end, make_ends

PARSERS: dict[str, tuple[str, Callable[[bytes], Any]]] = {
    "get-version": ("1084", negotiation.pull_get_version),
    "version": ("1004", negotiation.pull_version),
    "get-capabilities": ("12e1", lambda data: negotiation.pull_capabilities(data, Code.GET_CAPABILITIES)),
    "capabilities": ("1261", lambda data: negotiation.pull_capabilities(data, Code.CAPABILITIES)),
    "negotiate-algorithms": ("12e3", lambda data: negotiation.pull_algorithms(data, Code.NEGOTIATE_ALGORITHMS)),
    "algorithms": ("1263", lambda data: negotiation.pull_algorithms(data, Code.ALGORITHMS)),
    "key-exchange": ("12e4", handshake.pull_key_exchange),
    "key-exchange-rsp": ("1264", handshake.pull_key_exchange_response),
    "finish": ("12e5", handshake.pull_finish),
    "finish-rsp": ("1265", handshake.pull_finish_response),
    "end-session": ("12ec", lambda data: handshake.pull_end_session(data, Code.END_SESSION)),
    "end-session-ack": ("126c", lambda data: handshake.pull_end_session(data, Code.END_SESSION_ACK)),
    "error": ("127f", handshake.pull_error),
    "chunk-send": ("1285", lambda data: pull_chunk(data, Code.CHUNK_SEND)),
    "chunk-response": ("1206", lambda data: pull_chunk(data, Code.CHUNK_RESPONSE)),
    "chunk-send-ack": ("1205", pull_chunk_ack),
    "chunk-get": ("1286", pull_chunk_get),
    "envelope": ("12fe", lambda data: vendor.pull_envelope(data, Code.VENDOR_DEFINED_REQUEST)),
    "public-key": ("12fe", lambda data: vendor_messages.pull_public_key_message(data, Opcode.PUBLIC_KEY_REQUEST)),
    "public-key-response": ("127e", lambda data: vendor_messages.pull_public_key_message(data, Opcode(2))),
    "evidence-request": ("12fe", lambda data: vendor_messages.pull_evidence_request(data, Mode.MIGRATION)),
    "evidence-response": ("127e", lambda data: vendor_messages.pull_evidence_response(data, Mode.MIGRATION)),
    "tdreport-request": ("12fe", lambda data: vendor_messages.pull_evidence_request(data, Mode.REBINDING)),
    "tdreport-response": ("127e", lambda data: vendor_messages.pull_evidence_response(data, Mode.REBINDING)),
    "information": ("12fe", lambda data: vendor_messages.pull_migration_information(data, Opcode(5))),
    "information-response": ("127e", lambda data: vendor_messages.pull_migration_information(data, Opcode(6))),
    "token": ("12fe", vendor_messages.pull_rebinding_token),
    "taken": ("127e", vendor_messages.pull_rebinding_taken),
}


def said() -> list[bytes]:
    """Every message of two honest sessions, without and with chunks."""
    messages = []
    for size in (12, 5006):
        source, destination = make_ends()
        for side, letter in ((source.side, b"Q"), (destination.side, b"q")):
            side.evidence = Evidence(letter * size, b"e" * 20)
        converse(source.side, destination.side)
        messages += [body for _, body in source.side.sent + destination.side.sent]
    return messages


SAID = said()
KEYS = DirectionKeys(bytearray(range(32)), bytearray(12))
NEARLY = st.builds(
    lambda message, at, part, cut: (message[:at] + part + message[at + len(part) :])[: len(message) - cut],
    st.sampled_from(SAID),
    st.integers(0, 300),
    st.binary(max_size=8),
    st.integers(0, 3),
)
"""Something that a peer said, a few bytes of it overwritten, perhaps shortened or lengthened."""


def reads_or_refuses(pull: Callable[[bytes], Any], data: bytes) -> None:
    try:
        found = pull(data)
    except SpdmRefusal:
        return
    assert found.push() == data


@settings(max_examples=150, deadline=None)
@given(data=st.one_of(st.binary(max_size=300), NEARLY), name=st.sampled_from(sorted(PARSERS)))
def test_a_parser_refuses_or_reads_exactly_what_is_there(data: bytes, name: str) -> None:
    start, pull = PARSERS[name]
    reads_or_refuses(pull, data)
    reads_or_refuses(pull, bytes.fromhex(start) + data)


def test_every_message_of_a_session_is_read_by_one_of_the_parsers() -> None:
    for message in SAID:
        if message.startswith(bytes.fromhex("fdfffdff")):
            continue
        read = []
        for name, (_, pull) in PARSERS.items():
            try:
                assert pull(message).push() == message
            except SpdmRefusal:
                continue
            read.append(name)
        assert read


@settings(max_examples=100, deadline=None)
@given(data=st.one_of(st.binary(max_size=200), NEARLY))
def test_a_record_nobody_sealed_is_never_opened(data: bytes) -> None:
    with pytest.raises(SpdmRefusal):
        RecordOpener(KEYS).open(data)
    header = RecordSealer(KEYS).seal(bytes(max(len(data) - 32, 4)))[:14]
    with pytest.raises(SpdmRefusal):
        RecordOpener(KEYS).open(header + data[14:])


@settings(max_examples=100, deadline=None)
@given(chunks=st.lists(NEARLY, max_size=6))
def test_reassembly_keeps_no_more_than_it_announced(chunks: list[bytes]) -> None:
    assembler = Assembler(Code.CHUNK_SEND)
    for chunk in chunks:
        try:
            _, whole = assembler.add(chunk)
        except SpdmRefusal:
            return
        assert whole is None or 4032 < len(whole) <= 65_536


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=200), portions=st.lists(st.integers(1, 20), min_size=1, max_size=20))
def test_frames_come_out_as_they_went_in(data: bytes, portions: list[int]) -> None:
    messages = [(BodyType.PLAIN, data or b"x"), (BodyType.SECURED, b"y"), (BodyType.PLAIN, data[::-1] or b"z")]
    stream = b"".join(push_frame(*message) for message in messages)
    cutter = FrameCutter()
    found, at, turn = [], 0, 0
    while at < len(stream):
        cutter.feed(stream[at : at + portions[turn % len(portions)]])
        at, turn = at + portions[turn % len(portions)], turn + 1
        while (frame := cutter.next_frame()) is not None:
            found.append(frame)
    assert found == messages
    assert cutter.waiting == 0


@settings(max_examples=150, deadline=None)
@given(
    is_source=st.booleans(),
    stream=st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.builds(push_frame, st.sampled_from(BodyType), st.binary(min_size=1, max_size=60)),
            st.builds(push_frame, st.sampled_from(BodyType), NEARLY.filter(bool)),
        ),
        max_size=12,
    ),
)
def test_a_state_machine_refuses_and_stays_silent(is_source: bool, stream: list[bytes]) -> None:  # noqa: FBT001
    end = make_end(is_source=is_source)
    session = end.side.session
    session.data_to_send()
    for data in stream:
        if end.side.error is None and data:
            end.side.receive(data)
    errors = [body for _, body in bodies(session.data_to_send()) if body[1] == Code.ERROR and body[2] != 0x0F]
    assert len(errors) <= (1 if end.side.error is not None and not is_source else 0)
    assert end.committed.keys == []
    assert end.side.end is None
    if end.side.error is not None:
        assert isinstance(end.side.error, MigTDError)
        with pytest.raises(RuntimeError):
            session.receive_data(b"more")
