# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The vmcall header before every SPDM message and secured record (spdm.md 3.2)."""

from __future__ import annotations

import enum
import struct
from typing import Final

from migtd.spdm.errors import SilentRefusal
from migtd.spdm.failures import SPDM_TRANSPORT

HEADER_SIZE: Final = 12
MAX_BODY: Final = 4084
"""Most bytes of a body that is accepted; this profile sends no more than 4032."""
_HEADER: Final = struct.Struct("<4sHBBI")
_SIGNATURE: Final = b"SPDM"
_VERSION: Final = 0x0100


class BodyType(enum.IntEnum):
    """What a body is."""

    PLAIN = 1
    SECURED = 2


_BY_NUMBER: Final[dict[int, BodyType]] = {kind.value: kind for kind in BodyType}


def push_frame(kind: BodyType, body: bytes) -> bytes:
    """Header and body, 1 to 4084 bytes."""
    if not 0 < len(body) <= MAX_BODY:
        raise ValueError(f"a body of {len(body)} bytes")
    return _HEADER.pack(_SIGNATURE, _VERSION, kind, 0, len(body)) + body


class FrameCutter:
    """Cuts what arrives, in any portions, into bodies. Keeps at most what it was given and did not yet hand out."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        """Append what arrived."""
        self._data += data

    @property
    def waiting(self) -> int:
        """Number of bytes that were not handed out."""
        return len(self._data)

    def next_frame(self) -> tuple[BodyType, bytes] | None:
        """The next body, or None: feed more.

        Raises SilentRefusal (MIGTD-SPDM-TRANSPORT) as soon as a header is whole and wrong.
        """
        if len(self._data) < HEADER_SIZE:
            return None
        kind, length = _pull_header(bytes(self._data[:HEADER_SIZE]))
        end = HEADER_SIZE + length
        if len(self._data) < end:
            return None
        body = bytes(self._data[HEADER_SIZE:end])
        del self._data[:end]
        return kind, body


def _pull_header(header: bytes) -> tuple[BodyType, int]:
    signature, version, number, reserved, length = _HEADER.unpack(header)
    kind = _BY_NUMBER.get(number)
    if signature != _SIGNATURE or version != _VERSION or reserved or kind is None:
        raise SilentRefusal(f"the header is {header.hex()}", SPDM_TRANSPORT)
    if not 0 < length <= MAX_BODY:
        raise SilentRefusal(f"a body of {length} bytes, 1 to {MAX_BODY} are allowed", SPDM_TRANSPORT)
    return kind, length
