# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Policies v2 of peers that verified, kept: a peer shows the same one in session after session (policy.md 2.2)."""

from __future__ import annotations

from typing import Final

from migtd.policy.v2.decoding import Signed
from migtd.policy.v2.document import VerifiedPolicy, verify_policy

MAX_KEPT: Final = 4
MAX_KEPT_SIZE: Final = 256 << 10
"""Most characters of policy and chain together: a peer signs as it likes, and must not decide how much is kept."""


class KeptPolicies:
    """`verify_policy`, which is the same for the same text; the last few that it took are kept, by their whole text."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, bytes], VerifiedPolicy] = {}

    def verify(self, envelope: Signed, chain: bytes) -> VerifiedPolicy:
        """As `verify_policy`, and raises what that raises, each time anew."""
        key = envelope.value, envelope.signature, chain
        policy = self._kept.pop(key, None) or verify_policy(envelope, chain)
        if sum(map(len, key)) <= MAX_KEPT_SIZE:
            self._kept[key] = policy
        while len(self._kept) > MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        return policy
