# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What judges of both policy versions have in common: verified collateral that is kept, and words for what is found."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from migtd import failures
from migtd.attestation.quote import failures as quote_failures
from migtd.attestation.quote.collateral import CollateralSet
from migtd.attestation.quote.prepare import PreparedCollateral, prepare
from migtd.attestation.quote.result import Verified
from migtd.errors import MigTDError, MutualAttestationError, SecureSessionError
from migtd.policy.errors import PolicyError
from migtd.policy.explain import Finding, explain_refusal

_MAX_PREPARED: Final = 4
"""Collateral sets that are kept verified: the own platform's, and those of a few other models."""


class PreparedSets:
    """Collateral sets as verified under one root (65-byte P-256 point); the last few are kept."""

    def __init__(self, root_key: bytes) -> None:
        self._root_key = root_key
        self._prepared: dict[CollateralSet, PreparedCollateral] = {}

    def get(self, collateral: CollateralSet) -> PreparedCollateral:
        """The verified set. Raises QuoteError (`MIGTD-COLLATERAL-…`)."""
        prepared = self._prepared.pop(collateral, None) or prepare(collateral, self._root_key)
        self._prepared[collateral] = prepared
        while len(self._prepared) > _MAX_PREPARED:
            del self._prepared[next(iter(self._prepared))]
        return prepared


def expect_current(verified: Verified, now: float) -> None:
    """Collateral is current at `now`, seconds since 1970 (policy.md 4.9).

    Raises MutualAttestationError (MIGTD-COLLATERAL-NOT-CURRENT).
    """
    at = int(now)
    if verified.collateral_expired(at) or verified.not_yet_valid(at):
        window = f"{_day(verified.latest_issue)} to {_day(verified.earliest_expiration)}"
        raise MutualAttestationError(quote_failures.COLLATERAL_NOT_CURRENT, f"valid {window}, it is {_day(at)}")


def expect_report_data(found: bytes, expected: bytes) -> None:
    """Both are the same 64 bytes. Raises SecureSessionError (MIGTD-REPORTDATA-MISMATCH)."""
    if not hmac.compare_digest(found, expected):
        detail = f"it begins {found[:8].hex()}, the hash of the session's key {expected[:8].hex()}"
        raise SecureSessionError(failures.REPORTDATA_MISMATCH, detail)


def explained(error: PolicyError, trace: Sequence[Finding]) -> MigTDError:
    """What leaves the MigTD for a policy's refusal, with the rules that were not met."""
    refusal = error.as_migtd_error()
    refusal.explain = tuple(explain_refusal(error, trace).splitlines()[1:])
    return refusal


def describe_quote(verified: Verified) -> str:
    """A verified quote in a line: status, FMSPC and dates."""
    fmspc = verified.fmspc.hex().upper()
    dates = f"TCB of {_day(verified.platform.date)}, collateral to {_day(verified.earliest_expiration)}"
    return f"{verified.converged_status}, FMSPC {fmspc}, {dates}"


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
