# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Whole SPDM sessions with one thing changed on the way: never Success on both sides, and no key from a forged message.

Invariant of every test here: the side that receives what was changed fails and writes no key after that; its peer
completes only if it was complete before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migtd.attestation.mode import Evidence
from migtd.spdm.framing import BodyType, push_frame
from migtd.spdm.testing import Body, bodies, converse
from tests.unit.spdm_pairs import DESTINATION, SOURCE, End, make_end

SMALL = 12
LARGE = 5006
EXAMPLES = 40


def ends(size: int) -> tuple[End, End]:
    source = make_end(is_source=True, evidence=Evidence(b"Q" * size, b"E" * 20))
    return source, make_end(is_source=False, evidence=Evidence(b"q" * size, b"e" * 20))


def honest(size: int) -> tuple[list[Body], list[Body]]:
    source, destination = ends(size)
    converse(source.side, destination.side)
    assert (source.committed.keys, destination.committed.keys) == ([DESTINATION], [SOURCE])
    return source.side.sent, destination.side.sent


SAID = {size: honest(size) for size in (SMALL, LARGE)}
Change = Callable[[bytes], bytes]


def tamper(size: int, number: int, change: Change, *, to_responder: bool) -> None:
    """Change one body of one direction, and hold the invariant against what becomes of it."""
    messages = SAID[size][0 if to_responder else 1]

    def changed(at: int, kind: BodyType, body: bytes) -> Iterable[Body]:
        return ((kind, change(body) if at == number else body),)

    source, destination = ends(size)
    if to_responder:
        converse(source.side, destination.side, to_responder=changed)
    else:
        converse(source.side, destination.side, to_requester=changed)
    receiver, sender = (destination, source) if to_responder else (source, destination)
    last = number == len(messages) - 1
    told_before = number >= len(messages) - (1 if to_responder else 2)
    assert receiver.side.error is not None
    assert receiver.side.end is None
    # The key comes in the last message but one: only END_SESSION and its answer are changed too late for it.
    assert len(receiver.committed.keys) == (1 if last else 0)
    complete = last and not to_responder
    assert (sender.side.end is not None) == complete
    assert (sender.side.error is None) == complete
    if not told_before:
        assert sender.committed.keys == []


def flip(offset: int, bit: int) -> Change:
    return lambda body: body[:offset] + bytes((body[offset] ^ (1 << bit),)) + body[offset + 1 :]


@st.composite
def places(draw: st.DrawFn) -> tuple[int, bool, int, int]:
    """Size of the evidence, direction, message and byte."""
    size, to_responder = draw(st.sampled_from((SMALL, LARGE))), draw(st.booleans())
    messages = SAID[size][0 if to_responder else 1]
    number = draw(st.integers(0, len(messages) - 1))
    return size, to_responder, number, draw(st.integers(0, len(messages[number][1]) - 1))


@settings(max_examples=EXAMPLES, deadline=None)
@given(place=places(), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found(place: tuple[int, bool, int, int], bit: int) -> None:
    size, to_responder, number, offset = place
    tamper(size, number, flip(offset, bit), to_responder=to_responder)


@pytest.mark.exhaustive
@pytest.mark.parametrize("to_responder", [True, False])
def test_every_flipped_byte_is_found(to_responder: bool) -> None:  # noqa: FBT001
    for number, (_, body) in enumerate(SAID[SMALL][0 if to_responder else 1]):
        for offset in range(len(body)):
            tamper(SMALL, number, flip(offset, offset % 8), to_responder=to_responder)


@pytest.mark.parametrize("to_responder", [True, False])
@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("change", [lambda body: body[:-1], lambda body: body + b"\0", lambda body: body[:4]])
def test_a_shortened_or_lengthened_message_is_found(to_responder: bool, size: int, change: Change) -> None:  # noqa: FBT001
    for number, (_, body) in enumerate(SAID[size][0 if to_responder else 1]):
        if change(body) != body:
            tamper(size, number, change, to_responder=to_responder)


@pytest.mark.parametrize("to_responder", [True, False])
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_message_of_another_session_is_found(to_responder: bool, size: int) -> None:  # noqa: FBT001
    """Everything behind the constants and the keys: each session here has the same keys, but other evidence."""
    source, destination = ends(size)
    source.side.evidence = Evidence(b"X" * size, b"E" * 20)
    converse(source.side, destination.side)
    other = (source if to_responder else destination).side.sent
    messages = SAID[size][0 if to_responder else 1]
    assert len(other) == len(messages)
    for number, (_, body) in enumerate(messages):
        if other[number][1] != body:
            tamper(size, number, lambda _, number=number: other[number][1], to_responder=to_responder)  # type: ignore[misc]


def delivered(end: End, messages: Iterable[Body]) -> list[Body]:
    """Give a side one body after another until it has failed; those that it took without failing."""
    taken = []
    end.side.take()
    for body in messages:
        if end.side.error is not None:
            assert end.side.session.data_to_send() == b""
            break
        end.side.receive(push_frame(*body))
        end.side.take()
        if end.side.error is None:
            taken.append(body)
    return taken


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), is_source=st.booleans(), size=st.sampled_from((SMALL, LARGE)))
def test_only_the_honest_order_releases_a_key(data: st.DataObject, is_source: bool, size: int) -> None:  # noqa: FBT001
    """Permutations, repetitions and drops of real messages, for the very keys and evidence of the session."""
    said = SAID[size][1 if is_source else 0]
    start = data.draw(st.integers(0, len(said)))
    rest = data.draw(st.lists(st.integers(0, len(said) - 1), max_size=len(said)))
    order = [*range(start), *rest]
    end = ends(size)[0 if is_source else 1]
    taken = delivered(end, [said[number] for number in order])
    right = 0
    while right < min(len(order), len(said)) and order[right] == right:
        right += 1
    complete = right == len(said)
    assert taken[:right] == said[:right]
    assert (end.side.end is not None) == complete
    assert len(end.committed.keys) == (1 if right >= len(said) - 1 else 0)
    if not complete:
        assert (end.side.error is not None) == (len(order) > right)


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), is_source=st.booleans(), size=st.sampled_from((SMALL, LARGE)))
def test_any_cutting_and_joining_of_the_stream_is_the_same_session(
    data: st.DataObject,
    is_source: bool,  # noqa: FBT001
    size: int,
) -> None:
    ours, theirs = SAID[size] if is_source else SAID[size][::-1]
    stream = b"".join(push_frame(*body) for body in theirs)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=30)))
    end = ends(size)[0 if is_source else 1]
    for begin, until in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        if begin != until:
            end.side.receive(stream[begin:until])
    end.side.take()
    assert end.side.error is None
    assert end.side.sent == ours
    assert end.side.end is not None


@pytest.mark.parametrize("is_source", [True, False])
def test_a_stream_of_single_bytes_is_the_same_session(is_source: bool) -> None:  # noqa: FBT001
    ours, theirs = SAID[SMALL] if is_source else SAID[SMALL][::-1]
    end = ends(SMALL)[0 if is_source else 1]
    for byte in b"".join(push_frame(*body) for body in theirs):
        end.side.receive(bytes((byte,)))
    assert bodies(end.side.session.data_to_send()) == ours
    assert end.side.end is not None
