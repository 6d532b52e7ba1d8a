# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a MigTD would say of a signed policy v2 and its issuer chain, before any peer comes (policy.md 2.2, 5.5)."""

from __future__ import annotations

from migtd.policy.v2.document import VerifiedPolicy, verify_policy
from migtd.policy.v2.envelope import parse_envelope

__all__ = ["VerifiedPolicy", "verify"]


def verify(policy: bytes, chain: bytes) -> VerifiedPolicy:
    """Verify a policy file with its chain, PEM and leaf first; there is no trust anchor and no clock.

    Raises PolicyError: InvalidPolicy, InvalidParameter, SignatureVerificationFailed, InvalidServtdIdentity,
    InvalidServtdTcbMapping; the first check that fails decides.
    """
    return verify_policy(parse_envelope(policy), chain)
