# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A dataclass for each of MigTD's vendor-defined messages (spdm.md 4.3, 4.4, 4.6 and 4.7).

Each `push` gives a whole message, from the version byte to the end of the payload, and raises ValueError where a value
has not the size that its element has; each `pull_*` reads one and raises Malformed or VendorMalformed.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, field
from typing import Final

from migtd.migration.data import ExchangeInformation
from migtd.spdm.vendor import Opcode, pull_elements, push_elements

_VERSIONS: Final = struct.Struct("<HH")


class Mode(enum.Enum):
    """What the session is for. It is fixed when the session is made; messages of the other mode are refused."""

    MIGRATION = enum.auto()
    REBINDING = enum.auto()

    @property
    def evidence_request(self) -> Opcode:
        """Opcode of R6."""
        return _OPCODES[self][0]

    @property
    def evidence_response(self) -> Opcode:
        """Opcode of r6."""
        return _OPCODES[self][1]


_OPCODES: Final = {
    Mode.MIGRATION: (Opcode.MIGRATION_EVIDENCE_REQUEST, Opcode.MIGRATION_EVIDENCE_RESPONSE),
    Mode.REBINDING: (Opcode.REBINDING_EVIDENCE_REQUEST, Opcode.REBINDING_EVIDENCE_RESPONSE),
}


@dataclass(frozen=True, slots=True)
class PublicKey:
    """R4 (PUBLIC_KEY_REQUEST) or r4: SubjectPublicKeyInfo, 120 bytes, not yet looked at."""

    opcode: Opcode
    public_key: bytes

    def push(self) -> bytes:
        """Encode to 143 bytes."""
        return push_elements(self.opcode, self.public_key)


def pull_public_key_message(data: bytes, opcode: Opcode) -> PublicKey:
    """Decode R4 or r4."""
    (public_key,) = pull_elements(data, opcode)
    return PublicKey(opcode, public_key)


@dataclass(frozen=True, slots=True)
class EvidenceRequest:
    """R6: `quote` is a TDREPORT, 1024 bytes, in a rebinding. Hash 48 bytes, SERVTD_EXT 272, initial TDINFO 512."""

    mode: Mode
    quote: bytes = field(repr=False)
    event_log: bytes = field(repr=False)
    policy_hash: bytes
    servtd_ext: bytes = field(repr=False)
    initial_tdinfo: bytes = field(repr=False)

    def push(self) -> bytes:
        """Encode; ValueError also where it would be longer than 65,536 bytes."""
        return push_elements(
            self.mode.evidence_request,
            self.quote,
            self.event_log,
            self.policy_hash,
            self.servtd_ext,
            self.initial_tdinfo,
        )


def pull_evidence_request(data: bytes, mode: Mode) -> EvidenceRequest:
    """Decode R6."""
    quote, event_log, policy_hash, servtd_ext, initial_tdinfo = pull_elements(data, mode.evidence_request)
    return EvidenceRequest(mode, quote, event_log, policy_hash, servtd_ext, initial_tdinfo)


@dataclass(frozen=True, slots=True)
class EvidenceResponse:
    """r6, as above."""

    mode: Mode
    quote: bytes = field(repr=False)
    event_log: bytes = field(repr=False)
    policy_hash: bytes

    def push(self) -> bytes:
        """Encode; ValueError also where it would be longer than 65,536 bytes."""
        return push_elements(self.mode.evidence_response, self.quote, self.event_log, self.policy_hash)


def pull_evidence_response(data: bytes, mode: Mode) -> EvidenceResponse:
    """Decode r6."""
    quote, event_log, policy_hash = pull_elements(data, mode.evidence_response)
    return EvidenceResponse(mode, quote, event_log, policy_hash)


@dataclass(frozen=True, slots=True)
class MigrationInformation:
    """R8 or r8 of a migration: the range of versions and the migration session key of one side."""

    opcode: Opcode
    information: ExchangeInformation

    def push(self) -> bytes:
        """Encode to 65 bytes."""
        info = self.information
        return push_elements(self.opcode, _VERSIONS.pack(info.min_version, info.max_version), info.msk)


def pull_migration_information(data: bytes, opcode: Opcode) -> MigrationInformation:
    """Decode R8 (MIGRATION_INFORMATION_REQUEST) or r8."""
    versions, key = pull_elements(data, opcode)
    minimum, maximum = _VERSIONS.unpack(versions)
    return MigrationInformation(opcode, ExchangeInformation(key, minimum, maximum))


@dataclass(frozen=True, slots=True)
class RebindingToken:
    """R8 of a rebinding: 32 random bytes."""

    token: bytes = field(repr=False)

    def push(self) -> bytes:
        """Encode to 55 bytes."""
        return push_elements(Opcode.REBINDING_INFORMATION_REQUEST, self.token)


def pull_rebinding_token(data: bytes) -> RebindingToken:
    """Decode it."""
    (token,) = pull_elements(data, Opcode.REBINDING_INFORMATION_REQUEST)
    return RebindingToken(token)


@dataclass(frozen=True, slots=True)
class RebindingTaken:
    """r8 of a rebinding, which says nothing."""

    def push(self) -> bytes:
        """Encode to 17 bytes."""
        return push_elements(Opcode.REBINDING_INFORMATION_RESPONSE)


def pull_rebinding_taken(data: bytes) -> RebindingTaken:
    """Decode it."""
    pull_elements(data, Opcode.REBINDING_INFORMATION_RESPONSE)
    return RebindingTaken()
