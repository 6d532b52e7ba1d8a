# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Frames between two hosts, sans-IO: `u32 length | payload`, 1 to 65,536 bytes of payload (ghci-ratls.md 4)."""

from __future__ import annotations

import struct
from typing import Final

from migtd.errors import LabFailure
from vmm_stub import failures

MAX_FRAME: Final = 65536
_LENGTH: Final = struct.Struct("<I")


class WireError(LabFailure):
    """The wire cannot be set up or went wrong: a kind `VMM-WIRE-…`."""


def push_frame(payload: bytes) -> bytes:
    """Encode one frame. Raises ValueError on a length that no receiver accepts: the caller's own mistake."""
    if not 0 < len(payload) <= MAX_FRAME:
        raise ValueError(f"a frame of {len(payload)} bytes")
    return _LENGTH.pack(len(payload)) + payload


class FrameDecoder:
    """Cuts a byte stream into frames. Holds at most one incomplete frame besides what was fed and not yet taken."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive_data(self, data: bytes) -> None:
        """Bytes from the peer, in any portions."""
        self._buffer += data

    def next_frame(self) -> bytes | None:
        """Payload of the next whole frame, or None: feed more.

        Raises WireError (VMM-WIRE-FRAME-LENGTH) as soon as a length is seen that cannot be; the stream is then over.
        """
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if not 0 < length <= MAX_FRAME:
            raise WireError(failures.WIRE_FRAME_LENGTH, f"{length} bytes")
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[_LENGTH.size : end])
        del self._buffer[:end]
        return payload

    def end(self) -> None:
        """The stream ended. Raises WireError (VMM-WIRE-TRUNCATED) if that was inside a frame."""
        if self._buffer:
            raise WireError(failures.WIRE_TRUNCATED, f"{len(self._buffer)} bytes of an incomplete frame")
