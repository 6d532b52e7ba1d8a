# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The key schedule (spdm.md 6.1). Secrets are kept in bytearrays, which `wipe` overwrites."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from migtd.spdm.errors import FinishRefused

HASH_SIZE: Final = 48
KEY_SIZE: Final = 32
IV_SIZE: Final = 12
_VERSION_LABEL: Final = b"spdm1.2 "


def bin_concat(length: int, label: bytes, context: bytes = b"") -> bytes:
    """BC: the info string of an expansion to `length` bytes."""
    return length.to_bytes(2, "little") + _VERSION_LABEL + label + context


def expand(secret: bytearray, length: int, label: bytes, context: bytes = b"") -> bytearray:
    """HKDF-Expand with SHA-384 to `length` bytes."""
    return bytearray(HKDFExpand(SHA384(), length, bin_concat(length, label, context)).derive(bytes(secret)))


def mac(key: bytearray, data: bytes) -> bytes:
    """HMAC-SHA-384, 48 bytes."""
    return hmac.digest(bytes(key), data, hashlib.sha384)


def expect_mac(expected: bytes, found: bytes, what: str) -> None:
    """Compare in constant time. Raises FinishRefused, which names `what`."""
    if not hmac.compare_digest(expected, found):
        raise FinishRefused(what)


@dataclass(slots=True)
class HandshakeSecrets:
    """HS, RHS, SHS and the finished keys RFK and SFK, 48 bytes each."""

    handshake: bytearray = field(repr=False)
    requester: bytearray = field(repr=False)
    responder: bytearray = field(repr=False)
    requester_finished: bytearray = field(repr=False)
    responder_finished: bytearray = field(repr=False)

    def wipe(self) -> None:
        """Overwrite all of it."""
        for secret in (
            self.handshake,
            self.requester,
            self.responder,
            self.requester_finished,
            self.responder_finished,
        ):
            secret[:] = bytes(len(secret))


def derive_handshake(shared_x: bytes, th1: bytes) -> HandshakeSecrets:
    """From Z, the X coordinate of the shared point (48 bytes big-endian), and TH1."""
    handshake = bytearray(mac(bytearray(HASH_SIZE), shared_x))
    requester = expand(handshake, HASH_SIZE, b"req hs data", th1)
    responder = expand(handshake, HASH_SIZE, b"rsp hs data", th1)
    return HandshakeSecrets(
        handshake,
        requester,
        responder,
        expand(requester, HASH_SIZE, b"finished"),
        expand(responder, HASH_SIZE, b"finished"),
    )


@dataclass(slots=True)
class DirectionKeys:
    """What protects one direction: the AES-256-GCM key, 32 bytes, and the iv, 12 bytes."""

    key: bytearray = field(repr=False)
    iv: bytearray = field(repr=False)

    def wipe(self) -> None:
        """Overwrite both."""
        for secret in (self.key, self.iv):
            secret[:] = bytes(len(secret))


@dataclass(slots=True)
class ApplicationSecrets:
    """MS, RAS and SAS, 48 bytes each, and the keys of the two directions."""

    master: bytearray = field(repr=False)
    requester: bytearray = field(repr=False)
    responder: bytearray = field(repr=False)
    requester_keys: DirectionKeys
    responder_keys: DirectionKeys

    def wipe(self) -> None:
        """Overwrite all of it."""
        for secret in (self.master, self.requester, self.responder):
            secret[:] = bytes(len(secret))
        self.requester_keys.wipe()
        self.responder_keys.wipe()


def derive_application(handshake: HandshakeSecrets, th2: bytes) -> ApplicationSecrets:
    """From the handshake secret and TH2."""
    salt = expand(handshake.handshake, HASH_SIZE, b"derived")
    master = bytearray(mac(salt, bytes(HASH_SIZE)))
    salt[:] = bytes(HASH_SIZE)
    requester = expand(master, HASH_SIZE, b"req app data", th2)
    responder = expand(master, HASH_SIZE, b"rsp app data", th2)
    return ApplicationSecrets(master, requester, responder, _direction(requester), _direction(responder))


def _direction(secret: bytearray) -> DirectionKeys:
    return DirectionKeys(expand(secret, KEY_SIZE, b"key"), expand(secret, IV_SIZE, b"iv"))
