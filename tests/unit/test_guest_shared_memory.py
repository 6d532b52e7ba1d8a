# SPDX-License-Identifier: BSD-2-Clause-Patent
from __future__ import annotations

import pytest

from migtd import failures
from migtd.errors import OutOfResource
from migtd.guest.abi import PAGE_SIZE, SHARED_BIT
from migtd.guest.shared_memory import SharedPages

PAGES = 8


@pytest.fixture
def memory():
    return bytearray(PAGES * PAGE_SIZE)


@pytest.fixture
def pages(memory):
    return SharedPages(memoryview(memory))


def test_a_buffer_is_page_aligned_shared_and_rounded_up(pages):
    pages.allocate(1)
    buffer = pages.allocate(PAGE_SIZE + 1)
    assert buffer.gpa == SHARED_BIT | PAGE_SIZE
    assert buffer.size == 2 * PAGE_SIZE


def test_what_is_written_is_seen_by_the_host_and_read_back(pages, memory):
    buffer = pages.allocate(PAGE_SIZE)
    buffer.write(5, b"hello")
    assert memory[5:10] == b"hello"
    assert buffer.read(5, 5) == b"hello"


def test_a_read_is_a_private_copy(pages, memory):
    buffer = pages.allocate(PAGE_SIZE)
    copy = buffer.read(0, 4)
    memory[0:4] = b"evil"
    assert copy == bytes(4)


def test_allocated_memory_is_zero_whatever_was_there(pages, memory):
    memory[:] = b"\xff" * len(memory)
    buffer = pages.allocate(len(memory))
    assert buffer.read(0, buffer.size) == bytes(len(memory))


def test_freed_pages_join_and_serve_a_large_buffer_again(pages):
    buffers = [pages.allocate(PAGE_SIZE) for _ in range(PAGES)]
    for index in (1, 3, 2, 0, 7, 5, 6, 4):
        buffers[index].free()
    assert pages.allocate(PAGES * PAGE_SIZE).size == PAGES * PAGE_SIZE


def test_exhausted_memory_is_out_of_resource(pages):
    pages.allocate((PAGES - 1) * PAGE_SIZE)
    with pytest.raises(OutOfResource) as caught:
        pages.allocate(2 * PAGE_SIZE)
    assert caught.value.kind is failures.SHARED_MEMORY_EXHAUSTED
    pages.allocate(PAGE_SIZE)


def test_a_buffer_cannot_be_freed_twice_or_used_after(pages):
    buffer = pages.allocate(PAGE_SIZE)
    buffer.free()
    for use in (buffer.free, lambda: buffer.read(0, 1), lambda: buffer.write(0, b"x")):
        with pytest.raises(ValueError, match="freed"):
            use()
    assert pages.free_pages == PAGES


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, PAGE_SIZE + 1), (PAGE_SIZE, 1), (0, -1)])
def test_access_outside_the_buffer_is_refused(pages, offset, length):
    buffer = pages.allocate(PAGE_SIZE)
    with pytest.raises(ValueError, match="not within"):
        buffer.read(offset, length)


def test_a_write_outside_the_buffer_changes_nothing(pages, memory):
    buffer = pages.allocate(PAGE_SIZE)
    with pytest.raises(ValueError, match="not within"):
        buffer.write(PAGE_SIZE - 1, b"xx")
    assert not any(memory)


@pytest.mark.parametrize("size", [0, -1])
def test_a_buffer_of_no_size_is_refused(pages, size):
    with pytest.raises(ValueError, match="shared buffer"):
        pages.allocate(size)
