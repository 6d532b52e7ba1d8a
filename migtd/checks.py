# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Named checks. What a MigTD verifies of its peer is a list of these, each passed, failed or skipped with its reason.

A mode object (design.md, attestation modes; policy.md 4.5) says which checks it cannot make and why; nothing else may
leave one out. The list of names is closed: it is the schema's and the documentation's.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from migtd.errors import MigTDError

T = TypeVar("T")


class CheckName(enum.StrEnum):
    """Closed list of the checks, in the order in which an RA-TLS migration makes them (ghci-ratls.md 5).

    By default the age of collateral is reported, not judged (policy.md 0.5, D2).
    """

    TLS_PARAMETERS = "tls-parameters"
    QUOTE_LOCAL = "quote-local"
    CERTIFICATE = "certificate"
    CERTIFICATE_EKU = "certificate-eku"
    EVIDENCE_PRESENT = "evidence-present"
    PEER_DATA_HASH = "peer-data-hash"
    OWN_TDINFO = "own-tdinfo"
    TDREPORT_MAC = "tdreport-mac"
    TDREPORT_HASHES = "tdreport-hashes"
    QUOTE_PEER = "quote-peer"
    COLLATERAL_CURRENT = "collateral-current"
    REPORTDATA = "reportdata"
    CERTIFICATE_SIGNATURE = "certificate-signature"
    EVENT_LOG_REPLAY = "event-log-replay"
    RTMRS_EQUAL = "rtmrs-equal"
    POLICY = "policy"
    INITIAL_TDINFO = "initial-tdinfo"
    SERVTD_EXT = "servtd-ext"
    EXCHANGE_INFORMATION = "exchange-information"
    SERVTD_ATTR = "servtd-attr"
    VERSIONS = "versions"


POLICY_V2: Final = frozenset({CheckName.PEER_DATA_HASH, CheckName.OWN_TDINFO})
"""Checks that only policy v2 knows. That of the own TDINFO is made once, at the start, and told with each session."""
REBINDING: Final = frozenset(
    {CheckName.TDREPORT_MAC, CheckName.TDREPORT_HASHES, CheckName.INITIAL_TDINFO, CheckName.SERVTD_EXT}
)
"""Checks that only a rebinding knows, where a TDREPORT stands in for the quote: the initial TDINFO (owner, hash and
engine) and SERVTD_EXT are the new MigTD's to check."""
ON_REQUEST: Final = frozenset({CheckName.COLLATERAL_CURRENT}) | POLICY_V2 | REBINDING
"""Checks that not every session makes: these, and the current collateral, which `--refuse-expired` asks for. All others
are made, or skipped by name, in every migration."""


class CheckStatus(enum.StrEnum):
    """What became of a check."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One check made (or not made): `detail` is what was found, why it failed, or why it was skipped.

    `explain` has a line for each part of a check that has several, such as the rules of a policy.
    """

    name: CheckName
    status: CheckStatus
    detail: str = ""
    explain: tuple[str, ...] = ()


class CheckRunner:
    """Makes checks in the caller's order, leaves out exactly those that the mode names, and records each.

    `skips` maps a check to the reason why the mode cannot make it; `record` is told of every check once. After a run
    that was refused, `not_reached` says which of the session's checks were never come to.
    """

    def __init__(self, skips: Mapping[CheckName, str], record: Callable[[Check], None]) -> None:
        self._skips = skips
        self._record = record

    def run(
        self,
        name: CheckName,
        check: Callable[[], T],
        *,
        detail: Callable[[T], str] = lambda _: "",
        explain: Callable[[], Iterable[str]] = tuple,
    ) -> T | None:
        """Make one check: `check` returns what was found or raises a MigTDError, which is recorded and passed on.

        `detail` puts what was found into words; `explain` is asked after the check, also after one that failed. Returns
        what `check` returned, or None where the mode leaves this check out.
        """
        reason = self._skips.get(name)
        if reason is not None:
            self._record(Check(name, CheckStatus.SKIPPED, reason))
            return None
        try:
            found = check()
        except MigTDError as error:
            self._record(Check(name, CheckStatus.FAILED, str(error), tuple(explain())))
            raise
        self._record(Check(name, CheckStatus.PASSED, detail(found), tuple(explain())))
        return found
