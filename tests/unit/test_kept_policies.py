# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a MigTD keeps of its peers' policies: the verdict on the same text, and never on any other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from migtd.attestation import kept_policies
from migtd.attestation.kept_policies import MAX_KEPT, KeptPolicies
from migtd.policy.errors import PolicyError, PolicyErrorName
from migtd.policy.v2.document import verify_policy
from migtd.policy.v2.envelope import parse_envelope
from tests.unit.policy_v2_world import World

FILES = World().files()
ENVELOPE = parse_envelope(FILES.policy)


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The values that were verified in truth."""
    seen: list[str] = []

    def counted(envelope, chain):
        seen.append(envelope.value)
        return verify_policy(envelope, chain)

    monkeypatch.setattr(kept_policies, "verify_policy", counted)
    return seen


def test_the_same_policy_is_verified_once(verified: list[str]):
    kept = KeptPolicies()
    first, again = (kept.verify(parse_envelope(FILES.policy), FILES.chain) for _ in range(2))

    assert again is first
    assert first.data == verify_policy(ENVELOPE, FILES.chain).data
    assert len(verified) == 1


@pytest.mark.parametrize(
    ("envelope", "chain"),
    [
        (replace(ENVELOPE, value=ENVELOPE.value.replace(":", ": ", 1)), FILES.chain),
        (replace(ENVELOPE, signature="00" * 96), FILES.chain),
        (ENVELOPE, FILES.chain[: len(FILES.chain) // 2]),
    ],
    ids=["value", "signature", "chain"],
)
def test_what_differs_from_a_kept_policy_is_refused_each_time(envelope, chain, verified: list[str]):
    kept = KeptPolicies()
    kept.verify(ENVELOPE, FILES.chain)

    for _ in range(2):
        with pytest.raises(PolicyError) as refused:
            kept.verify(envelope, chain)
        assert refused.value.name is PolicyErrorName.SignatureVerificationFailed
    assert len(verified) == 3


def test_only_the_last_few_are_kept(verified: list[str]):
    kept = KeptPolicies()
    chains = [FILES.chain + b"\n" * count for count in range(MAX_KEPT + 1)]
    for chain in chains:
        kept.verify(ENVELOPE, chain)
    kept.verify(ENVELOPE, chains[-1])
    assert len(verified) == MAX_KEPT + 1

    kept.verify(ENVELOPE, chains[0])
    assert len(verified) == MAX_KEPT + 2


def test_a_large_policy_is_not_kept(verified: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kept_policies, "MAX_KEPT_SIZE", len(FILES.policy) // 2)
    kept = KeptPolicies()
    for _ in range(2):
        kept.verify(ENVELOPE, FILES.chain)

    assert len(verified) == 2
