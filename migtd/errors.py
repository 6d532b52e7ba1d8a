# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What can end a request, as it crosses the wire and as a person reads it.

    MigTDError                     carries a FailureKind; never raised itself
     +-- InvalidParameter          1
     +-- Unsupported               2
     +-- OutOfResource             3
     +-- TdxModuleError            4
     +-- NetworkError              5
     +-- SecureSessionError        6
     +-- MutualAttestationError    7
     +-- PolicyUnsatisfiedError    8
     +-- InvalidPolicyError        9
     +-- VmmCanceled              10
     +-- VmmInternalError         11
     +-- UnsupportedOperationError 12
     +-- InitializationError     255

The host learns the code (ReportStatus byte 1, ghci-ratls.md 3.2); people get the stable id, the sentence and the
advice.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import ClassVar


class MigrationResult(enum.IntEnum):
    """Outcome of a request: ReportStatus byte 1 (ghci-ratls.md 3.2). The member names are the field's own."""

    Success = 0
    InvalidParameter = 1
    Unsupported = 2
    OutOfResource = 3
    TdxModuleError = 4
    NetworkError = 5
    SecureSessionError = 6
    MutualAttestationError = 7
    PolicyUnsatisfiedError = 8
    InvalidPolicyError = 9
    VmmCanceled = 10
    VmmInternalError = 11
    UnsupportedOperationError = 12
    InitializationError = 255


@dataclass(frozen=True, slots=True)
class FailureKind:
    """One entry of the failure catalogue.

    `id` is stable (`MIGTD-…`, `VMM-…`, `LAB-…`), `summary` one sentence without a full stop that says what is wrong,
    `advice` one sentence that says what to do.
    """

    id: str
    summary: str
    advice: str


class LabFailure(Exception):
    """Anything that ends in a stable id: a kind from a catalogue plus the detail of this occurrence.

    `explain` has further lines for people, where a sentence is not enough: what was wanted, and what was found.
    """

    def __init__(self, kind: FailureKind, detail: str = "", *, explain: tuple[str, ...] = ()) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail
        self.explain = explain

    def __str__(self) -> str:
        if not self.detail:
            return self.kind.summary
        # A detail of several lines begins with a new one.
        return f"{self.kind.summary}:{'' if self.detail.startswith(chr(10)) else ' '}{self.detail}"


class MigTDError(LabFailure):
    """A failure that ends a request; the class gives the MigrationResult that is reported for it."""

    result: ClassVar[MigrationResult]


class InvalidParameter(MigTDError):
    """A request, a field or a peer's message is out of range or malformed (1)."""

    result = MigrationResult.InvalidParameter


class Unsupported(MigTDError):
    """The platform cannot do what is asked (2)."""

    result = MigrationResult.Unsupported


class OutOfResource(MigTDError):
    """No shared memory or buffer is left (3)."""

    result = MigrationResult.OutOfResource


class TdxModuleError(MigTDError):
    """A TDCALL failed (4)."""

    result = MigrationResult.TdxModuleError


class NetworkError(MigTDError):
    """The transport ended, stayed silent or broke its framing (5)."""

    result = MigrationResult.NetworkError


class SecureSessionError(MigTDError):
    """The secure session was refused by either side (6)."""

    result = MigrationResult.SecureSessionError


class MutualAttestationError(MigTDError):
    """A quote did not verify (7)."""

    result = MigrationResult.MutualAttestationError


class PolicyUnsatisfiedError(MigTDError):
    """The peer does not meet the policy (8)."""

    result = MigrationResult.PolicyUnsatisfiedError


class InvalidPolicyError(MigTDError):
    """The policy itself is bad (9)."""

    result = MigrationResult.InvalidPolicyError


class VmmCanceled(MigTDError):
    """The VMM cancelled the request (10)."""

    result = MigrationResult.VmmCanceled


class VmmInternalError(MigTDError):
    """The VMM answered with a status that the interface does not know (11)."""

    result = MigrationResult.VmmInternalError


class UnsupportedOperationError(MigTDError):
    """The VMM asked for an operation that this MigTD does not serve (12)."""

    result = MigrationResult.UnsupportedOperationError


class InitializationError(MigTDError):
    """The MigTD could not start (255)."""

    result = MigrationResult.InitializationError
