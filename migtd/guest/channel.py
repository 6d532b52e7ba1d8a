# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The vmcall channel: what crosses between an emulated TD and its host, one message a datagram.

On hardware a TD leaves by the TDCALL instruction and comes back with registers changed; interrupts arrive whenever the
host likes. Here the same crosses a SOCK_SEQPACKET socket. Every message is one datagram:

    kind u8 | 3 reserved zero | sequence u32 | data length u32 | 4 reserved zero | 14 registers u64 | data

| kind | from | registers | data |
|---|---|---|---|
| 1 CALL | guest | as the guest set them; RAX = TDCALL leaf (0: TDVMCALL) | private memory that the leaf reads |
| 2 RETURN | host | as the TDX module left them | private memory that the leaf writes |
| 3 INTERRUPT | host | RAX = vector | none |
| 4 EVENT | guest | zero | JSON objects, UTF-8, one a line: what the guest lets people see (observer.py) |

A RETURN carries the sequence number of its CALL. The guest's private memory is never mapped by the host, so operands
that the real TDX module reads there (REPORTDATA, a digest, a REPORTMACSTRUCT) travel as data. Integers are
little-endian. Shared memory is a file beside the socket, mapped by both ends.
"""

from __future__ import annotations

import enum
import operator
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Final, Protocol

from migtd import failures
from migtd.errors import VmmInternalError

SOCKET_NAME: Final = "vmcall.sock"
SHARED_MEMORY_NAME: Final = "shared-memory"
POLICY_NAME: Final = "policy"
ROOT_CA_NAME: Final = "root-ca"
POLICY_ISSUER_CHAIN_NAME: Final = "policy-issuer-chain"
"""Files of the configuration volume, where the host gives one: they are there before the socket is."""

MAX_DATA: Final = 16384
"""Most data bytes in one message: a TDREPORT is 1024, an event at most this."""

_HEADER: Final = struct.Struct("<B3xII4x")
_RESERVED: Final = struct.Struct("<x3s8x4s")
_NOTHING_RESERVED: Final = (bytes(3), bytes(4))
_REGISTERS: Final = struct.Struct("<14Q")
_FIXED: Final = _HEADER.size + _REGISTERS.size
MAX_MESSAGE: Final = _FIXED + MAX_DATA


class Kind(enum.IntEnum):
    """First byte of a message."""

    CALL = 1
    RETURN = 2
    INTERRUPT = 3
    EVENT = 4


@dataclass(slots=True)
class Registers:
    """The general-purpose registers that TDCALL passes, each a u64 (TDX Module ABI; GHCI 1.5 for TDVMCALL)."""

    rax: int = 0
    rbx: int = 0
    rcx: int = 0
    rdx: int = 0
    rsi: int = 0
    rdi: int = 0
    r8: int = 0
    r9: int = 0
    r10: int = 0
    r11: int = 0
    r12: int = 0
    r13: int = 0
    r14: int = 0
    r15: int = 0

    def values(self) -> tuple[int, ...]:
        """The 14 values in wire order."""
        values: tuple[int, ...] = _values(self)
        return values


REGISTER_NAMES: Final = tuple(each.name for each in fields(Registers))
_values: Final = operator.attrgetter(*REGISTER_NAMES)
_KINDS: Final = {kind.value: kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Message:
    """One datagram. `sequence` ties a RETURN to its CALL and is 0 in the other kinds."""

    kind: Kind
    sequence: int = 0
    registers: Registers = field(default_factory=Registers)
    data: bytes = b""


def push_message(message: Message) -> bytes:
    """Encode one message. Raises ValueError if `data` is longer than MAX_DATA: the caller's own mistake."""
    if len(message.data) > MAX_DATA:
        raise ValueError(f"{len(message.data)} data bytes do not fit into one channel message")
    return (
        _HEADER.pack(message.kind, message.sequence, len(message.data))
        + _REGISTERS.pack(*message.registers.values())
        + message.data
    )


def pull_message(datagram: bytes) -> Message:
    """Decode one datagram strictly: known kind, zero reserved bytes, exact length.

    Raises VmmInternalError (MIGTD-CHANNEL-MALFORMED) otherwise.
    """
    if len(datagram) < _FIXED:
        raise VmmInternalError(failures.CHANNEL_MALFORMED, f"{len(datagram)} bytes, at least {_FIXED} needed")
    number, sequence, length = _HEADER.unpack_from(datagram)
    if _RESERVED.unpack_from(datagram) != _NOTHING_RESERVED:
        raise VmmInternalError(failures.CHANNEL_MALFORMED, "reserved bytes are not zero")
    kind = _KINDS.get(number)
    if kind is None:
        raise VmmInternalError(failures.CHANNEL_MALFORMED, f"unknown kind {number}")
    if length > MAX_DATA or len(datagram) != _FIXED + length:
        raise VmmInternalError(
            failures.CHANNEL_MALFORMED, f"{length} data bytes announced, {len(datagram) - _FIXED} present"
        )
    registers = Registers(*_REGISTERS.unpack_from(datagram, _HEADER.size))
    return Message(kind, sequence, registers, datagram[_FIXED:])


class Channel(Protocol):
    """The guest's end of a vmcall channel. `emulated.py` turns it into the interfaces that a MigTD uses.

    Two implementations: a socket to a host in another process (guest/socket_channel.py), and a host in this process
    (vmm_stub.vmm.in_process, for the stand-alone mode and tests).
    """

    @property
    def shared_memory(self) -> memoryview:
        """The TD's shared memory, writable, mapped by both ends; GPA = SHARED_BIT | offset."""

    def call(self, registers: Registers, data: bytes = b"") -> tuple[Registers, bytes]:
        """Leave the TD with these registers and come back with the host's. Blocks, as TDCALL does.

        Raises VmmInternalError (MIGTD-CHANNEL-LOST, MIGTD-CHANNEL-MALFORMED).
        """

    def event(self, data: bytes) -> None:
        """Tell of one event (events.py): before the next call, and at the latest with this turn of the event loop."""

    def listen(self, on_interrupt: Callable[[int], None], on_lost: Callable[[], None]) -> None:
        """Deliver interrupts from the running event loop to `on_interrupt(vector)`; say once if the host is gone."""

    def close(self) -> None:
        """End the TD."""
