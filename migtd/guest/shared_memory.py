# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Shared memory of an emulated TD: an allocator of pages that the host can read and change at any time."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

from migtd import failures
from migtd.errors import OutOfResource
from migtd.guest.abi import PAGE_SIZE, SHARED_BIT

_ZEROS: Final = bytes(16 * PAGE_SIZE)


class SharedPages:
    """Implements `migtd.guest.interfaces.SharedMemory` over the memory that a channel maps; first fit.

    All bookkeeping is private: the host can spoil what is in the pages, never which page belongs to whom.
    """

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._free = [_Run(0, len(memory) // PAGE_SIZE)]
        """Free runs by first page, never touching each other."""

    @property
    def free_pages(self) -> int:
        """Number of pages that are not allocated."""
        return sum(run.pages for run in self._free)

    def allocate(self, size: int) -> SharedPagesBuffer:
        """Zeroed shared memory of `size` bytes (at least 1), rounded up to pages.

        Raises OutOfResource (MIGTD-SHARED-MEMORY-EXHAUSTED) when no run of pages is long enough.
        """
        if size < 1:
            raise ValueError(f"a shared buffer of {size} bytes")
        pages = -(-size // PAGE_SIZE)
        first = self._take(pages)
        if first is None:
            raise OutOfResource(
                failures.SHARED_MEMORY_EXHAUSTED, f"{pages} pages in a row wanted, {self.free_pages} free in all"
            )
        start, end = first * PAGE_SIZE, (first + pages) * PAGE_SIZE
        for offset in range(start, end, len(_ZEROS)):
            stop = min(offset + len(_ZEROS), end)
            self._memory[offset:stop] = _ZEROS[: stop - offset]
        return SharedPagesBuffer(self, first, self._memory[start:end])

    def _take(self, pages: int) -> int | None:
        for index, run in enumerate(self._free):
            if run.pages > pages:
                self._free[index] = _Run(run.first + pages, run.pages - pages)
                return run.first
            if run.pages == pages:
                del self._free[index]
                return run.first
        return None

    def give_back(self, first: int, pages: int) -> None:
        """Join a run of pages with its free neighbours. Called by a buffer, once."""
        index = bisect_left(self._free, _Run(first, 0))
        if index < len(self._free) and self._free[index].first == first + pages:
            pages += self._free.pop(index).pages
        if index > 0 and self._free[index - 1].end == first:
            before = self._free.pop(index - 1)
            first, pages, index = before.first, before.pages + pages, index - 1
        self._free.insert(index, _Run(first, pages))


class SharedPagesBuffer:
    """Implements `migtd.guest.interfaces.SharedBuffer`. Any use outside its bounds or after `free` is a ValueError."""

    def __init__(self, owner: SharedPages, first_page: int, memory: memoryview) -> None:
        self._owner = owner
        self._first_page = first_page
        self._memory: memoryview | None = memory
        self._size = len(memory)

    @property
    def gpa(self) -> int:
        """Guest physical address: SHARED_BIT | offset into the shared memory."""
        return SHARED_BIT | self._first_page * PAGE_SIZE

    @property
    def size(self) -> int:
        """Size in bytes, a multiple of 4096."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """Copy `length` bytes from `offset` into private memory."""
        return bytes(self._within(offset, length)[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        """Copy `data` to `offset`."""
        self._within(offset, len(data))[offset : offset + len(data)] = data

    def free(self) -> None:
        """Give the pages back."""
        memory = self._within(0, 0)
        self._memory = None
        memory.release()
        self._owner.give_back(self._first_page, self._size // PAGE_SIZE)

    def _within(self, offset: int, length: int) -> memoryview:
        if self._memory is None:
            raise ValueError("the shared buffer was freed")
        if offset < 0 or length < 0 or offset + length > self._size:
            raise ValueError(f"{length} bytes at {offset} are not within a shared buffer of {self._size}")
        return self._memory


@dataclass(frozen=True, slots=True, order=True)
class _Run:
    first: int
    pages: int

    @property
    def end(self) -> int:
        return self.first + self.pages
