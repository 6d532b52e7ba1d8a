# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The seam between a secure session and what it believes: an attestation mode (design.md, attestation modes).

A session asks its mode for the evidence it will show, and hands it the peer's evidence to judge. The session decides
the order (it is part of the wire behaviour); the mode decides which checks exist (`skips`) and makes those that need
quotes, collateral or a policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from migtd.attestation.quote.collateral import CollateralSet
from migtd.checks import CheckName, CheckRunner

REPORT_DATA_SIZE: Final = 64


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one side shows of itself: a TDX quote and its CCEL event log with one spare byte at the end.

    `collateral` is not shown: the set that this side's host gave with the quote, by which it judges both quotes
    (policy.md 4.1, v1). None where the mode has it from elsewhere, or needs none.
    """

    quote: bytes
    event_log: bytes
    collateral: CollateralSet | None = None


@dataclass(frozen=True, slots=True)
class PeerEvidence:
    """What the other side showed, as read from its certificate or SPDM message.

    `report_data` is the 64 bytes that its quote must carry so that quote and session belong together.
    """

    quote: bytes
    event_log: bytes
    report_data: bytes


class Judge(Protocol):
    """Judges both sides of one session. The session calls each method once, in this order, with its own checks around.

    Each raises the MigTDError of the first check that fails. Called inside the TLS verify callback: must not wait.
    """

    def verify_local(self) -> None:
        """Make `quote-local`: the own quote verifies."""

    def verify_quote(self, peer: PeerEvidence) -> None:
        """Make `quote-peer`, then `reportdata`: the peer's quote verifies and belongs to this session."""

    def evaluate_policy(self) -> None:
        """Make `event-log-replay`, `rtmrs-equal` and `policy`: what the verified quote stands for is acceptable."""


class AttestationMode(Protocol):
    """Makes the own evidence and judges the peer's. Chosen at start; the same object serves every session."""

    @property
    def name(self) -> str:
        """The value of `--attestation`."""

    @property
    def skips(self) -> Mapping[CheckName, str]:
        """The checks that this mode cannot make, each with the reason people are told."""

    async def local_evidence(self, report_data: bytes) -> Evidence:
        """Fresh evidence whose quote carries the 64 bytes `report_data`.

        Raises a MigTDError if there is none to be had; the session reports it at its place in the order of checks.
        """

    def judge(self, local: Evidence, *, is_source: bool, checks: CheckRunner) -> Judge:
        """A judge for one session in which `local` is shown. Makes no check itself and raises nothing.

        Every check that needs more than the certificate itself is the judge's, from `quote-local` to `policy`.
        """
