# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The MigTD's log areas as the host sees them in shared memory (ghci-ratls.md 7)."""

from __future__ import annotations

import struct

import pytest

from migtd.errors import InvalidParameter, OutOfResource
from migtd.guest.abi import SHARED_BIT
from migtd.guest.ghci import NO_REQUEST, LogAreaRange
from migtd.guest.shared_memory import SharedPages
from migtd.migration.logging import LogEntry, LogLevel, LogRing, MigTdLog, pull_log_page

HEADER = struct.Struct("<16sIIQQ")


class Host:
    """Shared memory as the host has it, and a log written into it."""

    def __init__(self, vcpus: int = 1, ceiling: LogLevel = LogLevel.INFO) -> None:
        self.memory = bytearray(1 << 16)
        self.log = MigTdLog(SharedPages(memoryview(self.memory)), vcpus, ceiling=ceiling)

    def page(self, area: LogAreaRange) -> bytes:
        offset = area.address & ~SHARED_BIT
        return bytes(self.memory[offset : offset + area.size])

    def entries(self, area: LogAreaRange) -> list[LogEntry]:
        return pull_log_page(self.page(area))


def entry(number: int, text: str) -> LogEntry:
    return LogEntry(number, NO_REQUEST, LogLevel.INFO, text)


def offsets(page: bytes) -> tuple[int, int]:
    _, _, _, start, end = HEADER.unpack_from(page)
    return start, end


# --- the page, byte by byte ----------------------------------------------------------------------------------------
def test_empty_page_is_a_header_with_both_offsets_behind_it() -> None:
    page = LogRing(3).page
    assert page == b"MigTD LogArea 1\0" + struct.pack("<IIQQ", 3, 0, 40, 40) + bytes(4096 - 40)


def test_entry_has_the_layout_of_the_specification() -> None:
    ring = LogRing(0)
    assert ring.append(LogEntry(9, 0x1122, LogLevel.WARN, "héllo"))
    page = ring.page
    assert page[40:70] == struct.pack("<QQB3xI", 9, 0x1122, 2, 6) + "héllo".encode()
    assert offsets(page) == (40, 70)
    assert not any(page[70:])


def test_entry_that_fills_the_page_exactly_is_kept_and_one_byte_more_is_dropped() -> None:
    ring = LogRing(0)
    assert not ring.append(entry(1, "x" * (4096 - 40 - 24 + 1)))
    assert offsets(ring.page) == (40, 40)
    assert ring.append(entry(2, "x" * (4096 - 40 - 24)))
    assert offsets(ring.page) == (40, 4096)
    assert ring.append(entry(3, "next"))
    assert [each.id for each in pull_log_page(ring.page)] == [3]


def test_entry_that_does_not_fit_in_the_rest_wraps_and_the_rest_is_zeroed() -> None:
    ring = LogRing(0)
    for number in (1, 2, 3, 4):
        ring.append(entry(number, "x" * 976))  # 1000 bytes each: 40, 1040, 2040, 3040 .. 4040
    ring.append(entry(5, "y" * 76))
    page = ring.page
    # Entry 1, which was in the way, is given up; start moves on to entry 2.
    assert offsets(page) == (1040, 140)
    assert page[4040:] == bytes(56)
    assert [each.id for each in pull_log_page(page)] == [2, 3, 4, 5]


def test_older_entry_that_starts_where_the_new_one_ends_is_given_up_so_that_the_page_never_looks_empty() -> None:
    ring = LogRing(0)
    for number in (1, 2, 3, 4):
        ring.append(entry(number, "x" * 976))
    ring.append(entry(5, "y" * 976))  # 40 .. 1040, where entry 2 starts
    assert offsets(ring.page) == (2040, 1040)
    assert [each.id for each in pull_log_page(ring.page)] == [3, 4, 5]


def test_ring_that_wraps_a_second_time_gives_up_the_tail_of_the_round_before() -> None:
    ring = LogRing(0)
    for number, size in enumerate((1000, 1000, 1000, 1000, 100, 3000, 2000), start=1):
        ring.append(entry(number, "x" * (size - 24)))
    # 6 went behind 5 (140 .. 3140) and took 2 to 4 with it; 7 wraps and takes 5 and 6 with it.
    assert offsets(ring.page) == (40, 2040)
    assert [each.id for each in pull_log_page(ring.page)] == [7]


def test_wrap_while_the_oldest_are_still_in_the_tail_gives_these_up_and_zeroes_what_they_leave() -> None:
    ring = LogRing(0)
    for number, size in enumerate((1000, 1000, 1000, 1000, 1200, 1700, 1170), start=1):
        ring.append(entry(number, "x" * (size - 24)))
    # Before 7: 4 in the tail (3040), 5 (40), 6 (1240 .. 2940). 7 does not fit behind 6 and takes 4 and 5 with it.
    page = ring.page
    assert offsets(page) == (1240, 1210)
    assert not any(page[2940:])
    assert [each.id for each in pull_log_page(page)] == [6, 7]


# --- enabling ------------------------------------------------------------------------------------------------------
def test_nothing_is_in_shared_memory_before_the_log_is_enabled() -> None:
    host = Host()
    host.log.write(LogLevel.INFO, "early")
    assert not any(host.memory)


def test_entries_made_before_are_published_by_enabling_and_later_ones_at_once() -> None:
    host = Host()
    host.log.write(LogLevel.INFO, "early", 7)
    (area,) = host.log.enable(3)
    host.log.write(LogLevel.ERROR, "late")
    assert host.entries(area) == [
        LogEntry(1, 7, LogLevel.INFO, "early"),
        LogEntry(2, NO_REQUEST, LogLevel.ERROR, "late"),
    ]


def test_there_is_one_page_for_each_vcpu_with_its_index() -> None:
    host = Host(vcpus=3)
    areas = host.log.enable(3)
    assert [area.size for area in areas] == [4096] * 3
    assert len({area.address for area in areas}) == 3
    assert [HEADER.unpack_from(host.page(area))[1] for area in areas] == [0, 1, 2]
    assert all(area.address & SHARED_BIT for area in areas)


@pytest.mark.parametrize("level", [0, 6, 255])
def test_level_outside_1_to_5_is_refused_and_publishes_nothing(level: int) -> None:
    host = Host()
    host.log.write(LogLevel.INFO, "early")
    with pytest.raises(InvalidParameter) as caught:
        host.log.enable(level)
    assert caught.value.kind.id == "MIGTD-LOG-LEVEL-INVALID"
    assert not any(host.memory)


@pytest.mark.parametrize(
    ("ceiling", "asked", "kept"),
    [
        (LogLevel.INFO, 1, [1]),
        (LogLevel.INFO, 3, [1, 2, 3]),
        (LogLevel.INFO, 5, [1, 2, 3]),
        (LogLevel.TRACE, 5, [1, 2, 3, 4, 5]),
        (LogLevel.TRACE, 4, [1, 2, 3, 4]),
    ],
)
def test_host_gets_the_level_it_asks_for_and_never_more_than_the_start_allows(
    ceiling: LogLevel, asked: int, kept: list[int]
) -> None:
    host = Host(ceiling=ceiling)
    (area,) = host.log.enable(asked)
    for level in LogLevel:
        host.log.write(level, level.name)
    assert [each.level for each in host.entries(area)] == kept


def test_enabling_again_changes_the_level_and_moves_nothing() -> None:
    host = Host()
    first = host.log.enable(1)
    host.log.write(LogLevel.ERROR, "one")
    assert host.log.enable(3) == first
    host.log.write(LogLevel.INFO, "two")
    assert [each.text for each in host.entries(first[0])] == ["one", "two"]


def test_what_the_host_does_to_a_page_is_overwritten_and_never_read() -> None:
    host = Host()
    (area,) = host.log.enable(3)
    host.log.write(LogLevel.INFO, "one")
    host.memory[:] = b"\xff" * len(host.memory)
    host.log.write(LogLevel.INFO, "two")
    assert [each.text for each in host.entries(area)] == ["one", "two"]


def test_text_that_a_peer_may_have_made_is_one_line_of_limited_length() -> None:
    host = Host()
    (area,) = host.log.enable(3)
    host.log.write(LogLevel.ERROR, "a\x1b[2J\nb" + "c" * 5000)
    (read,) = host.entries(area)
    assert read.text.startswith("a\ufffd[2J\ufffdbccc")
    assert len(read.text) == 1000
    assert read.text.endswith("c\u2026")


def test_ids_start_at_1_and_skip_0_after_the_last() -> None:
    host = Host()
    host.log._next_id = (1 << 64) - 1
    (area,) = host.log.enable(3)
    host.log.write(LogLevel.INFO, "last")
    host.log.write(LogLevel.INFO, "first again")
    assert [each.id for each in host.entries(area)] == [(1 << 64) - 1, 1]


def test_log_without_memory_is_out_of_resource() -> None:
    with pytest.raises(OutOfResource):
        MigTdLog(SharedPages(memoryview(bytearray(4096))), 2)


# --- the reader ----------------------------------------------------------------------------------------------------
def page_of(start: int, end: int, body: bytes, signature: bytes = b"MigTD LogArea 1\0") -> bytes:
    return (HEADER.pack(signature, 0, 0, start, end) + body).ljust(4096, b"\0")


GOOD = struct.pack("<QQB3xI", 1, 2, 3, 4) + b"good"


@pytest.mark.parametrize(
    "page",
    [
        b"",
        bytes(4096),
        page_of(40, 68, GOOD)[:-1],
        page_of(40, 68, GOOD) + b"\0",
        page_of(40, 68, GOOD, b"MigTD LogArea 2\0"),
        page_of(39, 68, GOOD),
        page_of(4097, 68, GOOD),
        page_of(40, 1 << 63, GOOD),
        page_of(40, 0, GOOD),
        page_of(40, 67, GOOD),
        page_of(40, 64, GOOD),
        page_of(40, 4096, struct.pack("<QQB3xI", 1, 2, 3, 0xFFFFFFFF)),
    ],
)
def test_page_that_cannot_be_gives_no_entries(page: bytes) -> None:
    assert pull_log_page(page) == []


def test_entries_before_a_broken_one_are_kept() -> None:
    broken = struct.pack("<QQB3xI", 2, 2, 3, 5000)
    assert [each.text for each in pull_log_page(page_of(40, 4096, GOOD + broken))] == ["good"]


@pytest.mark.parametrize("level", [0, 6, 255])
def test_entry_of_an_unknown_level_is_left_out_and_the_next_is_read(level: int) -> None:
    odd = struct.pack("<QQB3xI", 1, 2, level, 4) + b"odd!"
    assert [each.text for each in pull_log_page(page_of(40, 40 + 2 * 28, odd + GOOD))] == ["good"]


def test_text_cannot_command_a_terminal_and_need_not_be_utf_8() -> None:
    text = b"\x1b[2J\nA\xff\xc2\x9b"
    page = page_of(40, 40 + 24 + len(text), struct.pack("<QQB3xI", 1, 2, 3, len(text)) + text)
    (read,) = pull_log_page(page)
    assert read.text == "\ufffd[2J\ufffdA\ufffd\ufffd"
