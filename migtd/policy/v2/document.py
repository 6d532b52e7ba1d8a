# SPDX-License-Identifier: BSD-2-Clause-Patent
"""policyData, and the whole verification of one policy (policy.md 2.2, 2.3)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from migtd.policy.chain import Certificate
from migtd.policy.errors import PolicyError, PolicyErrorName
from migtd.policy.explain import shown_name
from migtd.policy.json_reader import Field, Reader
from migtd.policy.v2.collaterals import Collaterals, read_collaterals
from migtd.policy.v2.decoding import Signed, decode, u32
from migtd.policy.v2.entries import Entry, read_entries
from migtd.policy.v2.envelope import verify_signed
from migtd.policy.v2.servtd import (
    ServtdCollateral,
    TdIdentity,
    TdTcbMapping,
    parse_identity,
    parse_mapping,
    read_servtd_collateral,
)

VERSION: Final = "2.0"


@dataclass(frozen=True, slots=True)
class PolicyData:
    """What is signed as policyData; a block that is absent or null is None."""

    id: str
    version: str
    policy_svn: int
    policy: tuple[Entry, ...] | None
    forward_policy: tuple[Entry, ...] | None
    backward_policy: tuple[Entry, ...] | None
    collaterals: Collaterals
    servtd_collateral: ServtdCollateral = field(repr=False)

    def validate(self) -> None:
        """Raise PolicyError (InvalidParameter) unless there is an id and the version is 2.0."""
        if not self.id:
            raise PolicyError(PolicyErrorName.InvalidParameter, "the policy's id is empty")
        if self.version != VERSION:
            detail = f"the policy's version is {shown_name(self.version)!r}, not {VERSION!r}"
            raise PolicyError(PolicyErrorName.InvalidParameter, detail)


@dataclass(frozen=True, slots=True)
class VerifiedPolicy:
    """A policy whose signatures verify: what it says, what it says of MigTDs, and the verified chains of the three."""

    data: PolicyData
    identity: TdIdentity
    mapping: TdTcbMapping
    policy_chain: tuple[Certificate, ...] = field(repr=False)
    identity_chain: tuple[Certificate, ...] = field(repr=False)
    mapping_chain: tuple[Certificate, ...] = field(repr=False)

    @property
    def signer_point(self) -> bytes:
        """The policy leaf certificate's public key, 97 bytes `04 | x | y`."""
        return self.policy_chain[0].point

    @property
    def signer_hash(self) -> bytes:
        """SHA-384 of the signer's point: what MROWNER holds where owners are provisioned."""
        return hashlib.sha384(self.signer_point).digest()


def parse_policy_data(text: str) -> PolicyData:
    """Decode policyData; identity and mapping stay as they are. Raises PolicyError (InvalidPolicy)."""
    return decode(text, _policy_data, PolicyErrorName.InvalidPolicy)


def verify_policy(envelope: Signed, chain: bytes) -> VerifiedPolicy:
    """Verify a policy and the two documents in it, with the order of errors of policy.md 2.2.

    `chain` is the policy issuer chain, PEM. Raises PolicyError: InvalidPolicy, InvalidParameter,
    SignatureVerificationFailed, InvalidServtdIdentity, InvalidServtdTcbMapping.
    """
    _expect_text(chain)
    policy_chain = verify_signed(envelope, chain)
    data = parse_policy_data(envelope.value)
    servtd = verify_servtd_collateral(data.servtd_collateral)
    data.validate()
    return VerifiedPolicy(
        data,
        servtd.identity,
        servtd.mapping,
        tuple(policy_chain),
        tuple(servtd.identity_chain),
        tuple(servtd.mapping_chain),
    )


class VerifiedServtd(NamedTuple):
    """Identity and mapping with their verified chains."""

    identity: TdIdentity
    identity_chain: list[Certificate]
    mapping: TdTcbMapping
    mapping_chain: list[Certificate]


def verify_servtd_collateral(collateral: ServtdCollateral) -> VerifiedServtd:
    """Verify and decode the identity, then the mapping, each with the chain beside it.

    Raises PolicyError: InvalidParameter, SignatureVerificationFailed, InvalidServtdIdentity, InvalidServtdTcbMapping.
    """
    identity_chain = verify_signed(collateral.identity, collateral.identity_chain.encode())
    identity = parse_identity(collateral.identity.value)
    mapping_chain = verify_signed(collateral.mapping, collateral.mapping_chain.encode())
    return VerifiedServtd(identity, identity_chain, parse_mapping(collateral.mapping.value), mapping_chain)


def _expect_text(chain: bytes) -> None:
    try:
        chain.decode("utf-8")
    except UnicodeDecodeError as error:
        detail = f"the issuer chain is not UTF-8 at byte {error.start}"
        raise PolicyError(PolicyErrorName.InvalidPolicy, detail) from None


def _policy_data(reader: Reader) -> PolicyData:
    values = reader.structure(*_POLICY_DATA)
    return PolicyData(*(values[each.name] for each in _POLICY_DATA))


_POLICY_DATA: Final = (
    Field("id", Reader.string),
    Field("version", Reader.string),
    Field("policySvn", u32),
    Field("policy", read_entries, optional=True),
    Field("forwardPolicy", read_entries, optional=True),
    Field("backwardPolicy", read_entries, optional=True),
    Field("collaterals", read_collaterals),
    Field("servtdCollateral", read_servtd_collateral),
)
