# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The host's reader of a MigTD's log areas (ghci-ratls.md 7).

The pages are the guest's: nothing in them is trusted, and a look that finds nothing new costs one comparison a page.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from migtd.guest.abi import PAGE_SIZE
from migtd.guest.ghci import LogAreaRange
from migtd.migration.logging import LogEntry, pull_log_page, pull_log_page_from
from vmm_stub.vmm.guest_buffer import CallRefused, GuestMemory

OnEntry: TypeAlias = Callable[[int, LogEntry], None]
"""Told of each new entry with the vCPU of its page."""

_RING: Final = slice(24, 40)
"""start u64 and end u64 of the page's header."""
_END: Final = struct.Struct("<Q")


class LogAreaReader:
    """Reads the pages that a TD announced, and passes on each entry once, by its id."""

    def __init__(self, vcpus: int, on_entry: OnEntry) -> None:
        self._vcpus = vcpus
        self._on_entry = on_entry
        self._pages: list[_Page] = []

    def enable(self, memory: GuestMemory, areas: Sequence[LogAreaRange]) -> None:
        """Take the answer of EnableLogArea. Entries already passed on stay known if the addresses are the same.

        Raises CallRefused if it is not one page in shared memory for each vCPU.
        """
        if len(areas) != self._vcpus or any(area.size != PAGE_SIZE for area in areas):
            raise CallRefused
        offsets = [memory.offset(area.address, area.size) for area in areas]
        if offsets != [page.offset for page in self._pages]:
            self._pages = [_Page(offset) for offset in offsets]
        self.poll(memory)

    def poll(self, memory: GuestMemory) -> None:
        """Pass on what is new. For the start of every call of the guest."""
        for vcpu, page in enumerate(self._pages):
            ring = memory.read(page.offset + _RING.start, _RING.stop - _RING.start)
            if ring == page.ring:
                continue
            page.ring = ring
            at, page.end = page.end, _END.unpack(ring[_END.size :])[0]
            content = memory.read(page.offset, PAGE_SIZE)
            # Most looks find one or two new entries; to read the whole page for them would be most of a host's work.
            for entry in pull_log_page_from(content, at, page.last_id) or pull_log_page(content):
                if entry.id > page.last_id:
                    page.last_id = entry.id
                    self._on_entry(vcpu, entry)


class _Page:
    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.last_id = 0
        self.ring = b""
        self.end = 0
