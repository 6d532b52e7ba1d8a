# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The exchange before a session with policy v2: versions, then policies, in the clear (spdm.md 3.3). Sans-IO.

    message     type u8 | 3 zero | length u32 | payload
    HELLO       FF, 8 bytes: "MGTD", lowest version u16, highest version u16
    PEER DATA   01: policy length u32, policy, chain length u32, issuer chain (PEM)
    START       02, nothing

In each of the three steps both sides send, then receive. Nothing here is trusted: the session attests later that the
blob which came is the one that the peer sent.
"""

from __future__ import annotations

import enum
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from migtd import failures
from migtd.errors import InvalidParameter, NetworkError

MAX_PEER_DATA: Final = 1 << 20
"""Most bytes of PEER DATA that are taken, unless a caller says otherwise: 1 MiB."""

_HEADER: Final = struct.Struct("<B3sI")
_HELLO: Final = struct.Struct("<4sHH")
_MAGIC: Final = b"MGTD"
_LENGTH: Final = struct.Struct("<I")


class _Type(enum.IntEnum):
    """Type of a message. The members are in the order of the exchange."""

    HELLO = 0xFF
    PEER_DATA = 0x01
    START = 0x02


@dataclass(frozen=True, slots=True)
class ProtocolVersions:
    """Versions of the exchange that one side speaks, u16 each, both ends included."""

    lowest: int
    highest: int


SUPPORTED: Final = ProtocolVersions(0x0100, 0x0100)


@dataclass(frozen=True, slots=True)
class PeerData:
    """What one side tells the other: its policy, and the issuer chain of that (PEM)."""

    policy: bytes
    chain: bytes


@dataclass(frozen=True, slots=True)
class PreSessionResult:
    """How the exchange ended: the version both speak, the peer's PEER DATA payload, and what came behind its START.

    `remote` is well-formed (`pull_peer_data`); `rest` belongs to the session.
    """

    version: int
    remote: bytes = field(repr=False)
    rest: bytes = field(repr=False)


def push_peer_data(data: PeerData) -> bytes:
    """Encode the blob."""
    return _LENGTH.pack(len(data.policy)) + data.policy + _LENGTH.pack(len(data.chain)) + data.chain


def pull_peer_data(blob: bytes) -> PeerData:
    """Decode a blob: both parts there, lengths exact. Raises InvalidParameter (MIGTD-PRE-SESSION-MALFORMED)."""
    policy, rest = _pull_part("policy", blob)
    chain, rest = _pull_part("issuer chain", rest)
    if rest:
        raise _malformed(f"PEER DATA: {len(rest)} bytes behind the issuer chain")
    return PeerData(policy, chain)


class PreSession:
    """One side of one exchange. Whoever drives it sends what `data_to_send` gives and feeds what comes.

    `local` is the PEER DATA payload of this side. Cutting or joining the peer's bytes makes no difference.
    """

    def __init__(
        self, local: bytes, *, versions: ProtocolVersions = SUPPORTED, max_peer_data: int = MAX_PEER_DATA
    ) -> None:
        self._local = local
        self._versions = versions
        self._limits = {_Type.HELLO: _HELLO.size, _Type.PEER_DATA: max_peer_data, _Type.START: 0}
        self._out: deque[bytes] = deque()
        self._received = bytearray()
        self._expected = _Type.HELLO
        self._version = 0
        self._remote = b""
        self._result: PreSessionResult | None = None
        self._push(_Type.HELLO, _HELLO.pack(_MAGIC, versions.lowest, versions.highest))

    @property
    def result(self) -> PreSessionResult | None:
        """How it ended; None until the peer's START came. What `data_to_send` still has must be sent all the same."""
        return self._result

    def data_to_send(self) -> bytes:
        """The next portion for the peer, at most once each; `b""` if there is none. A header is a portion by itself."""
        return self._out.popleft() if self._out else b""

    def receive_data(self, data: bytes) -> None:
        """Bytes from the peer, in any portions; `b""` is the end of the stream. Not to be called once it has ended.

        Raises InvalidParameter (MIGTD-PRE-SESSION-MALFORMED, MIGTD-PRE-SESSION-VERSION, MIGTD-PEER-DATA-TOO-LARGE: as
        soon as the header is there) or NetworkError (MIGTD-TRANSPORT-ENDED).
        """
        if self._result is not None:
            raise RuntimeError("the exchange has ended")
        if not data:
            raise NetworkError(failures.TRANSPORT_ENDED, f"in the pre-session exchange, before {self._expected.name}")
        self._received += data
        while (payload := self._next_payload()) is not None:
            self._take(payload)

    def _next_payload(self) -> bytes | None:
        """Payload of the next whole message, or None if more must come or no more is due."""
        if self._result is not None or len(self._received) < _HEADER.size:
            return None
        end = _HEADER.size + self._pull_header()
        if len(self._received) < end:
            return None
        payload = bytes(self._received[_HEADER.size : end])
        del self._received[:end]
        return payload

    def _pull_header(self) -> int:
        """Length of the payload that a header announces, which is one that is taken."""
        kind, reserved, length = _HEADER.unpack_from(self._received)
        expected = self._expected
        if kind != expected:
            raise _malformed(f"type {kind:#04x} where {expected.name} is due")
        if any(reserved):
            raise _malformed(f"{expected.name}: reserved bytes are not zero")
        limit = self._limits[expected]
        if expected is _Type.PEER_DATA:
            if length > limit:
                raise InvalidParameter(failures.PEER_DATA_TOO_LARGE, f"{length} bytes, {limit} are taken")
        elif length != limit:
            raise _malformed(f"{expected.name} of {length} bytes instead of {limit}")
        return int(length)

    def _take(self, payload: bytes) -> None:
        match self._expected:
            case _Type.HELLO:
                self._version = self._agree(payload)
                self._push(_Type.PEER_DATA, self._local)
                self._expected = _Type.PEER_DATA
            case _Type.PEER_DATA:
                pull_peer_data(payload)
                self._remote = payload
                self._push(_Type.START, b"")
                self._expected = _Type.START
            case _Type.START:
                self._result = PreSessionResult(self._version, self._remote, bytes(self._received))

    def _agree(self, hello: bytes) -> int:
        magic, lowest, highest = _HELLO.unpack(hello)
        if magic != _MAGIC:
            raise _malformed(f"HELLO begins with {magic.hex()}")
        version = min(self._versions.highest, int(highest))
        if version < max(self._versions.lowest, lowest):
            raise InvalidParameter(failures.PRE_SESSION_VERSION, f"the peer speaks {lowest:#06x} to {highest:#06x}")
        return version

    def _push(self, kind: _Type, payload: bytes) -> None:
        self._out.append(_HEADER.pack(kind, bytes(3), len(payload)))
        if payload:
            self._out.append(payload)


def _pull_part(name: str, data: bytes) -> tuple[bytes, bytes]:
    """A part with its length before it, and what follows."""
    if len(data) < _LENGTH.size:
        raise _malformed(f"PEER DATA ends before the length of the {name}")
    (length,) = _LENGTH.unpack_from(data)
    end = _LENGTH.size + length
    if length == 0 or len(data) < end:
        raise _malformed(f"PEER DATA: a {name} of {length} bytes, {len(data) - _LENGTH.size} follow")
    return data[_LENGTH.size : end], data[end:]


def _malformed(detail: str) -> InvalidParameter:
    return InvalidParameter(failures.PRE_SESSION_MALFORMED, detail)
