# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a verified quote says besides its record (policy.md 4.9)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from migtd.attestation.quote import tcb_level
from migtd.attestation.quote.tcb_level import Level, PlatformLevel, SvnLevel

_WORSE: Final = {
    tcb_level.UP_TO_DATE: tcb_level.OUT_OF_DATE,
    tcb_level.SW_HARDENING_NEEDED: tcb_level.OUT_OF_DATE,
    tcb_level.CONFIGURATION_NEEDED: tcb_level.OUT_OF_DATE_CONFIGURATION_NEEDED,
    tcb_level.CONFIGURATION_AND_SW_HARDENING_NEEDED: tcb_level.OUT_OF_DATE_CONFIGURATION_NEEDED,
}


@dataclass(frozen=True, slots=True)
class Window:
    """From when to when something holds, in seconds since 1970."""

    issued: int
    expires: int


@dataclass(frozen=True, slots=True)
class Verified:
    """A quote that verified.

    `record`: the supplemental record, 822 bytes, the QE's MISCSELECT and ATTRIBUTES masked. `fmspc`: 6 bytes.
    `platform`, `module` and `qe` are the matched levels; `module` is None where TEE_TCB_SVN[1] is 0. `latest_issue` and
    `earliest_expiration` (seconds since 1970) are over all collateral and the quote's chain: no check looks at them.
    """

    record: bytes
    fmspc: bytes
    platform: PlatformLevel
    module: SvnLevel | None
    qe: SvnLevel
    tcb_evaluation_number: int
    qe_evaluation_number: int
    root_ca_crl_number: int
    pck_crl_number: int
    latest_issue: int
    earliest_expiration: int

    @property
    def converged_status(self) -> str:
        """The platform's status, worse where the module or the QE is OutOfDate; for people, never in the record."""
        return converge(self.platform, (self.qe,) if self.module is None else (self.module, self.qe))

    @property
    def advisories(self) -> tuple[str, ...]:
        """The advisory ids of the matched levels, each once, sorted."""
        levels: tuple[Level | None, ...] = (self.platform, self.module, self.qe)
        return tuple(sorted({each for level in levels if level is not None for each in level.advisories}))

    def collateral_expired(self, at: int) -> bool:
        """Whether something that was relied on is expired at `at`, seconds since 1970."""
        return self.earliest_expiration <= at

    def not_yet_valid(self, at: int) -> bool:
        """Whether something that was relied on is not valid yet at `at`, seconds since 1970."""
        return self.latest_issue > at


def converge(platform: Level, others: Iterable[Level]) -> str:
    """The status for display of a platform and the levels beside it."""
    if any(level.status == tcb_level.OUT_OF_DATE for level in others):
        return _WORSE.get(platform.status, platform.status)
    return platform.status
