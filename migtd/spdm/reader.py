# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Reads the fields of one message in order, strictly: nothing missing, nothing left over."""

from __future__ import annotations

from migtd.spdm.errors import Malformed, SpdmRefusal


class Reader:
    """A cursor over `data`. Every method raises `refusal` where the data is not what it must be.

    `what` names the message in that error. Integers are little-endian.
    """

    def __init__(self, data: bytes, what: str, refusal: type[SpdmRefusal] = Malformed) -> None:
        self._data = data
        self._at = 0
        self._what = what
        self._refusal = refusal

    def take(self, size: int, field: str) -> bytes:
        """The next `size` bytes."""
        end = self._at + size
        if end > len(self._data):
            raise self.wrong(f"{field} needs {size} bytes, {len(self._data) - self._at} are left")
        part = self._data[self._at : end]
        self._at = end
        return part

    def integer(self, size: int, field: str) -> int:
        """The next unsigned integer of `size` bytes."""
        return int.from_bytes(self.take(size, field), "little")

    def expect(self, value: bytes, field: str) -> None:
        """The next bytes are exactly `value`."""
        found = self.take(len(value), field)
        if found != value:
            raise self.wrong(f"{field} is {found.hex()} instead of {value.hex()}")

    def end(self) -> None:
        """Nothing is left."""
        if self._at != len(self._data):
            raise self.wrong(f"{len(self._data) - self._at} bytes are left over")

    def wrong(self, detail: str) -> SpdmRefusal:
        """The error to raise for `detail`."""
        return self._refusal(f"{self._what}: {detail}")
