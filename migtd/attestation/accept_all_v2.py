# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Attestation mode `accept-all` with policy v2: policies cross, rebinding works, nothing is judged (policy.md 4.5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NoReturn

from migtd import failures
from migtd.attestation.mode import Evidence, JudgeV2, PeerEvidence
from migtd.checks import CheckName, CheckRunner
from migtd.errors import MutualAttestationError, PolicyUnsatisfiedError

REBINDING_SKIPS: Final[Mapping[CheckName, str]] = MappingProxyType(
    {
        CheckName.CERTIFICATE: "accept-all: nothing of the certificate is looked at in a rebinding",
        CheckName.CERTIFICATE_EKU: "accept-all: nothing of the certificate is looked at in a rebinding",
        CheckName.EVIDENCE_PRESENT: "accept-all: nothing of the certificate is looked at in a rebinding",
        CheckName.PEER_DATA_HASH: "accept-all: the policy that came before the session is not looked at",
        CheckName.OWN_TDINFO: "accept-all: the own policy is not verified, so nobody knows whose it must be",
        CheckName.TDREPORT_MAC: "accept-all: the peer's TDREPORT is not looked at; anybody could have sent it",
        CheckName.TDREPORT_HASHES: "accept-all: the peer's TDREPORT is not looked at",
        CheckName.REPORTDATA: "accept-all: without a verified TDREPORT nothing ties the session's key to a TD",
        CheckName.CERTIFICATE_SIGNATURE: "accept-all: the self-signature is not verified with attestation disabled",
        CheckName.EVENT_LOG_REPLAY: "accept-all: the peer's event log is not looked at",
        CheckName.RTMRS_EQUAL: "accept-all: without a verified TDREPORT there are no RTMRs to compare",
        CheckName.POLICY: "accept-all: no policy is evaluated",
        CheckName.INITIAL_TDINFO: "accept-all: the initial TDINFO of the target TD is not looked at",
    }
)

_MIGRATION: Final = (
    CheckName.OWN_TDINFO,
    CheckName.QUOTE_LOCAL,
    CheckName.QUOTE_PEER,
    CheckName.EVENT_LOG_REPLAY,
    CheckName.RTMRS_EQUAL,
    CheckName.POLICY,
)
_REBINDING: Final = (
    CheckName.OWN_TDINFO,
    CheckName.TDREPORT_MAC,
    CheckName.TDREPORT_HASHES,
    CheckName.EVENT_LOG_REPLAY,
    CheckName.RTMRS_EQUAL,
    CheckName.POLICY,
)


class AcceptAllV2:
    """Its part for policy v2 (migtd.attestation.mode.PolicyV2Mode).

    `peer_data` is the blob that the peer gets, `report` makes a TDREPORT (TDG.MR.REPORT), `event_log` gives the log as
    it is shown.
    """

    rebinding_skips: Final = REBINDING_SKIPS

    def __init__(self, peer_data: bytes, report: Callable[[bytes], bytes], event_log: Callable[[], bytes]) -> None:
        self.peer_data: Final = peer_data
        self._report = report
        self._event_log = event_log

    def check_initial_tdinfo(self, tdinfo: bytes) -> None:  # noqa: ARG002 - there is nothing to compare it with
        """Refuse it: there is no verified policy that could say whose it may be (policy.md 4.5)."""
        raise PolicyUnsatisfiedError(failures.INITIAL_TDINFO_UNVERIFIED)

    async def local_report(self, report_data: bytes) -> Evidence:
        """A TDREPORT and the event log."""
        return Evidence(self._report(report_data), self._event_log())

    def judge_migration(self, local: Evidence, *, is_source: bool, checks: CheckRunner) -> JudgeV2:  # noqa: ARG002 - nothing to verify
        """A judge who accepts everybody."""
        return _AcceptEverybody(checks, _MIGRATION)

    def judge_rebinding(self, local: Evidence, *, is_old: bool, checks: CheckRunner) -> JudgeV2:  # noqa: ARG002 - as above
        """A judge who accepts everybody."""
        return _AcceptEverybody(checks, _REBINDING if is_old else (*_REBINDING, CheckName.INITIAL_TDINFO))


class _AcceptEverybody:
    """Records every check of a judge as skipped."""

    def __init__(self, checks: CheckRunner, names: tuple[CheckName, ...]) -> None:
        self._checks = checks
        self._names = names

    def evaluate(self, peer: PeerEvidence) -> None:  # noqa: ARG002 - whoever it is
        """Record them as skipped."""
        for name in self._names:
            self._checks.run(name, _cannot_check)

    def verify_report_data(self) -> None:
        """Record `reportdata` as skipped."""
        self._checks.run(CheckName.REPORTDATA, _cannot_check)


def _cannot_check() -> NoReturn:
    """Refuse, should somebody run these checks with another mode's skips: nothing is accepted by mistake."""
    raise MutualAttestationError(failures.INTERNAL, "accept-all cannot make a check that is not skipped")
