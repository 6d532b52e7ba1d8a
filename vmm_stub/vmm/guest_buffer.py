# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A buffer that a guest lent to the VMM in a TDVMCALL: checked once, copied once, completed once (ghci-ratls.md 3)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from migtd.guest.abi import (
    PAGE_SIZE,
    SHARED_BIT,
    TDG_VP_VMCALL_ALIGN_ERROR,
    TDG_VP_VMCALL_INVALID_OPERAND,
)
from migtd.guest.ghci import FAILED_CANCELED, FAILED_PEER_GONE, HEADER, MAX_SEND, STATUS_FAILED, STATUS_SUCCESS
from vmm_stub.vmm.memory_file import HostMemory

STATUS_PEER_GONE: Final = STATUS_FAILED | FAILED_PEER_GONE << 8
STATUS_CANCELED: Final = STATUS_FAILED | FAILED_CANCELED << 8

_STATUS: Final = struct.Struct("<Q")
_LENGTH: Final = struct.Struct("<I")
_NO_VECTOR: Final = 0
_FIRST_VECTOR: Final = 32
"""Vectors 1 to 31 are the processor's exceptions; 0 asks for no interrupt."""
_LAST_VECTOR: Final = 255


class CallRefused(Exception):
    """A TDVMCALL has a wrong operand; `status` is what the guest gets in R10. Never leaves the VMM."""

    def __init__(self, status: int = TDG_VP_VMCALL_INVALID_OPERAND) -> None:
        super().__init__(status)
        self.status = status


class GuestMemory:
    """Shared memory of one TD as the VMM sees it. Every range is checked against it before it is touched."""

    def __init__(self, memory: HostMemory) -> None:
        self._memory = memory

    @property
    def size(self) -> int:
        """Size in bytes."""
        return len(self._memory)

    def offset(self, gpa: int, size: int) -> int:
        """Where the range of `size` bytes at `gpa` starts.

        Raises CallRefused: INVALID_OPERAND if it is not shared or not wholly inside, ALIGN_ERROR if not on a page.
        """
        offset = gpa ^ SHARED_BIT
        if not gpa & SHARED_BIT or offset >= self.size or size > self.size - offset:
            raise CallRefused
        if offset % PAGE_SIZE:
            raise CallRefused(TDG_VP_VMCALL_ALIGN_ERROR)
        return offset

    def read(self, offset: int, size: int) -> bytes:
        """Copy `size` bytes at `offset`: only the copy is looked at."""
        return bytes(self._memory[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Copy `data` to `offset`."""
        self._memory[offset : offset + len(data)] = data


@dataclass(slots=True)
class GuestBuffer:
    """`status u64 | length u32 | payload` in shared memory, with the vector that announces its completion."""

    memory: GuestMemory
    offset: int
    size: int
    vector: int
    interrupt: Callable[[int], None]

    @property
    def capacity(self) -> int:
        """Most payload bytes."""
        return self.size - HEADER.size

    def take(self) -> bytes:
        """Copy the payload that the header announces.

        Raises CallRefused if it is longer than the buffer or than 65,524 bytes.
        """
        _, length = HEADER.unpack(self.memory.read(self.offset, HEADER.size))
        if length > min(self.capacity, MAX_SEND):
            raise CallRefused
        return self.memory.read(self.offset + HEADER.size, length)

    def complete(self, status: int = STATUS_SUCCESS, payload: bytes = b"") -> None:
        """Answer in place, the status last, and fire the vector. `payload` fits: the caller cut it to `capacity`."""
        self.memory.write(self.offset + _STATUS.size, _LENGTH.pack(len(payload)) + payload)
        self.memory.write(self.offset, _STATUS.pack(status))
        if self.vector != _NO_VECTOR:
            self.interrupt(self.vector)


def claim_buffer(
    memory: GuestMemory, gpa: int, size: int, vector: int, interrupt: Callable[[int], None], *, minimum: int = 0
) -> GuestBuffer:
    """A buffer of `size` bytes with room for the header and `minimum` payload bytes.

    Raises CallRefused as GuestMemory.offset does, and INVALID_OPERAND for too small a buffer or an impossible vector.
    """
    if size < HEADER.size + minimum:
        raise CallRefused
    check_vector(vector)
    return GuestBuffer(memory, memory.offset(gpa, size), size, vector, interrupt)


def check_vector(vector: int) -> None:
    """Raises CallRefused for a vector that no guest can be interrupted with."""
    if vector != _NO_VECTOR and not _FIRST_VECTOR <= vector <= _LAST_VECTOR:
        raise CallRefused
