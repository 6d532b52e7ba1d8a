# SPDX-License-Identifier: BSD-2-Clause-Patent
"""KEY_EXCHANGE, FINISH, END_SESSION and ERROR (spdm.md 4.5, 4.7 and 9.1).

Fields that have one value in this profile are constants here: they are written, and refused where they differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from migtd.spdm.errors import ErrorCode
from migtd.spdm.negotiation import VERSION_10, VERSION_12, Code, header
from migtd.spdm.reader import Reader

RANDOM_SIZE: Final = 32
SHARE_SIZE: Final = 96
"""X and Y of a P-384 point, each 48 bytes big-endian."""
SIGNATURE_SIZE: Final = 96
"""r and s, each 48 bytes big-endian."""
MAC_SIZE: Final = 48
SESSION_ID: Final = 0xFFFDFFFD

_PUBLIC_KEY_SLOT: Final = 0xFF
_HALF_ID: Final = bytes.fromhex("fdff")
_REQUEST_OPAQUE: Final = bytes.fromhex("1000 01000000 00000500 0101010012 000000")
_RESPONSE_OPAQUE: Final = bytes.fromhex("0c00 01000000 00000400 01000012")
"""Length, then one DMTF element: the secured-message versions offered, and the one selected, 1.2."""
_MUTUAL: Final = bytes.fromhex("010f")
"""MutAuthRequested 1, ReqSlotID 0xF."""


@dataclass(frozen=True, slots=True)
class KeyExchange:
    """R5: 32 random bytes and the requester's share, 96 bytes."""

    random: bytes
    share: bytes = field(repr=False)

    def push(self) -> bytes:
        """Encode to 154 bytes."""
        start = header(Code.KEY_EXCHANGE, 0, _PUBLIC_KEY_SLOT) + _HALF_ID + bytes(2)
        return start + self.random + self.share + _REQUEST_OPAQUE


def pull_key_exchange(data: bytes) -> KeyExchange:
    """Decode R5; the share is not checked to be on the curve. Raises Malformed."""
    reader = Reader(data, "KEY_EXCHANGE")
    reader.expect(header(Code.KEY_EXCHANGE, 0, _PUBLIC_KEY_SLOT), "header")
    reader.expect(_HALF_ID, "session id")
    reader.expect(bytes(2), "session policy and reserved")
    random = reader.take(RANDOM_SIZE, "random")
    share = reader.take(SHARE_SIZE, "share")
    reader.expect(_REQUEST_OPAQUE, "opaque data")
    reader.end()
    return KeyExchange(random, share)


@dataclass(frozen=True, slots=True)
class KeyExchangeResponse:
    """r5: 32 random bytes, the responder's share and its signature, 96 bytes each."""

    random: bytes
    share: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @property
    def signed_part(self) -> bytes:
        """The 150 bytes before the signature."""
        start = header(Code.KEY_EXCHANGE_RSP) + _HALF_ID + _MUTUAL
        return start + self.random + self.share + _RESPONSE_OPAQUE

    def push(self) -> bytes:
        """Encode to 246 bytes."""
        return self.signed_part + self.signature


def pull_key_exchange_response(data: bytes) -> KeyExchangeResponse:
    """Decode r5; neither share nor signature is checked. Raises Malformed."""
    reader = Reader(data, "KEY_EXCHANGE_RSP")
    reader.expect(header(Code.KEY_EXCHANGE_RSP), "header with heartbeat period")
    reader.expect(_HALF_ID, "session id")
    reader.expect(_MUTUAL, "MutAuthRequested and ReqSlotID")
    random = reader.take(RANDOM_SIZE, "random")
    share = reader.take(SHARE_SIZE, "share")
    reader.expect(_RESPONSE_OPAQUE, "opaque data")
    signature = reader.take(SIGNATURE_SIZE, "signature")
    reader.end()
    return KeyExchangeResponse(random, share, signature)


FINISH_HEADER: Final = header(Code.FINISH, 1, _PUBLIC_KEY_SLOT)
"""A signature is present; slot of provisioned keys."""
FINISH_RESPONSE_HEADER: Final = header(Code.FINISH_RSP)


@dataclass(frozen=True, slots=True)
class Finish:
    """R7: signature, 96 bytes, and RequesterVerifyData, 48 bytes."""

    signature: bytes = field(repr=False)
    verify_data: bytes = field(repr=False)

    def push(self) -> bytes:
        """Encode to 148 bytes."""
        return FINISH_HEADER + self.signature + self.verify_data


def pull_finish(data: bytes) -> Finish:
    """Decode R7. Raises Malformed."""
    reader = Reader(data, "FINISH")
    reader.expect(FINISH_HEADER, "header")
    signature = reader.take(SIGNATURE_SIZE, "signature")
    verify_data = reader.take(MAC_SIZE, "RequesterVerifyData")
    reader.end()
    return Finish(signature, verify_data)


@dataclass(frozen=True, slots=True)
class FinishResponse:
    """r7: ResponderVerifyData, 48 bytes."""

    verify_data: bytes = field(repr=False)

    def push(self) -> bytes:
        """Encode to 52 bytes."""
        return FINISH_RESPONSE_HEADER + self.verify_data


def pull_finish_response(data: bytes) -> FinishResponse:
    """Decode r7. Raises Malformed."""
    reader = Reader(data, "FINISH_RSP")
    reader.expect(FINISH_RESPONSE_HEADER, "header")
    verify_data = reader.take(MAC_SIZE, "ResponderVerifyData")
    reader.end()
    return FinishResponse(verify_data)


@dataclass(frozen=True, slots=True)
class EndSession:
    """R9 (END_SESSION) and r9 (END_SESSION_ACK), the negotiated state not being preserved."""

    code: Code

    def push(self) -> bytes:
        """Encode to 4 bytes."""
        return header(self.code)


def pull_end_session(data: bytes, code: Code) -> EndSession:
    """Decode R9 or r9. Raises Malformed."""
    reader = Reader(data, code.name)
    reader.expect(header(code), "message")
    reader.end()
    return EndSession(code)


@dataclass(frozen=True, slots=True)
class Error:
    """ERROR: code and data, one byte each; `handle` with LargeResponse only."""

    code: int
    data: int
    version: int = VERSION_12
    handle: int | None = None

    def push(self) -> bytes:
        """Encode to 4 bytes, 5 with a handle."""
        return bytes((self.version, Code.ERROR, self.code, self.data)) + (
            b"" if self.handle is None else bytes((self.handle,))
        )


def pull_error(data: bytes) -> Error:
    """Decode an ERROR of either version. Raises Malformed."""
    reader = Reader(data, "ERROR")
    version = reader.integer(1, "version")
    if version not in (VERSION_10, VERSION_12):
        raise reader.wrong(f"version {version:#04x}")
    reader.expect(bytes((Code.ERROR,)), "code")
    code = reader.integer(1, "error code")
    error_data = reader.integer(1, "error data")
    handle = None
    if code == ErrorCode.LargeResponse:
        if error_data:
            raise reader.wrong("LargeResponse with data")
        handle = reader.integer(1, "handle")
    reader.end()
    return Error(code, error_data, version, handle)
