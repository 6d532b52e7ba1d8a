# SPDX-License-Identifier: BSD-2-Clause-Patent
"""How a session refuses its peer: what is reported, and the ERROR that a responder sends (spdm.md 9).

    SecureSessionError            6
     +-- SpdmRefusal              has the reply; never raised itself
          +-- SilentRefusal       nothing is sent
          +-- Malformed           InvalidRequest
          +-- Unexpected          UnexpectedRequest
          +-- FinishRefused       DecryptError
          +-- UnsupportedCode     UnsupportedRequest and the code
          +-- VersionMismatch     VersionMismatch
          +-- VendorMalformed     VendorDefined, 6

Any other MigTDError is what a handler of vendor-defined messages failed with; its result is sent.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from migtd import errors
from migtd.errors import FailureKind, MigrationResult, MigTDError, SecureSessionError
from migtd.spdm import failures


class ErrorCode(enum.IntEnum):
    """Codes of ERROR that the profile knows (spdm.md 9.1). The names are the standard's."""

    InvalidRequest = 0x01
    UnexpectedRequest = 0x04
    DecryptError = 0x06
    UnsupportedRequest = 0x07
    LargeResponse = 0x0F
    VersionMismatch = 0x41
    VendorDefined = 0xFF


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """Code and data of the ERROR that answers a refused request."""

    code: ErrorCode
    data: int = 0


class SpdmRefusal(SecureSessionError):
    """The session layer refuses what came. `reply` is what a responder answers, None for silence."""

    default: FailureKind = failures.SPDM_MALFORMED
    reply: ErrorReply | None = None

    def __init__(self, detail: str, kind: FailureKind | None = None) -> None:
        super().__init__(kind or self.default, detail)


class SilentRefusal(SpdmRefusal):
    """Nothing is answered: transport headers and secured records."""

    default = failures.SPDM_RECORD


class Malformed(SpdmRefusal):
    """Layout, constant or curve point of a standard message or of an envelope is wrong."""

    reply = ErrorReply(ErrorCode.InvalidRequest)


class Unexpected(SpdmRefusal):
    """The state does not allow the message."""

    default = failures.SPDM_UNEXPECTED
    reply = ErrorReply(ErrorCode.UnexpectedRequest)


class FinishRefused(SpdmRefusal):
    """Signature or MAC is wrong."""

    default = failures.SPDM_SIGNATURE
    reply = ErrorReply(ErrorCode.DecryptError)


class UnsupportedCode(SpdmRefusal):
    """A request code that the profile does not have."""

    default = failures.SPDM_UNSUPPORTED

    def __init__(self, code: int) -> None:
        super().__init__(f"request code {code:#04x}")
        self.reply = ErrorReply(ErrorCode.UnsupportedRequest, code)


class VersionMismatch(SpdmRefusal):
    """The version byte is not the one that belongs there."""

    default = failures.SPDM_VERSION
    reply = ErrorReply(ErrorCode.VersionMismatch)


class VendorMalformed(SpdmRefusal):
    """The payload of a vendor-defined message is wrong, or its opcode does not belong there."""

    default = failures.SPDM_VENDOR
    reply = ErrorReply(ErrorCode.VendorDefined, MigrationResult.SecureSessionError)


def reply_to(error: MigTDError) -> ErrorReply | None:
    """What a responder answers when `error` ends the session; never VendorDefined with 0 (spdm.md 9.3)."""
    if isinstance(error, SpdmRefusal):
        return error.reply
    return ErrorReply(ErrorCode.VendorDefined, error.result)


def peer_error(code: int, data: int) -> MigTDError:
    """What a requester reports for an ERROR that came: the result it names, else 6 (spdm.md 9.4)."""
    named = _BY_RESULT.get(data) if code == ErrorCode.VendorDefined else None
    if named is not None:
        return named(failures.SPDM_PEER_ERROR, f"the peer's result is {named.result.name}")
    names = {each.value: each.name for each in ErrorCode}
    return SecureSessionError(failures.SPDM_PEER_ERROR, f"{names.get(code, f'code {code:#04x}')}, data {data:#04x}")


_BY_RESULT: dict[int, type[MigTDError]] = {
    each.result: each
    for each in (
        errors.InvalidParameter,
        errors.Unsupported,
        errors.OutOfResource,
        errors.TdxModuleError,
        errors.NetworkError,
        errors.SecureSessionError,
        errors.MutualAttestationError,
        errors.PolicyUnsatisfiedError,
        errors.InvalidPolicyError,
        errors.VmmCanceled,
        errors.VmmInternalError,
        errors.UnsupportedOperationError,
        errors.InitializationError,
    )
}
"""Success is not among them: nobody can be told to succeed."""
