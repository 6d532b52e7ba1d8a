# SPDX-License-Identifier: BSD-2-Clause-Patent
"""TDVF metadata of a `.bin` image, and MRTD over its sections (policy.md 6.3)."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from lab.policy_tools import failures
from lab.policy_tools.errors import ToolError

PAGE: Final = 4096
CHUNK: Final = 256
EXTEND: Final = 0x1
"""Section attribute: the content is measured."""
PAGE_AUG: Final = 0x2
"""Section attribute: the pages come later and are not measured at all."""
MAX_MEASURED_PAGES: Final = 1 << 16
"""Pages whose addition is measured: 256 MiB; MigTD's own images have some thousand."""

_TABLE_FOOTER: Final = UUID("96b582de-1fb2-45f7-beaa-a366c55a082d").bytes_le
_METADATA_ENTRY: Final = UUID("e47a6535-984a-4798-865e-4685a7bf8ec2").bytes_le
_FOOTER_END: Final = 32
"""Bytes between the footer's GUID and the end of the image; the offset without a table stands there too."""
_ENTRY_TAIL: Final = struct.Struct("<H16s")
_DESCRIPTOR: Final = struct.Struct("<4sIII")
_SIGNATURE: Final = b"TDVF"
_SECTION: Final = struct.Struct("<IIQQII")
_TD_INFO: Final = 7
_TYPES: Final = 9
_U32: Final = struct.Struct("<I")
_RECORD: Final = struct.Struct("<16sQ104s")


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the metadata: where its `raw_size` bytes are in the image, and where it goes in memory."""

    data_offset: int
    raw_size: int
    address: int
    memory_size: int
    type: int
    attributes: int


def pull_sections(image: bytes) -> list[Section]:
    """The sections in the order of the metadata. Raises ToolError (LAB-IMAGE-INVALID)."""
    offset = _descriptor_offset(image)
    if not 0 <= offset <= len(image) - _DESCRIPTOR.size:
        raise _invalid(f"the metadata at {offset} is not in the image of {len(image)} bytes")
    signature, length, version, count = _DESCRIPTOR.unpack_from(image, offset)
    if signature != _SIGNATURE or version != 1:
        raise _invalid(f"there is no TDVF metadata of version 1 at {offset}")
    if count == 0 or length != _DESCRIPTOR.size + count * _SECTION.size or offset + length > len(image):
        raise _invalid(f"metadata of {length} bytes with {count} sections")
    starts = range(offset + _DESCRIPTOR.size, offset + length, _SECTION.size)
    sections = [Section(*_SECTION.unpack_from(image, start)) for start in starts]
    for number, section in enumerate(sections):
        _check(number, section, len(image))
    return sections


def mrtd_of_sections(image: bytes, sections: list[Section]) -> bytes:
    """MRTD, 48 bytes, as the TDX module builds it of these sections. Raises ToolError (LAB-IMAGE-INVALID)."""
    digest = hashlib.sha384()
    measured = 0
    for section in sections:
        pages = section.memory_size // PAGE
        if section.attributes & PAGE_AUG and not section.attributes & EXTEND:
            continue
        measured += pages
        if measured > MAX_MEASURED_PAGES:
            raise _invalid(f"more than {MAX_MEASURED_PAGES} pages are measured")
        for index in range(pages):
            address = section.address + index * PAGE
            if not section.attributes & PAGE_AUG:
                digest.update(page_add(address))
            if section.attributes & EXTEND:
                digest.update(b"".join(extend_page(address, _page(image, section, index))))
    return digest.digest()


def page_add(address: int) -> bytes:
    """The 128-byte record of TDH.MEM.PAGE.ADD at a guest-physical address. Raises ToolError beyond 64 bits."""
    return _record(b"MEM.PAGE.ADD", address)


def extend_page(address: int, page: bytes) -> Iterator[bytes]:
    """The record of TDH.MR.EXTEND and the content of each 256 bytes of a page."""
    for at in range(0, PAGE, CHUNK):
        yield _record(b"MR.EXTEND", address + at)
        yield page[at : at + CHUNK]


def _record(name: bytes, address: int) -> bytes:
    if address >> 64:
        raise _invalid("an address beyond 64 bits")
    return _RECORD.pack(name, address, b"")


def _page(image: bytes, section: Section, index: int) -> bytes:
    start = section.data_offset + index * PAGE
    end = min(start + PAGE, section.data_offset + section.raw_size)
    return image[start:end].ljust(PAGE, b"\0") if end > start else bytes(PAGE)


def _descriptor_offset(image: bytes) -> int:
    footer = len(image) - _FOOTER_END - len(_TABLE_FOOTER)
    if footer < 0:
        raise _invalid(f"{len(image)} bytes")
    if image[footer : footer + len(_TABLE_FOOTER)] != _TABLE_FOOTER:
        (offset,) = _U32.unpack_from(image, len(image) - _FOOTER_END)
        return int(offset)
    return len(image) - _from_table(image, footer)


def _from_table(image: bytes, footer: int) -> int:
    """How far from the end of the image the table says that the metadata is."""
    end = footer - 2
    (length,) = struct.unpack_from("<H", image, end) if end >= 0 else (0,)
    start = footer + len(_TABLE_FOOTER) - length
    if start < 0 or start > end:
        raise _invalid(f"a table of {length} bytes")
    while end - start >= _ENTRY_TAIL.size:
        size, name = _ENTRY_TAIL.unpack_from(image, end - _ENTRY_TAIL.size)
        if not _ENTRY_TAIL.size <= size <= end - start:
            raise _invalid(f"a table entry of {size} bytes")
        if name == _METADATA_ENTRY:
            if size != _ENTRY_TAIL.size + _U32.size:
                raise _invalid(f"a metadata entry of {size} bytes")
            return int(_U32.unpack_from(image, end - size)[0])
        end -= size
    raise _invalid("its table names no metadata")


def _check(number: int, section: Section, size: int) -> None:
    nowhere = section.address == 0 and section.memory_size == 0
    trouble = (
        ("its type is not known", section.type >= _TYPES),
        ("its address is not that of a page", section.address % PAGE),
        ("its memory is not of whole pages", section.memory_size % PAGE),
        ("its data is larger than its memory", not _fits(section) and section.type != _TD_INFO and not nowhere),
        ("its data is not in the image", section.data_offset + section.raw_size > size),
        ("its memory ends beyond 64 bits", section.address + section.memory_size > 1 << 64),
    )
    found = next((text for text, wrong in trouble if wrong), None)
    if found:
        raise _invalid(f"section {number}: {found}")


def _fits(section: Section) -> bool:
    return section.memory_size >= section.raw_size


def _invalid(detail: str) -> ToolError:
    return ToolError(failures.IMAGE_INVALID, detail)
