# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The pre-session exchange with any peer and any cutting of its bytes, spdm.md 3.3; design.md I5."""

from __future__ import annotations

import contextlib
import struct

from hypothesis import given
from hypothesis import strategies as st

from migtd.errors import InvalidParameter, MigTDError
from migtd.migration.pre_session import PeerData, PreSession, PreSessionResult, pull_peer_data, push_peer_data

PARTS = st.builds(PeerData, st.binary(min_size=1, max_size=300), st.binary(min_size=1, max_size=300))
OURS = push_peer_data(PeerData(b"policy", b"chain"))
REST = st.binary(max_size=20)


def stream_of(blob: bytes) -> bytes:
    """All that a side with this blob says."""
    hello = struct.pack("<B3xI4sHH", 0xFF, 8, b"MGTD", 0x0100, 0x0100)
    return hello + struct.pack("<B3xI", 1, len(blob)) + blob + struct.pack("<B3xI", 2, 0)


def portions(data: st.DataObject, stream: bytes) -> list[bytes]:
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12).map(sorted))
    return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True) if end > start]


def hear(pieces: list[bytes]) -> tuple[PreSessionResult | None, bytes, str | None]:
    """What a side makes of the pieces: its result (with all that came behind), what it said, and its refusal."""
    side, sent, rest = PreSession(OURS), b"", b""
    try:
        for piece in pieces:
            if side.result is None:
                side.receive_data(piece)
            else:
                rest += piece
    except MigTDError as error:
        return None, b"", f"{error.kind.id}: {error}"
    while portion := side.data_to_send():
        sent += portion
    result = side.result
    if result is not None:
        result = PreSessionResult(result.version, result.remote, result.rest + rest)
    return result, sent, None


@given(PARTS)
def test_blobs_come_back_as_they_were(parts: PeerData):
    assert pull_peer_data(push_peer_data(parts)) == parts


@given(st.binary(max_size=60))
def test_any_blob_gives_the_parts_that_it_encodes_or_the_typed_error(blob: bytes):
    with contextlib.suppress(InvalidParameter):
        assert push_peer_data(pull_peer_data(blob)) == blob


@given(PARTS, REST, st.data())
def test_however_the_bytes_are_cut_the_same_comes_of_them(parts: PeerData, rest: bytes, data: st.DataObject):
    stream = stream_of(push_peer_data(parts)) + rest
    expected = PreSessionResult(0x0100, push_peer_data(parts), rest)

    for pieces in ([stream], [bytes([byte]) for byte in stream], portions(data, stream)):
        assert hear(pieces) == (expected, stream_of(OURS), None)


@given(PARTS, st.data())
def test_a_changed_byte_gives_the_same_verdict_however_it_is_cut(parts: PeerData, data: st.DataObject):
    stream = bytearray(stream_of(push_peer_data(parts)))
    stream[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(1, 255))
    whole = hear([bytes(stream)])

    assert hear([bytes([byte]) for byte in stream]) == whole
    assert hear(portions(data, bytes(stream))) == whole


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6))
def test_any_peer_gets_a_typed_refusal_or_is_waited_for(pieces: list[bytes]):
    result, _, refusal = hear(pieces)
    assert result is None
    assert refusal is None or refusal.startswith("MIGTD-")
