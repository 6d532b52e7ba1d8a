# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The peer's policy: its blob, its chains beside the own ones, the event that binds it (policy.md 2.7 - 2.9)."""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from migtd.event_log import EventName, NamedEvent
from migtd.policy.chain import validate_peer_certificates
from migtd.policy.errors import PolicyError, PolicyErrorName
from migtd.policy.v2.document import VerifiedPolicy

_LENGTH: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class PolicyFiles:
    """A policy file and its issuer chain, PEM, as one side has them."""

    policy: bytes
    chain: bytes


def push_peer_data(files: PolicyFiles) -> bytes:
    """Encode the blob: `u32 length | policy | u32 length | chain`."""
    return b"".join(_LENGTH.pack(len(part)) + part for part in (files.policy, files.chain))


def pull_peer_data(blob: bytes) -> PolicyFiles:
    """Decode the blob, which must end with the chain. Raises PolicyError (InvalidParameter)."""
    policy, end = _pull_part(blob, 0, "policy")
    chain, end = _pull_part(blob, end, "issuer chain")
    if end != len(blob):
        raise PolicyError(PolicyErrorName.InvalidParameter, f"{len(blob) - end} bytes follow the issuer chain")
    return PolicyFiles(policy, chain)


def expect_peer_data(blob: bytes, digest: bytes) -> None:
    """Make sure that a blob is the one whose SHA-384 was authenticated. Raises PolicyError (InvalidPolicy)."""
    if not hmac.compare_digest(hashlib.sha384(blob).digest(), digest):
        detail = "the policy and chain that came first are not those that the peer's certificate names"
        raise PolicyError(PolicyErrorName.InvalidPolicy, detail)


def validate_peer_chains(own: VerifiedPolicy, peer: VerifiedPolicy) -> None:
    """Accept the chains of a peer's policy, identity and mapping. Raises PolicyError (PeerCertChainValidation)."""
    for purpose, local, other in (
        ("policy", own.policy_chain, peer.policy_chain),
        ("servtd identity", own.identity_chain, peer.identity_chain),
        ("servtd TCB mapping", own.mapping_chain, peer.mapping_chain),
    ):
        try:
            validate_peer_certificates(local, other)
        except PolicyError as error:
            raise PolicyError(error.name, f"{purpose}: {error.detail}") from error


def expect_policy_event(events: Mapping[EventName, NamedEvent], policy: bytes) -> None:
    """Make sure that the policy file is the one that the log measures. Raises PolicyError (PolicyHashMismatch)."""
    event = events.get(EventName.MigTdPolicy)
    if event is None:
        raise PolicyError(PolicyErrorName.PolicyHashMismatch, "no policy is measured in the event log")
    found = hashlib.sha384(policy).digest()
    if event.digest != found:
        detail = f"the event log measures {event.digest.hex()}, the policy's hash is {found.hex()}"
        raise PolicyError(PolicyErrorName.PolicyHashMismatch, detail)


def _pull_part(blob: bytes, start: int, name: str) -> tuple[bytes, int]:
    begin = start + _LENGTH.size
    if len(blob) < begin:
        raise PolicyError(PolicyErrorName.InvalidParameter, f"the blob ends before the length of the {name}")
    end = begin + _LENGTH.unpack_from(blob, start)[0]
    if len(blob) < end:
        detail = f"the {name} has {end - begin} bytes, {len(blob) - begin} are there"
        raise PolicyError(PolicyErrorName.InvalidParameter, detail)
    return bytes(blob[begin:end]), end
