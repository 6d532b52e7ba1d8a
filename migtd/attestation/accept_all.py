# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Attestation mode `accept-all`: shows a quote of zeros and verifies nothing of the peer's (design.md).

It makes a migration between any two MigTDs possible where there is no quoting, also with the reference built with
attestation disabled, and it protects against nobody. Each check that it leaves out is recorded as skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NoReturn

from migtd import failures
from migtd.attestation.accept_all_v2 import AcceptAllV2
from migtd.attestation.mode import Evidence, Judge, PeerEvidence
from migtd.checks import CheckName, CheckRunner
from migtd.errors import MutualAttestationError

QUOTE: Final = bytes(822)
"""What stands in for a quote when attestation is disabled (ghci-ratls.md 5)."""

SKIPS: Final[Mapping[CheckName, str]] = MappingProxyType(
    {
        CheckName.QUOTE_LOCAL: "accept-all: the own quote is 822 zero bytes",
        CheckName.QUOTE_PEER: "accept-all: the peer's quote is not looked at; anybody could have sent it",
        CheckName.REPORTDATA: "accept-all: without a verified quote nothing ties the session's key to a TD",
        CheckName.CERTIFICATE_SIGNATURE: "accept-all: the self-signature is not verified with attestation disabled",
        CheckName.EVENT_LOG_REPLAY: "accept-all: the peer's event log is not looked at",
        CheckName.RTMRS_EQUAL: "accept-all: without a verified quote there are no RTMRs to compare",
        CheckName.POLICY: "accept-all: no policy is evaluated",
    }
)

V2_SKIPS: Final[Mapping[CheckName, str]] = MappingProxyType(
    {
        **SKIPS,
        CheckName.PEER_DATA_HASH: "accept-all: the policy that came before the session is not looked at",
        CheckName.OWN_TDINFO: "accept-all: the own policy is not verified, so nobody knows whose it must be",
    }
)


class AcceptAll:
    """The mode (migtd.attestation.mode.AttestationMode).

    `event_log` gives the CCEL event log of this TD as it is shown to the peer, with its spare byte. `v2` makes it a
    mode of policy v2: policies are swapped, though nobody judges them.
    """

    name: Final = "accept-all"

    def __init__(self, event_log: Callable[[], bytes], v2: AcceptAllV2 | None = None) -> None:
        self._event_log = event_log
        self._v2 = v2

    @property
    def skips(self) -> Mapping[CheckName, str]:
        """All that a peer could be refused for, but the shape of its certificate."""
        return SKIPS if self._v2 is None else V2_SKIPS

    @property
    def v2(self) -> AcceptAllV2 | None:
        """Its part for policy v2, if it was given one."""
        return self._v2

    async def local_evidence(self, report_data: bytes) -> Evidence:  # noqa: ARG002 - zeros carry no REPORTDATA
        """822 zero bytes and the event log."""
        return Evidence(QUOTE, self._event_log())

    def judge(self, local: Evidence, *, is_source: bool, checks: CheckRunner) -> Judge:  # noqa: ARG002 - nothing to verify
        """A judge who accepts everybody."""
        return _AcceptEverybody(checks)


class _AcceptEverybody:
    """Records every check of a judge as skipped."""

    def __init__(self, checks: CheckRunner) -> None:
        self._checks = checks

    def verify_local(self) -> None:
        """Record `quote-local` as skipped."""
        self._checks.run(CheckName.QUOTE_LOCAL, _cannot_check)

    def verify_quote(self, peer: PeerEvidence) -> None:  # noqa: ARG002 - whoever it is
        """Record `quote-peer` and `reportdata` as skipped."""
        self._checks.run(CheckName.QUOTE_PEER, _cannot_check)
        self._checks.run(CheckName.REPORTDATA, _cannot_check)

    def evaluate_policy(self) -> None:
        """Record `event-log-replay`, `rtmrs-equal` and `policy` as skipped."""
        self._checks.run(CheckName.EVENT_LOG_REPLAY, _cannot_check)
        self._checks.run(CheckName.RTMRS_EQUAL, _cannot_check)
        self._checks.run(CheckName.POLICY, _cannot_check)


def _cannot_check() -> NoReturn:
    """Refuse, should somebody run these checks with another mode's skips: nothing is accepted by mistake."""
    raise MutualAttestationError(failures.INTERNAL, "accept-all cannot make a check that is not skipped")
