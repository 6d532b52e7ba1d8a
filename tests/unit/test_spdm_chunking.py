# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Large messages in chunks: the sizes of the specification, and every way in which a transfer can be wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from migtd.spdm.chunking import (
    Assembler,
    Chunk,
    ChunkAck,
    ChunkGet,
    cut,
    pull_chunk,
    pull_chunk_ack,
    pull_chunk_get,
)
from migtd.spdm.errors import Malformed
from migtd.spdm.negotiation import Code

SEND, RESPONSE = Code.CHUNK_SEND, Code.CHUNK_RESPONSE


def filled(size: int) -> bytes:
    return bytes(i % 251 for i in range(size))


@pytest.mark.parametrize(
    ("size", "pieces"),
    [
        (4033, [4016, 17]),
        (8036, [4016, 4020]),
        (8037, [4016, 4020, 1]),
        (7603, [4016, 3587]),
        (65_536, [4016, *[4020] * 15, 1220]),
    ],
)
def test_a_message_is_cut_as_specified_and_comes_together_again(size: int, pieces: list[int]) -> None:
    message = filled(size)
    chunks = cut(message, SEND, 1)
    assert [len(chunk.data) for chunk in chunks] == pieces
    assert max(len(chunk.push()) for chunk in chunks) <= 4032
    assembler = Assembler(SEND)
    whole = [assembler.add(chunk.push())[1] for chunk in chunks]
    assert whole == [*[None] * (len(pieces) - 1), message]


@pytest.mark.parametrize("size", [0, 4032, 65_537])
def test_other_sizes_are_not_sent_in_chunks(size: int) -> None:
    with pytest.raises(ValueError, match="not sent in chunks"):
        cut(bytes(size), SEND, 1)


def test_chunk_messages_have_their_bytes() -> None:
    assert Chunk(SEND, 1, 0, b"data", total=4033).push().hex() == "12850001000000000400 0000 c10f0000 64617461".replace(
        " ", ""
    )
    assert Chunk(RESPONSE, 2, 3, b"data", last=True).push().hex() == "120601020300000004000000" + "64617461"
    assert ChunkAck(1, 2, b"").push().hex() == "120500010200"
    assert ChunkGet(1, 2).push().hex() == "128600010200"
    assert pull_chunk_ack(ChunkAck(1, 2, b"response").push()) == ChunkAck(1, 2, b"response")
    assert pull_chunk_get(ChunkGet(255, 65_535).push()) == ChunkGet(255, 65_535)


@pytest.mark.parametrize(
    "wrong",
    [
        "1286000102",
        "12860001020000",
        "128601010200",
        "118600010200",
    ],
)
def test_a_malformed_chunk_get_is_refused(wrong: str) -> None:
    with pytest.raises(Malformed):
        pull_chunk_get(bytes.fromhex(wrong))


@pytest.mark.parametrize("wrong", ["1205000102", "120501010200", "120502010200", "110500010200"])
def test_an_ack_with_early_error_or_other_attributes_is_refused(wrong: str) -> None:
    with pytest.raises(Malformed):
        pull_chunk_ack(bytes.fromhex(wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        "1285020100000000 01000000 c10f0000 61",  # attributes
        "1285000100000100 01000000 c10f0000 61",  # reserved
        "1285000100000000 00000000 c10f0000",  # no data
        "1285000100000000 02000000 c10f0000 61",  # size above what is there
        "1285000100000000 01000000 c10f0000 6162",  # size below it
        "1285000100000000 01000000 c10f00",  # cut
        "1206000100000000 01000000 c10f0000 61",  # another code
    ],
)
def test_a_malformed_chunk_is_refused(wrong: str) -> None:
    with pytest.raises(Malformed):
        pull_chunk(bytes.fromhex(wrong), SEND)


def test_a_chunk_of_more_than_4032_bytes_is_refused() -> None:
    with pytest.raises(Malformed, match="4033 bytes"):
        pull_chunk(Chunk(SEND, 1, 1, bytes(4021)).push(), SEND)


FIRST, SECOND, THIRD = cut(filled(9000), RESPONSE, 7)


@pytest.mark.parametrize(
    "transfer",
    [
        [SECOND],
        [FIRST, FIRST],
        [FIRST, THIRD],
        [FIRST, replace(SECOND, handle=8)],
        [FIRST, replace(SECOND, sequence=0, total=9000)],
        [replace(FIRST, handle=6)],
        [replace(FIRST, last=True)],
        [replace(FIRST, total=4032)],
        [replace(FIRST, total=65_537)],
        [replace(FIRST, total=0xFFFFFFFF)],
        [replace(FIRST, total=8999), SECOND, THIRD],
        [replace(FIRST, total=9001), SECOND, THIRD],
        [replace(FIRST, total=8036), SECOND],
        [FIRST, replace(SECOND, last=True)],
        [replace(FIRST, total=4033), SECOND],
        [FIRST, SECOND, replace(THIRD, last=False)],
        [FIRST, SECOND, replace(THIRD, data=THIRD.data + b"\0")],
        [FIRST, SECOND, replace(THIRD, data=THIRD.data[:-1])],
    ],
)
def test_a_wrong_transfer_is_refused_at_its_last_chunk(transfer: list[Chunk]) -> None:
    assembler = Assembler(RESPONSE, handle=7)
    for chunk in transfer[:-1]:
        assembler.add(chunk.push())
    with pytest.raises(Malformed):
        assembler.add(transfer[-1].push())
