# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The codecs of the vmcall channel: messages and the events in them."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migtd.checks import Check, CheckName, CheckStatus
from migtd.errors import VmmInternalError
from migtd.guest.channel import MAX_DATA, MAX_MESSAGE, Kind, Message, Registers, pull_message, push_message
from migtd.guest.events import (
    MAX_TEXT,
    CheckEvent,
    FailedEvent,
    NoteEvent,
    PhaseEvent,
    pull_event,
    push_event,
)
from migtd.observer import Phase

U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
REGISTERS = st.lists(U64, min_size=14, max_size=14).map(lambda values: Registers(*values))
MESSAGES = st.builds(Message, st.sampled_from(Kind), U32, REGISTERS, st.binary(max_size=200))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=MAX_TEXT)
ANY_TEXT = st.text(max_size=3 * MAX_TEXT)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


def events(text):
    checks = st.builds(Check, st.sampled_from(CheckName), st.sampled_from(CheckStatus), text)
    return st.one_of(
        st.builds(PhaseEvent, U64, st.sampled_from(Phase)),
        st.builds(CheckEvent, U64, checks),
        st.builds(FailedEvent, U64, st.just("MIGTD-INTERNAL"), text, st.just("advice")),
        st.builds(NoteEvent, U64, text),
    )


@given(MESSAGES)
def test_messages_come_back_as_they_were(message):
    assert pull_message(push_message(message)) == message


@pytest.mark.parametrize("kind", Kind)
def test_the_largest_message_fits(kind):
    message = Message(kind, data=bytes(MAX_DATA))
    assert len(push_message(message)) == MAX_MESSAGE
    assert pull_message(push_message(message)) == message


def test_more_data_than_a_message_holds_is_refused_by_the_sender():
    with pytest.raises(ValueError, match="do not fit"):
        push_message(Message(Kind.CALL, data=bytes(MAX_DATA + 1)))


@given(st.binary(max_size=300))
def test_any_datagram_gives_a_message_or_the_typed_error(datagram):
    with contextlib.suppress(VmmInternalError):
        assert push_message(pull_message(datagram)) == datagram


@given(MESSAGES, st.data())
def test_one_changed_byte_gives_another_message_or_the_typed_error(message, data):
    datagram = bytearray(push_message(message))
    index = data.draw(st.integers(0, len(datagram) - 1))
    datagram[index] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(VmmInternalError):
        assert pull_message(bytes(datagram)) != message


@given(MESSAGES, st.binary(min_size=1, max_size=20))
def test_a_datagram_of_another_length_than_announced_is_refused(message, extra):
    datagram = push_message(message)
    for wrong in (datagram + extra, datagram[:-1]):
        with pytest.raises(VmmInternalError):
            pull_message(wrong)


@given(events(TEXT))
def test_events_come_back_as_they_were(event):
    assert pull_event(push_event(event)) == event


@given(events(ANY_TEXT))
def test_every_event_fits_into_a_message_and_is_understood(event):
    encoded = push_event(event)
    assert len(encoded) <= MAX_DATA
    assert pull_event(encoded).request_id == event.request_id


@pytest.mark.parametrize("character", ["x", "\x00", "\N{GRINNING FACE}", "\ud800", '"'])
def test_the_longest_explanation_leaves_room_for_the_rest(character):
    text, lines = character * 3000, tuple(f"{number} {character * 90}" for number in range(500))
    for event in (
        FailedEvent(1, "MIGTD-X", text, text[:500], lines),
        CheckEvent(1, Check(CheckName.POLICY, CheckStatus.FAILED, text, lines)),
    ):
        encoded = push_event(event)
        assert len(encoded) <= MAX_DATA
        came = pull_event(encoded)
        assert isinstance(came, FailedEvent | CheckEvent)
        explain = came.explain if isinstance(came, FailedEvent) else came.check.explain
        assert 1 <= len(explain) < 500
        assert [line.split()[0] for line in explain] == [str(number) for number in range(len(explain))]


@given(
    st.binary(max_size=100)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries(
        {"event": st.sampled_from(["phase", "check", "failed", "note"]) | JSON, "request_id": st.integers() | JSON},
        optional=dict.fromkeys(["phase", "name", "status", "detail", "id", "message", "advice", "text"], JSON),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_event_data_gives_an_event_or_the_typed_error(data):
    with contextlib.suppress(VmmInternalError):
        pull_event(data)


def test_deeply_nested_event_data_is_the_typed_error():
    with pytest.raises(VmmInternalError):
        pull_event(b"[" * 10000)
