# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The small cores of the emulated guest: judging a buffer's header, handing out pages."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from migtd.errors import OutOfResource
from migtd.guest.abi import PAGE_SIZE, SHARED_BIT
from migtd.guest.services import Completion, ghci_status
from migtd.guest.shared_memory import SharedPages, SharedPagesBuffer

U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
STATUSES = st.builds(
    lambda low, reason, high: low | reason << 8 | high << 16, st.integers(0, 3), st.integers(0, 4), U32
)
PAGES = 12


@given(STATUSES | U64, U32 | st.just(0), st.integers(0, 1 << 17))
def test_every_header_has_exactly_the_meaning_of_the_specification(status, length, size):
    first, second = status.to_bytes(8, "little")[:2]
    completion = ghci_status(status, length, size)
    assert (completion in (Completion.SUCCESS, Completion.MALFORMED)) is (first == 1)
    assert (completion is Completion.SUCCESS) is (first == 1 and length <= size)
    assert (completion is Completion.CANCELED) is (first == 2 and second == 3)
    assert (completion is Completion.PEER_GONE) is (first == 2 and second == 1 and length == 0)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=60))
def test_buffers_never_overlap_and_no_page_gets_lost(steps):
    pages = SharedPages(memoryview(bytearray(PAGES * PAGE_SIZE)))
    held: list[SharedPagesBuffer] = []
    for is_free, number in steps:
        if is_free and held:
            held.pop(number % len(held)).free()
        elif not is_free:
            size = (number % 5 + 1) * PAGE_SIZE - number
            with contextlib.suppress(OutOfResource):
                held.append(pages.allocate(size))
        taken = [
            page for each in held for page in range(each.gpa - SHARED_BIT, each.gpa - SHARED_BIT + each.size, PAGE_SIZE)
        ]
        assert len(taken) == len(set(taken))
        assert all(0 <= page < PAGES * PAGE_SIZE and page % PAGE_SIZE == 0 for page in taken)
        assert pages.free_pages == PAGES - len(taken)
    for each in held:
        each.free()
    assert pages.allocate(PAGES * PAGE_SIZE).size == PAGES * PAGE_SIZE
