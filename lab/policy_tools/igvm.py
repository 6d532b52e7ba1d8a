# SPDX-License-Identifier: BSD-2-Clause-Patent
"""IGVM images: page data, MRTD over it, and the configuration volume in it (policy.md 6.3)."""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass
from typing import Final

from lab.policy_tools import failures
from lab.policy_tools.errors import ToolError
from lab.policy_tools.tdvf import MAX_MEASURED_PAGES, PAGE, extend_page, page_add

_FIXED: Final = struct.Struct("<4sIIIII")
"""magic, format version, offset and size of the variable headers, total size, CRC-32."""
_MAGIC: Final = b"IGVM"
_CHECKSUM: Final = slice(20, 24)
_VARIABLE: Final = struct.Struct("<II")
_PAGE_DATA: Final = struct.Struct("<QIIIHH")
_PAGE_DATA_TYPE: Final = 0x302
_UNMEASURED: Final = 0x2
_SHARED: Final = 0x4


@dataclass(frozen=True, slots=True)
class PageData:
    """A page: its guest-physical address, where its data is in the file (0: none), and flags."""

    address: int
    file_offset: int
    flags: int


@dataclass(frozen=True, slots=True)
class Igvm:
    """An image taken apart: its pages in order, and where what follows the variable headers begins."""

    image: bytes
    pages: list[PageData]
    headers_end: int


def pull_igvm(image: bytes) -> Igvm:
    """Take an image apart. Raises ToolError (LAB-IMAGE-INVALID)."""
    if len(image) < _FIXED.size:
        raise _invalid(f"{len(image)} bytes")
    magic, _, start, size, total, checksum = _FIXED.unpack_from(image)
    end = start + size
    if magic != _MAGIC or start < _FIXED.size or end > len(image) or total > len(image):
        raise _invalid("the fixed header does not fit the file")
    zeroed = bytearray(image[: _FIXED.size])
    zeroed[_CHECKSUM] = bytes(4)
    if zlib.crc32(image[start:end], zlib.crc32(zeroed)) != checksum:
        raise _invalid("the checksum of the headers is wrong")
    return Igvm(image, _pull_pages(image, start, end), end)


def mrtd_of_igvm(igvm: Igvm) -> bytes:
    """MRTD, 48 bytes, of the pages that are not shared. Raises ToolError (LAB-IMAGE-INVALID)."""
    digest = hashlib.sha384()
    private = [page for page in igvm.pages if not page.flags & _SHARED]
    if len(private) > MAX_MEASURED_PAGES:
        raise _invalid(f"more than {MAX_MEASURED_PAGES} pages are measured")
    for page in private:
        digest.update(page_add(page.address))
        if page.file_offset and not page.flags & _UNMEASURED:
            content = igvm.image[page.file_offset : page.file_offset + PAGE]
            digest.update(b"".join(extend_page(page.address, content)))
    return digest.digest()


def configuration_volume(igvm: Igvm, base: int, size: int) -> bytes:
    """The configuration volume: as many pages behind the headers as have data in its range, filled up with zeros."""
    count = sum(1 for page in igvm.pages if page.file_offset and base <= page.address < base + size)
    content = igvm.image[igvm.headers_end : igvm.headers_end + min(count * PAGE, size)]
    return content.ljust(size, b"\0")


def _pull_pages(image: bytes, position: int, end: int) -> list[PageData]:
    pages = []
    while position < end:
        if end - position < _VARIABLE.size:
            raise _invalid(f"a variable header at {position} does not end")
        kind, length = _VARIABLE.unpack_from(image, position)
        position += _VARIABLE.size
        if length > end - position:
            raise _invalid(f"a variable header at {position} does not end")
        if kind == _PAGE_DATA_TYPE:
            pages.append(_pull_page(image, position, length))
        position += -(-length // 8) * 8
    return pages


def _pull_page(image: bytes, position: int, length: int) -> PageData:
    if length != _PAGE_DATA.size:
        raise _invalid(f"page data of {length} bytes")
    address, _, offset, flags, _, _ = _PAGE_DATA.unpack_from(image, position)
    if offset and offset + PAGE > len(image):
        raise _invalid(f"the page for {address:#x} is not in the file")
    return PageData(address, offset, flags)


def _invalid(detail: str) -> ToolError:
    return ToolError(failures.IMAGE_INVALID, detail)
