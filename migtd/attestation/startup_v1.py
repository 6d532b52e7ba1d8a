# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Start-up of a MigTD with policy v1: what it measures of its configuration, and the root it trusts (policy.md 3.3)."""

from __future__ import annotations

from typing import Final

from migtd import event_log, failures
from migtd.attestation.get_quote import MAX_QUOTE
from migtd.attestation.quote.certificates import root_key_of
from migtd.attestation.quote.errors import QuoteError
from migtd.errors import InitializationError, InvalidPolicyError
from migtd.guest.interfaces import EventLogArea, Guest

MAX_CERTIFICATE: Final = 64_000
"""Bytes of a certificate that TLS still carries, with room for the rest of the handshake message (policy.md 3.3)."""
_CERTIFICATE_REST: Final = 1_000
"""Bytes of a certificate besides quote and event log."""


def measure_policy_v1(guest: Guest) -> tuple[bytes, bytes]:
    """Start-up of a MigTD with policy v1: the policy and the root CA, RTMR 2. Returns the policy and the root's key.

    Raises InvalidPolicyError (MIGTD-CONFIGURATION-MISSING, MIGTD-POLICY-TOO-LARGE, MIGTD-COLLATERAL-ROOT-CA-INVALID)
    and InitializationError (MIGTD-EVENT-LOG-MISSING, MIGTD-EVENT-LOG-FULL, MIGTD-TDCALL-FAILED). Whether the policy
    decodes is judged with the first peer.
    """
    policy, root_ca = guest.configuration.policy(), guest.configuration.root_ca()
    if not policy or not root_ca:
        raise InvalidPolicyError(failures.CONFIGURATION_MISSING, "policy" if not policy else "root CA")
    for event in (event_log.policy_v1_event(policy), event_log.sgx_root_ca_event(root_ca)):
        event_log.measure(guest.event_log, event, guest.tdcall.mr_rtmr_extend)
    expect_room(guest.event_log)
    try:
        return policy, root_key_of(root_ca)
    except QuoteError as error:
        raise InvalidPolicyError(error.kind, error.detail) from error


def expect_room(area: EventLogArea | None) -> None:
    """The certificate of a session can carry what was measured, whole (policy.md 3.3).

    Raises InvalidPolicyError (MIGTD-POLICY-TOO-LARGE) and InitializationError (MIGTD-EVENT-LOG-MISSING).
    """
    if area is None:
        raise InitializationError(failures.EVENT_LOG_MISSING)
    size = len(event_log.for_sending(area)) + MAX_QUOTE + _CERTIFICATE_REST
    if size > MAX_CERTIFICATE:
        raise InvalidPolicyError(failures.POLICY_TOO_LARGE, f"up to {size} bytes")
