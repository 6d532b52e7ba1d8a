# SPDX-License-Identifier: BSD-2-Clause-Patent
from __future__ import annotations

import contextlib
import hashlib
import struct

from hypothesis import given
from hypothesis import strategies as st

from migtd import event_log
from migtd.errors import InitializationError, PolicyUnsatisfiedError
from migtd.event_log import Event
from migtd.guest.firmware import CcelArea

U32 = st.integers(0, 2**32 - 1)
DIGESTS = st.binary(min_size=48, max_size=48)
EVENT_TYPES = st.sampled_from([3, 4, 6, 0x0A, 0x8000000A]) | U32
EVENTS = st.builds(Event, U32, EVENT_TYPES, DIGESTS, st.binary(min_size=1, max_size=64))
MEASURABLE = st.builds(Event, st.integers(1, 4), EVENT_TYPES, DIGESTS, st.binary(min_size=1, max_size=64))
UNUSED = st.sampled_from([b"\0", b"\xff"]).flatmap(lambda byte: st.integers(1, 300).map(lambda n: byte * n))


def hostile_header():
    return st.builds(
        lambda *parts: struct.pack("<IIIH48sI", *parts), U32, U32, U32, st.integers(0, 65535), DIGESTS, U32
    )


@given(st.lists(EVENTS, max_size=8), UNUSED)
def test_what_was_written_is_read_back(events, unused):
    log = event_log.push_spec_id() + b"".join(map(event_log.push_event, events)) + unused
    assert event_log.read_events(log) == events


@given(
    st.binary(max_size=300)
    | st.lists(hostile_header() | st.binary(max_size=80), max_size=5).map(lambda parts: bytes(72) + b"".join(parts))
)
def test_any_bytes_give_events_or_the_typed_error(log):
    for read in (event_log.read_events, event_log.replay, event_log.parse_events):
        with contextlib.suppress(PolicyUnsatisfiedError):
            read(log)


@given(st.lists(EVENTS, min_size=1, max_size=6), st.data())
def test_a_log_cut_anywhere_gives_a_prefix_of_its_events(events, data):
    log = event_log.push_spec_id() + b"".join(map(event_log.push_event, events)) + b"\0"
    cut = data.draw(st.integers(72, len(log)))
    seen = event_log.read_events(log[:cut])
    assert seen == events[: len(seen)]
    assert (seen == events) is (cut == len(log))


@given(st.lists(MEASURABLE, max_size=10), st.sampled_from([b"\0", b"\xff"]), st.integers(72, 900))
def test_the_log_always_explains_the_registers(events, fill, size):
    area = CcelArea(size)
    area.write(0, fill * size)
    area.write(0, event_log.push_spec_id())
    registers = [bytes(48)] * 4

    def extend(index, digest):
        registers[index] = hashlib.sha384(registers[index] + digest).digest()

    for event in events:
        with contextlib.suppress(InitializationError):
            event_log.append_event(area, event, extend)
        assert list(event_log.replay(area.read())) == registers
        assert list(event_log.replay(event_log.for_sending(area))) == registers
