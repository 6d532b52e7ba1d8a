# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the firmware of an emulated TD leaves behind for its payload: a started CCEL event log (policy.md 3.1, 3.6)."""

from __future__ import annotations

from typing import Final

from migtd import event_log
from migtd.guest.interfaces import TdCall

CCEL_SIZE: Final = 1 << 20
"""Size of the log area in bytes: td-shim's own, and room for every policy."""

_FIRMWARE_REGISTERS: Final = (1, 2)
"""mr_index of RTMR 0 and 1: the firmware's."""


class CcelArea:
    """Implements `migtd.guest.interfaces.EventLogArea`: `size` bytes of private memory.

    Unused bytes are 0xFF, as td-shim leaves them.
    """

    def __init__(self, size: int = CCEL_SIZE) -> None:
        self._bytes = bytearray(b"\xff" * size)

    def read(self) -> bytes:
        """The whole area."""
        return bytes(self._bytes)

    def write(self, offset: int, data: bytes) -> None:
        """Copy `data` to `offset`. Raises ValueError outside the area."""
        if offset < 0 or offset + len(data) > len(self._bytes):
            raise ValueError(f"{len(data)} bytes at {offset} are not within a log area of {len(self._bytes)}")
        self._bytes[offset : offset + len(data)] = data


def boot(tdcall: TdCall) -> CcelArea:
    """Start a log as td-shim does when the payload is in MRTD and no HOB is consumed: one separator in RTMR 0 and 1.

    Raises InitializationError (MIGTD-TDCALL-FAILED) or VmmInternalError (MIGTD-CHANNEL-LOST).
    """
    area = CcelArea()
    area.write(0, event_log.push_spec_id())
    for mr_index in _FIRMWARE_REGISTERS:
        event_log.append_event(area, event_log.separator_event(mr_index), tdcall.mr_rtmr_extend)
    return area
