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
from migtd.errors import MigTDError

REPORT_DATA_SIZE: Final = 64


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one side shows of itself: a TDX quote and its CCEL event log with one spare byte at the end.

    In a rebinding `quote` is the TDREPORT, 1024 bytes.

    `collateral` is not shown: the set that this side's host gave with the quote, by which it judges both quotes
    (policy.md 4.1, v1). None where the mode has it from elsewhere, or needs none. Nor is `relative_quote`: what `self`
    in a policy v2 stands for, a fresh quote with REPORTDATA of zeros, or why there is none (policy.md 2.6).
    """

    quote: bytes
    event_log: bytes
    collateral: CollateralSet | None = None
    relative_quote: bytes | MigTDError = b""


@dataclass(frozen=True, slots=True)
class PeerEvidence:
    """What the other side showed, as read from its certificate or SPDM message.

    `report_data` is the 64 bytes that its quote must carry so that quote and session belong together. In a rebinding
    `quote` is the TDREPORT. With policy v2 `peer_data` is the blob of the pre-session exchange (policy, issuer chain);
    a new MigTD also has what the old one showed of the target TD: SERVTD_EXT and its initial TDINFO.
    """

    quote: bytes
    event_log: bytes
    report_data: bytes
    peer_data: bytes = b""
    servtd_ext: bytes = b""
    initial_tdinfo: bytes = b""


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


class JudgeV2(Protocol):
    """Judges the peer of one session with policy v2. The session calls each method once, in this order.

    Each raises the MigTDError of the first check that fails. Called inside the TLS verify callback: must not wait.
    """

    def evaluate(self, peer: PeerEvidence) -> None:
        """Make `own-tdinfo`, then the checks of policy.md 2.9 for the peer's quote, or for its TDREPORT in a rebinding.

        In a migration `quote-peer`, `event-log-replay`, `rtmrs-equal`, `quote-local`, `policy`; in a rebinding
        `tdreport-mac` and `tdreport-hashes` instead of the quotes, and `initial-tdinfo` by the new MigTD.
        """

    def verify_report_data(self) -> None:
        """Make `reportdata`: what was evaluated belongs to this session."""


class PolicyV2Mode(Protocol):
    """What an attestation mode has besides, if it works with policy v2 (policy.md 2; ghci-ratls.md 6)."""

    @property
    def peer_data(self) -> bytes:
        """The blob that the pre-session exchange sends: own policy and issuer chain (pre_session.push_peer_data)."""

    @property
    def rebinding_skips(self) -> Mapping[CheckName, str]:
        """As `AttestationMode.skips`, for rebindings."""

    def check_initial_tdinfo(self, tdinfo: bytes) -> None:
        """Judge the initial TDINFO, 512 bytes, that the VMM gave with a start request (policy.md 2.9, last paragraph).

        Raises PolicyUnsatisfiedError.
        """

    async def local_report(self, report_data: bytes) -> Evidence:
        """Evidence for a rebinding: a fresh TDREPORT with these 64 bytes, and the event log. Raises a MigTDError."""

    def judge_migration(self, local: Evidence, *, is_source: bool, checks: CheckRunner) -> JudgeV2:
        """A judge for one migration in which `local` is shown. Makes no check itself and raises nothing."""

    def judge_rebinding(self, local: Evidence, *, is_old: bool, checks: CheckRunner) -> JudgeV2:
        """A judge for one rebinding; `is_old`: this side is the old MigTD. Makes no check itself and raises nothing."""


class AttestationMode(Protocol):
    """Makes the own evidence and judges the peer's. Chosen at start; the same object serves every session."""

    @property
    def name(self) -> str:
        """The value of `--attestation`."""

    @property
    def skips(self) -> Mapping[CheckName, str]:
        """The checks that this mode cannot make, each with the reason people are told."""

    @property
    def v2(self) -> PolicyV2Mode | None:
        """What it needs for policy v2, or None: it works with policy v1, has no pre-session and no rebinding."""

    async def local_evidence(self, report_data: bytes) -> Evidence:
        """Fresh evidence whose quote carries the 64 bytes `report_data`.

        Raises a MigTDError if there is none to be had; the session reports it at its place in the order of checks.
        """

    def judge(self, local: Evidence, *, is_source: bool, checks: CheckRunner) -> Judge:
        """A judge for one session with policy v1 in which `local` is shown. Makes no check itself and raises nothing.

        Every check that needs more than the certificate itself is the judge's, from `quote-local` to `policy`.
        """
