# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Frames on the wire: any cutting or joining gives the same frames, hostile lengths give one typed error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm_stub.vmm.wire import MAX_FRAME, FrameDecoder, WireError, push_frame

payloads = st.lists(st.binary(min_size=1, max_size=300), max_size=20)


def feed(data, cuts):
    """All frames of `data`, fed in portions that end at `cuts`."""
    decoder, frames, start = FrameDecoder(), [], 0
    for end in [*sorted(cuts), len(data)]:
        decoder.receive_data(data[start:end])
        start = max(start, end)
        while (frame := decoder.next_frame()) is not None:
            frames.append(frame)
    decoder.end()
    return frames


@given(payloads, st.data())
def test_frames_do_not_depend_on_how_the_stream_is_cut(sent, data):
    stream = b"".join(map(push_frame, sent))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=30))
    assert feed(stream, cuts) == sent


@given(payloads)
def test_frames_come_one_byte_at_a_time(sent):
    stream = b"".join(map(push_frame, sent))
    assert feed(stream, range(len(stream))) == sent


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_arbitrary_bytes_give_frames_or_a_typed_error(portions):
    decoder, refused = FrameDecoder(), None
    try:
        for portion in portions:
            decoder.receive_data(portion)
            while (frame := decoder.next_frame()) is not None:
                assert 0 < len(frame) <= MAX_FRAME
        decoder.end()
    except WireError as error:
        refused = error.kind.id
    assert refused in {None, "VMM-WIRE-FRAME-LENGTH", "VMM-WIRE-TRUNCATED"}


@given(payloads, st.one_of(st.just(0), st.integers(MAX_FRAME + 1, 2**32 - 1)), st.binary(max_size=50))
def test_frames_before_a_hostile_length_are_still_delivered(sent, length, rest):
    decoder = FrameDecoder()
    decoder.receive_data(b"".join(map(push_frame, sent)) + length.to_bytes(4, "little") + rest)
    assert [decoder.next_frame() for _ in sent] == sent
    for _ in range(2):
        with pytest.raises(WireError) as refused:
            decoder.next_frame()
        assert refused.value.kind.id == "VMM-WIRE-FRAME-LENGTH"
