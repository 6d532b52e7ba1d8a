# SPDX-License-Identifier: BSD-2-Clause-Patent
r"""The MigTD's log areas: one page per vCPU that the host may read, written as a ring (ghci-ratls.md 7).

A page of 4096 bytes is a header of 40 and entries behind it:

    "MigTD LogArea 1\0" 16 | vCPU index u32 | reserved u32 | start u64 | end u64
    id u64 | request id u64 | level u8 | 3 reserved | length u32 | text

`start` and `end` are offsets into the page; both 40 means empty, and they are equal in no other state. The writer's
copy is private: the shared page is only ever written, so nothing the host does to it reaches the MigTD.
"""

from __future__ import annotations

import enum
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from migtd import failures
from migtd.errors import InvalidParameter
from migtd.guest.abi import PAGE_SIZE
from migtd.guest.ghci import NO_REQUEST, LogAreaRange
from migtd.guest.interfaces import SharedMemory

SIGNATURE: Final = b"MigTD LogArea 1\0"
LOG_HEADER_SIZE: Final = 40
ENTRY_HEADER_SIZE: Final = 24

_HEADER: Final = struct.Struct("<16sIIQQ")
_ENTRY: Final = struct.Struct("<QQB3xI")
_START_OFFSET: Final = 24
_END_OFFSET: Final = 32
_OFFSET: Final = struct.Struct("<Q")
_MAX_ID: Final = (1 << 64) - 1

MAX_TEXT: Final = 1000
"""The MigTD cuts its texts to this many characters: what a peer sent may be part of one, and must not flush the log."""

_NO_CONTROLS: Final = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), "\N{REPLACEMENT CHARACTER}")


class LogLevel(enum.IntEnum):
    """Level of an entry; EnableLogArea names the highest one that the host wants."""

    ERROR = 1
    WARN = 2
    INFO = 3
    DEBUG = 4
    TRACE = 5


_LEVELS: Final = {level.value: level for level in LogLevel}


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One entry. `id` is 1..2^64-1; `request_id` is NO_REQUEST where the entry belongs to none."""

    id: int
    request_id: int
    level: LogLevel
    text: str


class LogRing:
    """One log page, sans-IO. It remembers where its entries are, so what is in the page is never read back."""

    def __init__(self, vcpu_index: int) -> None:
        self._page = bytearray(PAGE_SIZE)
        self._live: deque[int] = deque()
        self._end = LOG_HEADER_SIZE
        _HEADER.pack_into(self._page, 0, SIGNATURE, vcpu_index, 0, LOG_HEADER_SIZE, LOG_HEADER_SIZE)

    @property
    def page(self) -> bytes:
        """The 4096 bytes as they are to be published."""
        return bytes(self._page)

    def append(self, entry: LogEntry) -> bool:
        """Add one entry, giving up the oldest ones that are in its way. False: longer than a page, dropped."""
        text = entry.text.encode("utf-8", "replace")
        size = ENTRY_HEADER_SIZE + len(text)
        if size > PAGE_SIZE - LOG_HEADER_SIZE:
            return False
        if self._end + size > PAGE_SIZE:
            self._give_up(self._end, PAGE_SIZE)
            self._page[self._end :] = bytes(PAGE_SIZE - self._end)
            self._end = LOG_HEADER_SIZE
        at = self._end
        # The upper end counts: an older entry that starts where this one ends would make start equal to end.
        self._give_up(at, at + size)
        _ENTRY.pack_into(self._page, at, entry.id, entry.request_id, entry.level, len(text))
        self._page[at + ENTRY_HEADER_SIZE : at + size] = text
        self._live.append(at)
        self._end = at + size
        _OFFSET.pack_into(self._page, _START_OFFSET, self._live[0])
        _OFFSET.pack_into(self._page, _END_OFFSET, self._end)
        return True

    def _give_up(self, low: int, high: int) -> None:
        while self._live and low <= self._live[0] <= high:
            self._live.popleft()


def pull_log_page(page: bytes) -> list[LogEntry]:
    """The entries of one page, oldest first, as far as the page makes sense. Never raises, at most 169 entries.

    For the VMM: neither offsets nor lengths nor level are trusted, reading stops at the first thing that cannot be. An
    entry of an unknown level is left out. Control characters are replaced, so that a guest cannot write to a terminal.
    """
    ring = _ring(page)
    if ring is None:
        return []
    start, end = ring
    if start <= end:
        return _pull_run(page, start, end)
    return _pull_run(page, start, PAGE_SIZE) + _pull_run(page, LOG_HEADER_SIZE, end)


def pull_log_page_from(page: bytes, at: int, last_id: int) -> list[LogEntry]:
    """The entries behind the one with `last_id`, whose end was at offset `at`: what a reader that looks often needs.

    As careful as `pull_log_page`, of which it gives the last entries. Empty if they cannot be told in this way, because
    the ring has run over `at` or there are none: then the whole page is to be read.
    """
    ring = _ring(page)
    if ring is None or not LOG_HEADER_SIZE <= at <= PAGE_SIZE:
        return []
    start, end = ring
    if start <= at <= end or at <= end < start:
        entries = _pull_run(page, at, end)
    elif end < start <= at:
        entries = _pull_run(page, at, PAGE_SIZE) + _pull_run(page, LOG_HEADER_SIZE, end)
    else:
        return []
    # Somewhere inside an entry there is hardly ever the next id; a guest that writes it there spoils its own log.
    return entries if entries and entries[0].id == last_id + 1 else []


class MigTdLog:
    """What the MigTD writes for its host: kept privately until EnableLogArea, published from then on.

    `ceiling` is the highest level ever kept: info, unless the MigTD was started for debugging; a host cannot raise it.
    This MigTD runs on one vCPU, so entries go into the page of vCPU 0; the other pages stay empty. `mirror` is told of
    every entry that is kept, for people at the MigTD's own output.

    Raises OutOfResource (MIGTD-SHARED-MEMORY-EXHAUSTED) if there are no pages to be had.
    """

    def __init__(
        self,
        memory: SharedMemory,
        vcpus: int,
        *,
        ceiling: LogLevel = LogLevel.INFO,
        mirror: Callable[[LogEntry], None] = lambda _: None,
    ) -> None:
        self._ceiling = ceiling
        self._level = ceiling
        self._mirror = mirror
        # Shared memory first: it ends the list if the number of vCPUs is absurd.
        self._buffers = [memory.allocate(PAGE_SIZE) for _ in range(max(vcpus, 1))]
        self._rings = [LogRing(index) for index in range(len(self._buffers))]
        self._published = False
        self._next_id = 1

    def enable(self, level: int) -> list[LogAreaRange]:
        """Serve EnableLogArea: publish all pages and say where they are, one range per vCPU.

        `level` limits the entries from now on. Raises InvalidParameter (MIGTD-LOG-LEVEL-INVALID) outside 1..5; then
        nothing changed. Enabling again is fine: the pages stay where they are.
        """
        if level not in LogLevel.__members__.values():
            raise InvalidParameter(failures.LOG_LEVEL_INVALID, f"level {level}")
        self._level = min(LogLevel(level), self._ceiling)
        self._published = True
        for vcpu in range(len(self._rings)):
            self._publish(vcpu)
        return [LogAreaRange(buffer.gpa, buffer.size) for buffer in self._buffers]

    def write(self, level: LogLevel, text: str, request_id: int = NO_REQUEST) -> None:
        """Add one entry, unless its level is above what is kept. It becomes one line of at most MAX_TEXT characters.

        Nothing secret may be in `text`.
        """
        if level > self._level:
            return
        line = text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}\N{HORIZONTAL ELLIPSIS}"
        entry = LogEntry(self._next_id, request_id, level, line.translate(_NO_CONTROLS))
        self._next_id = self._next_id % _MAX_ID + 1
        self._mirror(entry)
        if self._rings[0].append(entry) and self._published:
            self._publish(0)

    def _publish(self, vcpu: int) -> None:
        # Start first and end last: a reader in between sees old entries vanish, never half of a new one.
        page = self._rings[vcpu].page
        shared = self._buffers[vcpu]
        shared.write(0, page[:_END_OFFSET])
        shared.write(LOG_HEADER_SIZE, page[LOG_HEADER_SIZE:])
        shared.write(_END_OFFSET, page[_END_OFFSET:LOG_HEADER_SIZE])


def _ring(page: bytes) -> tuple[int, int] | None:
    """Start and end of a page, or None if it is no log page."""
    if len(page) != PAGE_SIZE:
        return None
    signature, _, _, start, end = _HEADER.unpack_from(page)
    bounded = LOG_HEADER_SIZE <= start <= PAGE_SIZE and LOG_HEADER_SIZE <= end <= PAGE_SIZE
    return (start, end) if signature == SIGNATURE and bounded else None


def _pull_run(page: bytes, at: int, limit: int) -> list[LogEntry]:
    """Entries in [at, limit): up to the zeros behind the last one, or to the first that does not fit."""
    entries = []
    while at + ENTRY_HEADER_SIZE <= limit:
        entry_id, request_id, level, length = _ENTRY.unpack_from(page, at)
        text_at = at + ENTRY_HEADER_SIZE
        at = text_at + length
        if entry_id == 0 or at > limit:
            break
        if level in _LEVELS:
            text = page[text_at:at].decode("utf-8", "replace").translate(_NO_CONTROLS)
            entries.append(LogEntry(entry_id, request_id, _LEVELS[level], text))
    return entries
