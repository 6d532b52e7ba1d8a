# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The transcript of a session, hashed as it grows, and what binds keys and evidence to it (spdm.md 5)."""

from __future__ import annotations

import hashlib
from typing import Protocol


class Binding(Protocol):
    """What stands in the transcript for the two identities."""

    def responder_identity(self) -> bytes:
        """The bytes between part A and KEY_EXCHANGE."""

    def requester_identity(self) -> bytes:
        """The bytes between the responder's signature and the header of FINISH."""


class MigTdBinding:
    """MigTD's: the hashes of the messages that carried the public keys, then of those that carried the evidence.

    Messages are whole and reassembled, from the version byte to the end of the payload.
    """

    def __init__(self) -> None:
        self._keys = b""
        self._evidence = b""

    def add_keys(self, request: bytes, response: bytes) -> None:
        """R4 and r4."""
        self._keys = digest(request) + digest(response)

    def add_evidence(self, request: bytes, response: bytes) -> None:
        """R6 and r6."""
        self._evidence = digest(request) + digest(response)

    def responder_identity(self) -> bytes:
        """D1 and d1."""
        return _present(self._keys)

    def requester_identity(self) -> bytes:
        """D2 and d2."""
        return _present(self._evidence)


class StandardBinding:
    """SPDM's own, for keys that both sides had before: the hashes of their SubjectPublicKeyInfo."""

    def __init__(self, requester_key: bytes, responder_key: bytes) -> None:
        self._requester = digest(requester_key)
        self._responder = digest(responder_key)

    def responder_identity(self) -> bytes:
        """The hash of the responder's key."""
        return self._responder

    def requester_identity(self) -> bytes:
        """The hash of the requester's key."""
        return self._requester


class Transcript:
    """Everything that both sides saw, in the order of the specification."""

    def __init__(self) -> None:
        self._hash = hashlib.sha384()

    def add(self, *parts: bytes) -> bytes:
        """Append, and return the hash of all so far, 48 bytes."""
        for part in parts:
            self._hash.update(part)
        return self.digest()

    def digest(self) -> bytes:
        """The hash of all so far, 48 bytes."""
        return self._hash.copy().digest()


def digest(data: bytes) -> bytes:
    """SHA-384, 48 bytes."""
    return hashlib.sha384(data).digest()


def _present(identity: bytes) -> bytes:
    if not identity:
        raise RuntimeError("the transcript goes on before the messages that it is bound to")
    return identity
