# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Messages of more than 4032 bytes, in chunks (spdm.md 4.8): the four messages, cutting, and reassembly."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from migtd.spdm.errors import Malformed
from migtd.spdm.negotiation import DATA_TRANSFER_SIZE, MAX_MESSAGE, Code, header
from migtd.spdm.reader import Reader

ACK_SIZE: Final = 6
"""Bytes of CHUNK_SEND_ACK before the response in it."""
ROOM_IN_ACK: Final = DATA_TRANSFER_SIZE - ACK_SIZE
"""Most bytes of a response in the last acknowledgement; a longer one is fetched, even if it needed no chunks else."""
_LAST: Final = 1
_CHUNK: Final = struct.Struct("<HHI")
_FIRST_DATA: Final = 4016
_LATER_DATA: Final = 4020
"""Most data bytes of the first chunk, and of each one after it."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """CHUNK_SEND or CHUNK_RESPONSE. `total` is the size of the whole message, in the first chunk only."""

    code: Code
    handle: int
    sequence: int
    data: bytes = field(repr=False)
    total: int | None = None
    last: bool = False

    def push(self) -> bytes:
        """Encode: 12 bytes (16 in the first chunk) and the data."""
        total = b"" if self.total is None else self.total.to_bytes(4, "little")
        start = header(self.code, _LAST if self.last else 0, self.handle)
        return start + _CHUNK.pack(self.sequence, 0, len(self.data)) + total + self.data


def pull_chunk(data: bytes, code: Code) -> Chunk:
    """Decode CHUNK_SEND or CHUNK_RESPONSE of at most 4032 bytes. Raises Malformed."""
    reader = Reader(data, code.name)
    if len(data) > DATA_TRANSFER_SIZE:
        raise reader.wrong(f"{len(data)} bytes, {DATA_TRANSFER_SIZE} are allowed")
    reader.expect(header(code)[:2], "version and code")
    attributes, handle = reader.integer(1, "attributes"), reader.integer(1, "handle")
    if attributes > _LAST:
        raise reader.wrong(f"attributes {attributes:#04x}")
    sequence = reader.integer(2, "sequence number")
    reader.expect(bytes(2), "reserved")
    size = reader.integer(4, "size")
    total = None if sequence else reader.integer(4, "total size")
    if not size:
        raise reader.wrong("no data")
    part = reader.take(size, "data")
    reader.end()
    return Chunk(code, handle, sequence, part, total, attributes == _LAST)


@dataclass(frozen=True, slots=True)
class ChunkAck:
    """CHUNK_SEND_ACK; `response` is the answer to the whole message, behind its last chunk only."""

    handle: int
    sequence: int
    response: bytes = b""

    def push(self) -> bytes:
        """Encode to 6 bytes and the response."""
        return header(Code.CHUNK_SEND_ACK, 0, self.handle) + struct.pack("<H", self.sequence) + self.response


def pull_chunk_ack(data: bytes) -> ChunkAck:
    """Decode CHUNK_SEND_ACK without early error. Raises Malformed."""
    reader = Reader(data, Code.CHUNK_SEND_ACK.name)
    reader.expect(header(Code.CHUNK_SEND_ACK)[:3], "version, code and attributes")
    handle, sequence = reader.integer(1, "handle"), reader.integer(2, "sequence number")
    return ChunkAck(handle, sequence, data[ACK_SIZE:])


@dataclass(frozen=True, slots=True)
class ChunkGet:
    """CHUNK_GET."""

    handle: int
    sequence: int

    def push(self) -> bytes:
        """Encode to 6 bytes."""
        return header(Code.CHUNK_GET, 0, self.handle) + struct.pack("<H", self.sequence)


def pull_chunk_get(data: bytes) -> ChunkGet:
    """Decode CHUNK_GET. Raises Malformed."""
    reader = Reader(data, Code.CHUNK_GET.name)
    reader.expect(header(Code.CHUNK_GET)[:3], "version, code and param1")
    handle, sequence = reader.integer(1, "handle"), reader.integer(2, "sequence number")
    reader.end()
    return ChunkGet(handle, sequence)


def cut(message: bytes, code: Code, handle: int, room: int = DATA_TRANSFER_SIZE) -> list[Chunk]:
    """A message of at most 65,536 bytes as chunks. Raises ValueError for one that fits into `room`, or a larger one."""
    if not room < len(message) <= MAX_MESSAGE:
        raise ValueError(f"a message of {len(message)} bytes is not sent in chunks")
    chunks = [Chunk(code, handle, 0, message[:_FIRST_DATA], len(message))]
    for start in range(_FIRST_DATA, len(message), _LATER_DATA):
        last = start + _LATER_DATA >= len(message)
        chunks.append(Chunk(code, handle, len(chunks), message[start : start + _LATER_DATA], last=last))
    return chunks


class Assembler:
    """Puts the chunks of one message together again. `code` and, where it is known, `handle` are what they must have.

    A message that would have fitted into `room` is refused. Keeps at most the size that the first chunk named.
    """

    def __init__(self, code: Code, handle: int | None = None, room: int = DATA_TRANSFER_SIZE) -> None:
        self._code = code
        self._handle = handle
        self._room = room
        self._sequence = 0
        self._total = 0
        self._data = bytearray()

    def add(self, data: bytes) -> tuple[Chunk, bytes | None]:
        """The chunk in one message, and with the last one the whole message. Raises Malformed; nothing may follow."""
        chunk = pull_chunk(data, self._code)
        if self._handle is None:
            self._handle = chunk.handle
        if (chunk.handle, chunk.sequence) != (self._handle, self._sequence):
            wanted = f"handle {self._handle}, sequence {self._sequence}"
            raise self._wrong(f"handle {chunk.handle}, sequence {chunk.sequence} instead of {wanted}")
        if chunk.total is not None:
            self._begin(chunk.total)
        self._data += chunk.data
        self._sequence += 1
        if len(self._data) > self._total or chunk.last != (len(self._data) == self._total):
            raise self._wrong(f"{len(self._data)} of {self._total} bytes, last: {chunk.last}")
        return chunk, bytes(self._data) if chunk.last else None

    def _begin(self, total: int) -> None:
        if not self._room < total <= MAX_MESSAGE:
            raise self._wrong(f"a message of {total} bytes")
        self._total = total

    def _wrong(self, detail: str) -> Malformed:
        return Malformed(f"{self._code.name}: {detail}")
