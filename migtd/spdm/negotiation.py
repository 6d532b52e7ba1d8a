# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Version, capabilities and algorithms, and the constants of the profile (spdm.md 2 and 4.1).

`pull_*` reads any well-formed message of that code, so that an error can name the field; the profile then allows
exactly one value of each (`PROFILE_*`), which is also what is sent.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

from migtd.spdm.reader import Reader

VERSION_10: Final = 0x10
VERSION_12: Final = 0x12
DATA_TRANSFER_SIZE: Final = 4032
MAX_MESSAGE: Final = 65_536
_ENTRY_12: Final = 0x1200


class Code(enum.IntEnum):
    """Request and response codes of the profile."""

    VERSION = 0x04
    CHUNK_SEND_ACK = 0x05
    CHUNK_RESPONSE = 0x06
    CAPABILITIES = 0x61
    ALGORITHMS = 0x63
    KEY_EXCHANGE_RSP = 0x64
    FINISH_RSP = 0x65
    END_SESSION_ACK = 0x6C
    VENDOR_DEFINED_RESPONSE = 0x7E
    ERROR = 0x7F
    GET_VERSION = 0x84
    CHUNK_SEND = 0x85
    CHUNK_GET = 0x86
    GET_CAPABILITIES = 0xE1
    NEGOTIATE_ALGORITHMS = 0xE3
    KEY_EXCHANGE = 0xE4
    FINISH = 0xE5
    END_SESSION = 0xEC
    VENDOR_DEFINED_REQUEST = 0xFE


REQUESTS: Final = frozenset(code for code in Code if code & 0x80)
"""Codes that a requester may send."""


def header(code: Code, param1: int = 0, param2: int = 0, version: int = VERSION_12) -> bytes:
    """The four bytes that every message starts with."""
    return bytes((version, code, param1, param2))


@dataclass(frozen=True, slots=True)
class GetVersion:
    """R1."""

    def push(self) -> bytes:
        """Encode to 4 bytes."""
        return header(Code.GET_VERSION, version=VERSION_10)


def pull_get_version(data: bytes) -> GetVersion:
    """Decode R1. Raises Malformed."""
    reader = Reader(data, "GET_VERSION")
    reader.expect(GetVersion().push(), "message")
    reader.end()
    return GetVersion()


@dataclass(frozen=True, slots=True)
class Version:
    """r1. `entries` are u16: major and minor version in the two upper half-bytes."""

    entries: tuple[int, ...]

    def push(self) -> bytes:
        """Encode: 6 bytes and 2 for each entry."""
        count = len(self.entries)
        return header(Code.VERSION, version=VERSION_10) + bytes((0, count)) + struct.pack(f"<{count}H", *self.entries)


def pull_version(data: bytes) -> Version:
    """Decode r1. Raises Malformed."""
    reader = Reader(data, "VERSION")
    reader.expect(header(Code.VERSION, version=VERSION_10), "header")
    reader.expect(b"\0", "reserved")
    count = reader.integer(1, "count")
    entries = tuple(reader.integer(2, "entry") for _ in range(count))
    reader.end()
    return Version(entries)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """R2 and r2, which differ in their code only. Sizes are bytes, `ct_exponent` is log2 of microseconds."""

    code: Code
    ct_exponent: int
    flags: int
    data_transfer_size: int
    max_message_size: int

    def push(self) -> bytes:
        """Encode to 20 bytes."""
        fields = (0, self.ct_exponent, 0, self.flags, self.data_transfer_size, self.max_message_size)
        return header(self.code) + _CAPABILITIES.pack(*fields)


_CAPABILITIES: Final = struct.Struct("<BBHIII")


def pull_capabilities(data: bytes, code: Code) -> Capabilities:
    """Decode R2 (GET_CAPABILITIES) or r2 (CAPABILITIES). Raises Malformed."""
    reader = Reader(data, code.name)
    reader.expect(header(code), "header")
    reader.expect(b"\0", "reserved")
    ct_exponent = reader.integer(1, "CTExponent")
    reader.expect(bytes(2), "reserved")
    flags = reader.integer(4, "flags")
    data_transfer_size = reader.integer(4, "DataTransferSize")
    max_message_size = reader.integer(4, "MaxSPDMmsgSize")
    reader.end()
    return Capabilities(code, ct_exponent, flags, data_transfer_size, max_message_size)


@dataclass(frozen=True, slots=True)
class Algorithms:
    """R3 and r3: bit masks. `structures` are DHE, AEAD, requester asymmetric and key schedule, in this order.

    `measurement_hash` is in r3 only, and 0 in R3.
    """

    code: Code
    measurement_specification: int
    other_params: int
    measurement_hash: int
    base_asym: int
    base_hash: int
    structures: tuple[int, int, int, int]

    def push(self) -> bytes:
        """Encode: 48 bytes of R3, 52 of r3."""
        measurement_hash = self.measurement_hash.to_bytes(4, "little") if self.code is Code.ALGORITHMS else b""
        body = bytes((self.measurement_specification, self.other_params)) + measurement_hash
        body += struct.pack("<II", self.base_asym, self.base_hash) + bytes(16)
        for kind, value in zip(_STRUCTURES, self.structures, strict=True):
            body += struct.pack("<BBH", kind, _FIXED_2, value)
        length = len(body) + _BEFORE_BODY
        return header(self.code, len(_STRUCTURES)) + length.to_bytes(2, "little") + body


_STRUCTURES: Final = (2, 3, 4, 5)
_FIXED_2: Final = 0x20
"""Two fixed bytes, no extended algorithms."""
_BEFORE_BODY: Final = 6


def pull_algorithms(data: bytes, code: Code) -> Algorithms:
    """Decode R3 (NEGOTIATE_ALGORITHMS) or r3 (ALGORITHMS) without extended algorithms. Raises Malformed."""
    reader = Reader(data, code.name)
    reader.expect(header(code, len(_STRUCTURES)), "header")
    reader.expect(len(data).to_bytes(2, "little"), "length")
    measurement_specification = reader.integer(1, "measurement specification")
    other_params = reader.integer(1, "OtherParams")
    measurement_hash = reader.integer(4, "measurement hash") if code is Code.ALGORITHMS else 0
    base_asym = reader.integer(4, "base asymmetric")
    base_hash = reader.integer(4, "base hash")
    reader.expect(bytes(16), "reserved bytes and extended algorithms")
    values = []
    for kind in _STRUCTURES:
        reader.expect(bytes((kind, _FIXED_2)), f"algorithm structure {kind}")
        values.append(reader.integer(2, f"algorithms of structure {kind}"))
    reader.end()
    dhe, aead, req_asym, schedule = values
    return Algorithms(
        code,
        measurement_specification,
        other_params,
        measurement_hash,
        base_asym,
        base_hash,
        (dhe, aead, req_asym, schedule),
    )


PROFILE_FLAGS: Final = 0x000383C0
"""ENCRYPT, MAC, MUT_AUTH, KEY_EX, HANDSHAKE_IN_THE_CLEAR, PUB_KEY_ID, CHUNK."""
PROFILE_VERSION: Final = Version((_ENTRY_12,))
PROFILE_GET_CAPABILITIES: Final = Capabilities(Code.GET_CAPABILITIES, 0, PROFILE_FLAGS, DATA_TRANSFER_SIZE, MAX_MESSAGE)
PROFILE_CAPABILITIES: Final = Capabilities(Code.CAPABILITIES, 0, PROFILE_FLAGS, DATA_TRANSFER_SIZE, MAX_MESSAGE)
_CHOSEN: Final = (0x0010, 0x0002, 0x0080, 0x0001)
"""secp384r1, AES-256-GCM, ECDSA P-384, the SPDM key schedule."""
PROFILE_NEGOTIATE: Final = Algorithms(Code.NEGOTIATE_ALGORITHMS, 0, 2, 0, 0x80, 2, _CHOSEN)
"""ECDSA P-384, SHA-384, opaque data format 1."""
PROFILE_ALGORITHMS: Final = Algorithms(Code.ALGORITHMS, 0, 2, 0, 0x80, 2, _CHOSEN)
