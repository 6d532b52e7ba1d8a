# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The failure catalogue of policies: one kind for each error name of policy.md 0.4."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Final

from migtd.errors import FailureKind


class PolicyErrorName(enum.Enum):
    """The reference's names for what can go wrong with a policy, in its order (policy.md 0.4)."""

    FailGetReport = enum.auto()
    InvalidParameter = enum.auto()
    InvalidPolicy = enum.auto()
    InvalidEventLog = enum.auto()
    InvalidTdReport = enum.auto()
    PlatformNotFound = enum.auto()
    PlatformNotMatch = enum.auto()
    UnqualifiedPlatformInfo = enum.auto()
    UnqualifiedQeInfo = enum.auto()
    UnqualifiedTdxModuleInfo = enum.auto()
    UnqualifiedMigTdInfo = enum.auto()
    Crypto = enum.auto()
    SignatureVerificationFailed = enum.auto()
    InvalidCollateral = enum.auto()
    InvalidOperation = enum.auto()
    InvalidReference = enum.auto()
    InvalidServtdIdentity = enum.auto()
    InvalidServtdTcbMapping = enum.auto()
    PolicyHashMismatch = enum.auto()
    InvalidQuote = enum.auto()
    SvnMismatch = enum.auto()
    TcbEvaluation = enum.auto()
    CrlEvaluation = enum.auto()
    HashCalculation = enum.auto()
    QuoteVerification = enum.auto()
    TdReportVerification = enum.auto()
    QuoteGeneration = enum.auto()
    GetTdxReport = enum.auto()
    PeerCertChainValidation = enum.auto()


_TEXTS: Final[Mapping[PolicyErrorName, tuple[str, str]]] = {
    PolicyErrorName.FailGetReport: (
        "no TDREPORT could be had",
        "see the host's log with `./inv logs`",
    ),
    PolicyErrorName.InvalidParameter: (
        "the policy names something that is not there, or what it is applied to is malformed",
        "the detail names it: policy.md 1.5 has the names of v1, 2.1 to 2.5 what v2 takes; a record has 822 bytes",
    ),
    PolicyErrorName.InvalidPolicy: (
        "the policy does not decode",
        "correct the document at the place that is named; policy.md 1.1 to 1.3 gives its form, 2.1 to 2.4 that of v2",
    ),
    PolicyErrorName.InvalidEventLog: (
        "an event log cannot be used: unreadable, not what the RTMRs say, or the policy names an unknown event",
        "look at the log with `./inv events`; policy.md 1.6 lists the events that a policy may name",
    ),
    PolicyErrorName.InvalidTdReport: (
        "a TDREPORT or TDINFO is too short or its hashes do not agree",
        "take the report anew; policy.md 6.1 gives its layout",
    ),
    PolicyErrorName.PlatformNotFound: (
        "the policy has no Platform block for the peer's FMSPC",
        "add a block for this FMSPC, upper-case, or one block `self` alone if both hosts are of one platform",
    ),
    PolicyErrorName.PlatformNotMatch: (
        "the two hosts are of different platforms and the policy wants one like the own",
        "replace the Platform block `self` by one block per FMSPC that is allowed",
    ),
    PolicyErrorName.UnqualifiedPlatformInfo: (
        "the peer's platform does not meet the policy",
        "update that platform, or relax the rule that is named",
    ),
    PolicyErrorName.UnqualifiedQeInfo: (
        "the peer's quoting enclave does not meet the policy",
        "update that enclave, or relax the rule that is named",
    ),
    PolicyErrorName.UnqualifiedTdxModuleInfo: (
        "the peer's TDX module meets none of the policy's TDX module blocks",
        "update that module, or add a block for it",
    ),
    PolicyErrorName.UnqualifiedMigTdInfo: (
        "the peer's MigTD does not meet the policy",
        "run the same MigTD with the same policy and root on both hosts, or relax the rule that is named",
    ),
    PolicyErrorName.Crypto: (
        "a cryptographic operation failed",
        "check that keys and signatures are P-384 with SHA-384",
    ),
    PolicyErrorName.SignatureVerificationFailed: (
        "a signature or the chain to its key does not verify",
        "sign the document again, as it is now, and give the chain leaf first; all of it P-384 with SHA-384",
    ),
    PolicyErrorName.InvalidCollateral: (
        "collateral is missing for this platform or cannot be read",
        "fetch the collateral anew for every FMSPC in use",
    ),
    PolicyErrorName.InvalidOperation: (
        "an operation does not fit its reference",
        "choose an operation that policy.md 2.5 lists for this kind of reference",
    ),
    PolicyErrorName.InvalidReference: (
        "a reference cannot be used for its property",
        "give the kind of reference that policy.md 2.5 lists for this property",
    ),
    PolicyErrorName.InvalidServtdIdentity: (
        "the servtd identity does not decode",
        "compare it with policy.md 2.3 and sign it again",
    ),
    PolicyErrorName.InvalidServtdTcbMapping: (
        "the servtd TCB mapping does not decode",
        "compare it with policy.md 2.3 and sign it again",
    ),
    PolicyErrorName.PolicyHashMismatch: (
        "a policy or an owner is not the one that was measured or authenticated",
        "both must come from the same deployment: measure the policy that is sent",
    ),
    PolicyErrorName.InvalidQuote: (
        "a quote cannot be read",
        "policy.md 4.7 gives its layout",
    ),
    PolicyErrorName.SvnMismatch: (
        "a security version is lower than it must be, or revoked",
        "update that side, or migrate in the other direction",
    ),
    PolicyErrorName.TcbEvaluation: (
        "a TCB date, status, evaluation number or FMSPC does not meet the policy",
        "update that platform or its collateral, or relax the rule that is named",
    ),
    PolicyErrorName.CrlEvaluation: (
        "a CRL is older than the policy wants",
        "fetch the collateral anew",
    ),
    PolicyErrorName.HashCalculation: (
        "a hash could not be calculated",
        "please report it with the output of `./inv events`",
    ),
    PolicyErrorName.QuoteVerification: (
        "a quote does not verify",
        "the detail names the check that failed",
    ),
    PolicyErrorName.TdReportVerification: (
        "the TDX module does not know this TDREPORT",
        "it must come from a TD on this host, unchanged",
    ),
    PolicyErrorName.QuoteGeneration: (
        "no quote could be had from the host",
        "see the host's log with `./inv logs`",
    ),
    PolicyErrorName.GetTdxReport: (
        "the TDX module gave no TDREPORT",
        "see the host's log with `./inv logs`",
    ),
    PolicyErrorName.PeerCertChainValidation: (
        "the peer's issuer chain is not under the own root, or not of the same issuer",
        "both sides need chains under one root with equal leaf subjects, and CA certificates between",
    ),
}


def _identifier(name: PolicyErrorName) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name.name.replace("MigTd", "Migtd"))
    return f"MIGTD-POLICY-{words.upper()}"


KINDS: Final[Mapping[PolicyErrorName, FailureKind]] = {
    name: FailureKind(_identifier(name), *texts) for name, texts in _TEXTS.items()
}
"""The catalogue's entry of each name."""


def catalogue() -> dict[str, FailureKind]:
    """Every kind of this module by its id, in the order of the names."""
    return {kind.id: kind for kind in KINDS.values()}
