# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Secured records (spdm.md 6.2): one direction's sealer and opener, each with its own sequence number from 0."""

from __future__ import annotations

import struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from migtd.spdm.errors import SilentRefusal
from migtd.spdm.handshake import SESSION_ID
from migtd.spdm.keys import DirectionKeys

TAG_SIZE: Final = 16
_HEADER: Final = struct.Struct("<IQH")
_LENGTH: Final = struct.Struct("<H")
_SMALLEST: Final = 4
"""Bytes of the smallest SPDM message."""
_SEQUENCE_SIZE: Final = 8


class _Direction:
    def __init__(self, keys: DirectionKeys) -> None:
        self._aead = AESGCM(bytes(keys.key))
        self._iv_start = int.from_bytes(keys.iv[:_SEQUENCE_SIZE], "little")
        self._iv_end = bytes(keys.iv[_SEQUENCE_SIZE:])
        self._sequence = 0

    def _nonce(self) -> bytes:
        return (self._iv_start ^ self._sequence).to_bytes(_SEQUENCE_SIZE, "little") + self._iv_end


class RecordSealer(_Direction):
    """Seals what this side sends."""

    def seal(self, message: bytes) -> bytes:
        """The record of one SPDM message: 32 bytes longer."""
        plain = _LENGTH.pack(len(message)) + message
        head = _HEADER.pack(SESSION_ID, self._sequence, len(plain) + TAG_SIZE)
        sealed = self._aead.encrypt(self._nonce(), plain, head)
        self._sequence += 1
        return head + sealed


class RecordOpener(_Direction):
    """Opens what the peer sent, in its order."""

    def open(self, record: bytes) -> bytes:
        """The SPDM message of one record. Raises SilentRefusal (MIGTD-SPDM-RECORD); nothing may be opened then."""
        if len(record) < _HEADER.size + _LENGTH.size + _SMALLEST + TAG_SIZE:
            raise SilentRefusal(f"{len(record)} bytes are too few")
        session_id, sequence, length = _HEADER.unpack_from(record)
        if session_id != SESSION_ID:
            raise SilentRefusal(f"session id {session_id:#010x}")
        if sequence != self._sequence:
            raise SilentRefusal(f"sequence number {sequence} instead of {self._sequence}")
        if length != len(record) - _HEADER.size:
            raise SilentRefusal(f"a length of {length} in a record of {len(record)} bytes")
        try:
            plain = self._aead.decrypt(self._nonce(), record[_HEADER.size :], record[: _HEADER.size])
        except InvalidTag as error:
            raise SilentRefusal(f"the tag of record {sequence}") from error
        (size,) = _LENGTH.unpack_from(plain)
        if size != len(plain) - _LENGTH.size:
            raise SilentRefusal(f"a message of {size} bytes in {len(plain)}")
        self._sequence += 1
        return plain[_LENGTH.size :]
