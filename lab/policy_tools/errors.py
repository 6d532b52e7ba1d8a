# SPDX-License-Identifier: BSD-2-Clause-Patent
"""How a policy tool ends when it does not succeed: status 1, a stable id, and the reference's name where it has one.

ToolError        what a tool cannot do: its input is wrong, a service fails, a file cannot be written
 +-- SignerError  one of the reference's names for what the signer refuses
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from lab.errors import ExitStatus, TaskError
from lab.policy_tools import failures
from migtd.errors import FailureKind


class ToolError(TaskError):
    """A policy tool cannot go on; console scripts and `./inv policy.*` end with status 1 (policy.md 5)."""

    status = ExitStatus.NEGATIVE


class SignerErrorName(enum.Enum):
    """What the signer refuses, by the reference's names (policy.md 5.4)."""

    InvalidJson = enum.auto()
    InvalidKey = enum.auto()
    InvalidString = enum.auto()
    InvalidSignedJson = enum.auto()
    Sign = enum.auto()
    Verify = enum.auto()
    NotCanonical = enum.auto()
    NoPublicKey = enum.auto()


_KINDS: Final[Mapping[SignerErrorName, FailureKind]] = {
    SignerErrorName.InvalidJson: failures.SIGNER_INVALID_JSON,
    SignerErrorName.InvalidKey: failures.SIGNER_INVALID_KEY,
    SignerErrorName.InvalidString: failures.SIGNER_INVALID_STRING,
    SignerErrorName.InvalidSignedJson: failures.SIGNER_INVALID_SIGNED_JSON,
    SignerErrorName.Sign: failures.SIGNER_SIGN,
    SignerErrorName.Verify: failures.SIGNER_VERIFY,
    SignerErrorName.NotCanonical: failures.SIGNER_NOT_CANONICAL,
    SignerErrorName.NoPublicKey: failures.SIGNER_NO_PUBLIC_KEY,
}


class SignerError(ToolError):
    """The signer refuses its input; `name` is the reference's."""

    def __init__(self, name: SignerErrorName, detail: str = "") -> None:
        super().__init__(_KINDS[name], detail)
        self.name = name
