# SPDX-License-Identifier: BSD-2-Clause-Patent
"""MigTD's vendor-defined messages: envelope, payload and typed elements (spdm.md 4.3).

The envelope is a standard message and fails as one (Malformed); everything in the payload fails as VendorMalformed.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

from migtd.spdm.errors import Malformed, VendorMalformed
from migtd.spdm.negotiation import MAX_MESSAGE, Code, header
from migtd.spdm.reader import Reader

_INTEL: Final = bytes.fromhex("0400 04 57010000")
"""StandardID IANA, length of the vendor id, and Intel's."""
_ENVELOPE_SIZE: Final = 13
MAX_PAYLOAD: Final = MAX_MESSAGE - _ENVELOPE_SIZE
_PAYLOAD: Final = struct.Struct("<BBBB")
_ELEMENT: Final = struct.Struct("<HI")


class Opcode(enum.IntEnum):
    """What a vendor-defined message is; odd ones are requests."""

    PUBLIC_KEY_REQUEST = 0x01
    PUBLIC_KEY_RESPONSE = 0x02
    MIGRATION_EVIDENCE_REQUEST = 0x03
    MIGRATION_EVIDENCE_RESPONSE = 0x04
    MIGRATION_INFORMATION_REQUEST = 0x05
    MIGRATION_INFORMATION_RESPONSE = 0x06
    REBINDING_EVIDENCE_REQUEST = 0x07
    REBINDING_EVIDENCE_RESPONSE = 0x08
    REBINDING_INFORMATION_REQUEST = 0x09
    REBINDING_INFORMATION_RESPONSE = 0x0A

    @property
    def code(self) -> Code:
        """The SPDM code of messages with this opcode."""
        return Code.VENDOR_DEFINED_REQUEST if self & 1 else Code.VENDOR_DEFINED_RESPONSE


class ElementType(enum.IntEnum):
    """Types of elements."""

    PUBLIC_KEY = 0x0001
    TDREPORT = 0x0002
    QUOTE = 0x0003
    EVENT_LOG = 0x0004
    POLICY_HASH = 0x0005
    SERVTD_EXT = 0x0010
    INITIAL_TDINFO = 0x0012
    EXPORT_VERSIONS = 0x0081
    IMPORT_VERSIONS = 0x0082
    FORWARD_KEY = 0x0083
    BACKWARD_KEY = 0x0084
    SESSION_TOKEN = 0x0085


_SIZES: Final = {
    ElementType.PUBLIC_KEY: 120,
    ElementType.TDREPORT: 1024,
    ElementType.POLICY_HASH: 48,
    ElementType.SERVTD_EXT: 272,
    ElementType.INITIAL_TDINFO: 512,
    ElementType.EXPORT_VERSIONS: 4,
    ElementType.IMPORT_VERSIONS: 4,
    ElementType.FORWARD_KEY: 32,
    ElementType.BACKWARD_KEY: 32,
    ElementType.SESSION_TOKEN: 32,
}
"""Bytes of the elements that have a fixed size; quote and event log have none."""

_E = ElementType
_OF_BOTH: Final = (_E.EVENT_LOG, _E.POLICY_HASH)
_OF_REQUESTER: Final = (_E.SERVTD_EXT, _E.INITIAL_TDINFO)
ELEMENTS: Final = {
    Opcode.PUBLIC_KEY_REQUEST: (_E.PUBLIC_KEY,),
    Opcode.PUBLIC_KEY_RESPONSE: (_E.PUBLIC_KEY,),
    Opcode.MIGRATION_EVIDENCE_REQUEST: (_E.QUOTE, *_OF_BOTH, *_OF_REQUESTER),
    Opcode.MIGRATION_EVIDENCE_RESPONSE: (_E.QUOTE, *_OF_BOTH),
    Opcode.MIGRATION_INFORMATION_REQUEST: (_E.EXPORT_VERSIONS, _E.FORWARD_KEY),
    Opcode.MIGRATION_INFORMATION_RESPONSE: (_E.IMPORT_VERSIONS, _E.BACKWARD_KEY),
    Opcode.REBINDING_EVIDENCE_REQUEST: (_E.TDREPORT, *_OF_BOTH, *_OF_REQUESTER),
    Opcode.REBINDING_EVIDENCE_RESPONSE: (_E.TDREPORT, *_OF_BOTH),
    Opcode.REBINDING_INFORMATION_REQUEST: (_E.SESSION_TOKEN,),
    Opcode.REBINDING_INFORMATION_RESPONSE: (),
}
"""The elements of each message, in exactly this order."""


@dataclass(frozen=True, slots=True)
class VendorEnvelope:
    """A vendor-defined request or response around `payload`, which is not looked at."""

    code: Code
    payload: bytes

    def push(self) -> bytes:
        """Encode. Raises ValueError above 65,523 bytes of payload."""
        if len(self.payload) > MAX_PAYLOAD:
            raise ValueError(f"a payload of {len(self.payload)} bytes")
        return header(self.code) + _INTEL + struct.pack("<H", len(self.payload)) + self.payload


def pull_envelope(data: bytes, code: Code) -> VendorEnvelope:
    """Decode a request (VENDOR_DEFINED_REQUEST) or response. Raises Malformed."""
    reader = Reader(data, "vendor-defined message", Malformed)
    reader.expect(header(code), "header")
    reader.expect(_INTEL, "standard id and vendor id")
    payload = reader.take(reader.integer(2, "payload length"), "payload")
    reader.end()
    return VendorEnvelope(code, payload)


def push_elements(opcode: Opcode, *values: bytes) -> bytes:
    """A whole message: `values` in the order of ELEMENTS. Raises ValueError where one has the wrong size."""
    parts = [_PAYLOAD.pack(0, 0, opcode, len(values))]
    for kind, value in zip(ELEMENTS[opcode], values, strict=True):
        if len(value) != _SIZES.get(kind, len(value)):
            raise ValueError(f"{kind.name} of {len(value)} bytes")
        parts += [_ELEMENT.pack(kind, len(value)), value]
    return VendorEnvelope(opcode.code, b"".join(parts)).push()


def pull_elements(data: bytes, opcode: Opcode) -> tuple[bytes, ...]:
    """The values of a whole message with this opcode. Raises Malformed or VendorMalformed."""
    reader = Reader(pull_envelope(data, opcode.code).payload, opcode.name, VendorMalformed)
    kinds = ELEMENTS[opcode]
    reader.expect(_PAYLOAD.pack(0, 0, opcode, len(kinds)), "version, opcode and element count")
    values = []
    for kind in kinds:
        reader.expect(struct.pack("<H", kind), f"type of {kind.name}")
        length = reader.integer(4, f"length of {kind.name}")
        if length != _SIZES.get(kind, length):
            raise reader.wrong(f"{kind.name} of {length} bytes instead of {_SIZES[kind]}")
        values.append(reader.take(length, kind.name))
    reader.end()
    return tuple(values)
