# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Start-up of a MigTD with policy v2: what it measures, and what it verifies of itself (policy.md 2.9, 3.3)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from migtd import event_log, failures
from migtd.attestation.startup_v1 import expect_room
from migtd.checks import CheckName
from migtd.errors import InitializationError, InvalidPolicyError, TdxModuleError
from migtd.guest.interfaces import Guest
from migtd.migration.pre_session import MAX_PEER_DATA
from migtd.migration.rebinding import own_tdinfo
from migtd.policy.errors import PolicyError
from migtd.policy.v2.owner import expect_own_tdinfo
from migtd.policy.v2.peer import PolicyFiles, push_peer_data
from migtd.policy.v2.startup import OwnPolicy, init_policy


@dataclass(frozen=True, slots=True)
class MeasuredPolicy:
    """The own policy, verified and measured. `own_tdinfo_found`: what the check of the own TDINFO found, if made."""

    own: OwnPolicy
    own_tdinfo_found: str | None

    def expect_own_tdinfo(self) -> str:
        """What the check found. Raises InvalidPolicyError (MIGTD-INTERNAL) if it was left out at the start."""
        if self.own_tdinfo_found is None:
            raise InvalidPolicyError(failures.INTERNAL, "the own TDINFO was not looked at")
        return self.own_tdinfo_found


def measure_policy_v2(guest: Guest, skips: Collection[CheckName]) -> MeasuredPolicy:
    """Measure the issuer chain (RTMR 1), verify the policy, check the own TDINFO, measure the policy (RTMR 2).

    `skips` names `own-tdinfo` where the mode cannot make that check. Raises InvalidPolicyError: a file is missing
    (MIGTD-CONFIGURATION-MISSING), too large (MIGTD-PEER-DATA-TOO-LARGE, MIGTD-POLICY-TOO-LARGE), or the policy is not
    one to start with (MIGTD-POLICY-…). Raises InitializationError (MIGTD-EVENT-LOG-MISSING, MIGTD-EVENT-LOG-FULL,
    MIGTD-TDCALL-FAILED).
    """
    files = _files(guest)
    _measure(guest, event_log.policy_issuer_chain_event(files.chain))
    try:
        own = init_policy(files)
        found = None if CheckName.OWN_TDINFO in skips else _check_own_tdinfo(guest, own)
    except PolicyError as error:
        raise InvalidPolicyError(error.kind, error.detail) from error
    _measure(guest, event_log.policy_v2_event(files.policy))
    expect_room(guest.event_log)
    return MeasuredPolicy(own, found)


def _files(guest: Guest) -> PolicyFiles:
    policy, chain = guest.configuration.policy(), guest.configuration.policy_issuer_chain()
    if not policy or not chain:
        raise InvalidPolicyError(failures.CONFIGURATION_MISSING, "policy issuer chain" if policy else "policy")
    files = PolicyFiles(policy, chain)
    size = len(push_peer_data(files))
    if size > MAX_PEER_DATA:
        # No peer would take them.
        raise InvalidPolicyError(failures.PEER_DATA_TOO_LARGE, f"the own have {size} bytes, {MAX_PEER_DATA} are taken")
    return files


def _check_own_tdinfo(guest: Guest, own: OwnPolicy) -> str:
    try:
        tdinfo = own_tdinfo(guest.tdcall)
    except TdxModuleError as error:
        raise InitializationError(error.kind, error.detail) from error
    expect_own_tdinfo(own.policy, tdinfo)
    return f"at the start: MROWNER is the policy signer's, MROWNERCONFIG is policySvn {own.policy.data.policy_svn}"


def _measure(guest: Guest, event: event_log.TaggedEvent) -> None:
    event_log.measure(guest.event_log, event, guest.tdcall.mr_rtmr_extend)
