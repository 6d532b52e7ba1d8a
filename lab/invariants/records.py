# SPDX-License-Identifier: BSD-2-Clause-Patent
"""TLS records in what a side sent, as far as they can be read from outside: type and length (RFC 8446, 5.1)."""

from __future__ import annotations

from typing import Final

from migtd.migration.data import EXCHANGE_SIZE

KEY_RECORD: Final = EXCHANGE_SIZE + 1 + 16
"""Bytes of the protected record with the exchange information: the 40 bytes, their type, the tag of AES-GCM.

No record of a handshake between two MigTDs has this length, and none is cut to it.
"""
_HEADER: Final = 5
_TYPES: Final = range(20, 24)
_APPLICATION_DATA: Final = 23
_MAJOR_VERSION: Final = 3


class RecordReader:
    """Follows a stream of records, in any portions. A stream that is not TLS is left alone from there on."""

    def __init__(self) -> None:
        self.first: int | None = None
        """Type of the first record; None before it was complete enough, or if this is not TLS."""
        self._header = b""
        self._rest = 0
        self._key_sized = False
        self._lost = False

    @property
    def goes_on(self) -> bool:
        """Whether the stream began with protected data: it goes on with another session."""
        return self.first == _APPLICATION_DATA

    def feed(self, portion: bytes) -> bool:
        """Take the next bytes; True if they complete a record of the length KEY_RECORD."""
        found = False
        data = memoryview(portion)
        while data and not self._lost:
            if self._rest:
                taken, data = data[: self._rest], data[self._rest :]
                self._rest -= len(taken)
                found |= self._key_sized and not self._rest
            else:
                wanted = _HEADER - len(self._header)
                self._header, data = self._header + bytes(data[:wanted]), data[wanted:]
                if len(self._header) == _HEADER:
                    self._start_record()
        return found

    def _start_record(self) -> None:
        kind, version, self._rest = self._header[0], self._header[1], int.from_bytes(self._header[3:])
        self._header = b""
        if kind not in _TYPES or version != _MAJOR_VERSION:
            self._lost = True
            return
        self.first = kind if self.first is None else self.first
        self._key_sized = kind == _APPLICATION_DATA and self._rest == KEY_RECORD
