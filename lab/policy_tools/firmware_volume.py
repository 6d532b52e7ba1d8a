# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The configuration firmware volume of an image: finding a raw file, and making a volume (policy.md 6.6)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final
from uuid import UUID

POLICY: Final = UUID("0BE92DC3-6221-4C98-87C1-8EEFFD70DE5A")
ROOT_CA: Final = UUID("CA437832-4C51-4322-B13D-A21BD0C8FFF6")
POLICY_ISSUER_CHAIN: Final = UUID("3F2FB27A-9596-431C-A68D-D3EAB39F8AEB")
FILE_SYSTEM: Final = UUID("5473C07A-3DCB-4DCA-BD6F-1E9689E7349A")

_VOLUME: Final = struct.Struct("<16s16sQ4sIHHHBB")
"""zeros, file system, length, `_FVH`, attributes, header length, checksum, extended header, reserved, revision."""
_BLOCKS: Final = struct.Struct("<IIII")
_EXTENDED: Final = struct.Struct("<16sI")
_FILE: Final = struct.Struct("<16sBBBB3sB")
"""name, header checksum, file checksum, type, attributes, size u24, state."""
_LARGE: Final = struct.Struct("<I")
_SIGNATURE: Final = b"_FVH"
_ATTRIBUTES: Final = 0x0004_F6FF
_REVISION: Final = 2
_HEADER_LENGTH: Final = 120
_EXTENDED_OFFSET: Final = 0x60
_BLOCK: Final = 0x1000
_RAW: Final = 1
_PAD: Final = 0xF0
_LARGE_FILE: Final = 0x01
_FILE_CHECKSUM: Final = 0xAA
_STATE: Final = 0x07
_SUM: Final = (_FILE_CHECKSUM + _STATE) & 0xFF
_U24_MAX: Final = 0xFF_FFFF
_PAD_NAME: Final = UUID("00000000-0000-0000-0000-000000000000")


def find_raw_file(volume: bytes, name: UUID) -> bytes | None:
    """The content of a raw file; None if the volume has none of that name, or is none itself.

    The walk ends at the first file whose header does not add up, as the reference's does.
    """
    header_length = _header_length(volume)
    if header_length is None:
        return None
    offset, wanted = header_length, name.bytes_le
    while (size := _file_size(volume, offset)) is not None:
        found, _, _, kind, attributes, _, _ = _FILE.unpack_from(volume, offset)
        head = _FILE.size + (_LARGE.size if attributes & _LARGE_FILE else 0)
        if found == wanted and kind == _RAW:
            return volume[offset + head : offset + size]
        offset += -(-size // 8) * 8
    return None


def make_volume(files: Iterable[tuple[UUID, bytes]], size: int) -> bytes:
    """A volume of `size` bytes with these raw files. Raises ValueError where they do not fit."""
    body = bytearray()
    for name, content in files:
        body += bytes(-len(body) % 8) + _file(name, _RAW, content)
    head = (bytes(16), FILE_SYSTEM.bytes_le, size, _SIGNATURE, _ATTRIBUTES, _HEADER_LENGTH)
    tail = (_EXTENDED_OFFSET, 0, _REVISION)
    words = struct.unpack("<28H", _VOLUME.pack(*head, 0, *tail))
    header = _VOLUME.pack(*head, -sum(words) & 0xFFFF, *tail)
    header += _BLOCKS.pack(size // _BLOCK, _BLOCK, 0, 0)
    header += _file(_PAD_NAME, _PAD, _EXTENDED.pack(bytes(16), _EXTENDED.size) + bytes(4))
    volume = header + bytes(body)
    if len(header) != _HEADER_LENGTH or len(volume) > size:
        raise ValueError(f"{len(volume)} bytes in a volume of {size}")
    return volume + b"\xff" * (size - len(volume))


def _header_length(volume: bytes) -> int | None:
    if len(volume) < _VOLUME.size:
        return None
    zeros, _, length, signature, _, header_length, _, _, _, revision = _VOLUME.unpack_from(volume)
    words = struct.unpack_from("<28H", volume)
    sound = not any(zeros) and signature == _SIGNATURE and revision == _REVISION and not sum(words) & 0xFFFF
    return header_length if sound and length == len(volume) and header_length >= _VOLUME.size else None


def _file_size(volume: bytes, offset: int) -> int | None:
    """Bytes of the file that starts here, header included; None where there is no sound one."""
    if len(volume) - offset < _FILE.size:
        return None
    header = volume[offset : offset + _FILE.size]
    _, _, _, _, attributes, short, _ = _FILE.unpack(header)
    head, size = _FILE.size, int.from_bytes(short, "little")
    if attributes & _LARGE_FILE:
        head += _LARGE.size
        if len(volume) - offset < head:
            return None
        (size,) = _LARGE.unpack_from(volume, offset + _FILE.size)
        header = volume[offset : offset + head]
    if sum(header) & 0xFF != _SUM or size < head or size > len(volume) - offset:
        return None
    return size


def _file(name: UUID, kind: int, content: bytes) -> bytes:
    size, attributes, large = _FILE.size + len(content), 0, b""
    if size > _U24_MAX:
        size += _LARGE.size
        attributes, large = _LARGE_FILE, _LARGE.pack(size)
    short = (0 if large else size).to_bytes(3, "little")

    def header(checksum: int) -> bytes:
        return _FILE.pack(name.bytes_le, checksum, _FILE_CHECKSUM, kind, attributes, short, _STATE) + large

    return header((_SUM - sum(header(0))) & 0xFF) + content
