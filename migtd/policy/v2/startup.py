# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The own policy at start: verified once, and the root that quotes must end in (policy.md 2.9, "Startup").

The check of the own TDINFO, which not every mode can make, is owner.expect_own_tdinfo.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from migtd.policy.v2.document import VerifiedPolicy, verify_policy
from migtd.policy.v2.envelope import parse_envelope
from migtd.policy.v2.peer import PolicyFiles


@dataclass(frozen=True, slots=True)
class OwnPolicy:
    """The own policy as files, as verified, and the root key of its collaterals, a 65-byte P-256 point."""

    files: PolicyFiles = field(repr=False)
    policy: VerifiedPolicy
    root_key: bytes


def init_policy(files: PolicyFiles) -> OwnPolicy:
    """Verify the own policy. Raises PolicyError: as verify_policy, and InvalidCollateral (`rootCa`)."""
    policy = verify_policy(parse_envelope(files.policy), files.chain)
    return OwnPolicy(files, policy, policy.data.collaterals.root_key())
