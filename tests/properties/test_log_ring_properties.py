# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The log ring under any sequence of writes, and its reader under any page (ghci-ratls.md 7)."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from migtd.migration.logging import LogEntry, LogLevel, LogRing, pull_log_page, pull_log_page_from

U64 = st.integers(0, 2**64 - 1)
PRINTABLE = st.characters(exclude_categories=("Cc", "Cs"))
TEXT = st.one_of(
    st.text(PRINTABLE, max_size=40),
    st.builds(lambda size: "x" * size, st.integers(0, 4200)),
)
MOST_ENTRIES = (4096 - 40) // 24


def offsets(page: bytes) -> tuple[int, int]:
    start, end = struct.unpack_from("<QQ", page, 24)
    return start, end


@given(st.lists(st.tuples(U64, st.sampled_from(LogLevel), TEXT), max_size=60))
def test_reader_sees_the_newest_entries_unchanged_and_in_order(writes: list[tuple[int, LogLevel, str]]) -> None:
    ring = LogRing(0)
    kept: list[LogEntry] = []
    for number, (request_id, level, text) in enumerate(writes, start=1):
        entry = LogEntry(number, request_id, level, text)
        fits = 24 + len(text.encode()) <= 4096 - 40
        assert ring.append(entry) is fits
        if fits:
            kept.append(entry)
        page = ring.page
        read = pull_log_page(page)
        assert len(page) == 4096
        assert read == kept[len(kept) - len(read) :]
        start, end = offsets(page)
        assert (start == end) == (not kept)
        assert bool(read) == bool(kept)


@given(st.lists(st.tuples(TEXT, st.integers(0, 9)), max_size=80))
def test_going_on_from_the_last_look_shows_what_a_whole_look_would_show(writes: list[tuple[str, int]]) -> None:
    ring = LogRing(0)
    at = last_id = 0
    for number, (text, silence) in enumerate(writes, start=1):
        ring.append(LogEntry(number, 0, LogLevel.INFO, text))
        if silence > 2:
            continue
        page = ring.page
        new = [entry for entry in pull_log_page(page) if entry.id > last_id]
        assert pull_log_page_from(page, at, last_id) in (new, [])
        at, last_id = offsets(page)[1], max(last_id, *(entry.id for entry in new), 0)


@given(st.lists(st.integers(0, 300), min_size=2, max_size=300))
def test_a_reader_that_looks_after_each_entry_need_never_look_at_the_whole_page(sizes: list[int]) -> None:
    ring = LogRing(0)
    ring.append(LogEntry(1, 0, LogLevel.INFO, "first"))
    for number, size in enumerate(sizes, start=2):
        at = offsets(ring.page)[1]
        entry = LogEntry(number, 0, LogLevel.INFO, "x" * size)
        ring.append(entry)
        assert pull_log_page_from(ring.page, at, number - 1) == [entry]


@given(
    pattern=st.binary(min_size=1, max_size=80),
    start=st.integers(0, 5000),
    end=st.integers(0, 5000),
    at=st.integers(0, 4096) | U64,
    last_id=U64,
)
def test_going_on_in_any_page_gives_a_bounded_list(pattern: bytes, start: int, end: int, at: int, last_id: int) -> None:
    page = (struct.pack("<16sIIQQ", b"MigTD LogArea 1\0", 0, 0, start, end) + pattern * 4096)[:4096]
    assert pull_log_page_from(pattern, at, last_id) == []
    assert len(pull_log_page_from(page, at, last_id)) <= MOST_ENTRIES


@given(st.lists(st.integers(0, 600), min_size=1, max_size=60))
def test_no_entry_is_given_up_that_is_not_in_the_way(sizes: list[int]) -> None:
    """What is kept fills the page but for one largest entry in the way, and the unused rest before a wrap."""
    ring = LogRing(0)
    for number, size in enumerate(sizes, start=1):
        ring.append(LogEntry(number, 0, LogLevel.INFO, "x" * size))
    read = pull_log_page(ring.page)
    if len(read) < len(sizes):
        assert sum(24 + len(entry.text) for entry in read) > 4096 - 40 - 3 * (24 + max(sizes))


@given(U64, U64, st.binary(min_size=1, max_size=80))
def test_any_page_gives_a_bounded_list(start: int, end: int, pattern: bytes) -> None:
    header = struct.pack("<16sIIQQ", b"MigTD LogArea 1\0", 0, 0, start, end)
    page = (header + pattern * 4096)[:4096]
    assert len(pull_log_page(page)) <= MOST_ENTRIES


@given(
    start=st.integers(0, 5000),
    end=st.integers(0, 5000),
    fields=st.lists(st.tuples(U64, U64, st.integers(0, 255), st.integers(0, 200) | st.integers(0, 2**32 - 1))),
    gap=st.binary(max_size=64),
)
def test_any_plausible_page_gives_a_bounded_list_of_known_levels(
    start: int, end: int, fields: list[tuple[int, int, int, int]], gap: bytes
) -> None:
    body = b"".join(struct.pack("<QQB3xI", *each) + gap for each in fields)
    page = (struct.pack("<16sIIQQ", b"MigTD LogArea 1\0", 0, 0, start, end) + body)[:4096].ljust(4096, b"\0")
    read = pull_log_page(page)
    assert len(read) <= MOST_ENTRIES
    assert sum(24 for _ in read) <= 4096
    assert all(entry.id and entry.level in LogLevel for entry in read)


@given(st.binary(max_size=5000))
def test_bytes_of_any_length_never_raise(data: bytes) -> None:
    assert isinstance(pull_log_page(data), list)


@given(st.lists(st.integers(0, 300), max_size=40), st.integers(0, 4095), st.integers(0, 255))
def test_one_spoilt_byte_never_raises(sizes: list[int], at: int, value: int) -> None:
    ring = LogRing(0)
    for number, size in enumerate(sizes, start=1):
        ring.append(LogEntry(number, 0, LogLevel.INFO, "x" * size))
    page = bytearray(ring.page)
    page[at] = value
    assert len(pull_log_page(bytes(page))) <= MOST_ENTRIES
