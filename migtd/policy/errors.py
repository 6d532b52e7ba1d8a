# SPDX-License-Identifier: BSD-2-Clause-Patent
"""How reading and evaluating a policy ends when it does not succeed.

    JsonError       a text is not in the strict JSON dialect, or a value is not what a structure takes
    PolicyError     a LabFailure: one of the names of policy.md 0.4, with its id in the catalogue

JsonError stays inside: whoever decodes a document turns it into the PolicyError that this document has.
"""

from __future__ import annotations

from migtd.errors import InvalidPolicyError, LabFailure, MigTDError, PolicyUnsatisfiedError
from migtd.policy.failures import KINDS, PolicyErrorName

__all__ = ["JsonError", "PolicyError", "PolicyErrorName"]


class JsonError(ValueError):
    """A text does not decode: `why`, and where: `offset` in characters from its start."""

    def __init__(self, why: str, offset: int) -> None:
        super().__init__(why, offset)
        self.why = why
        self.offset = offset

    def __str__(self) -> str:
        return f"{self.why} (character {self.offset})"

    def described(self, text: str) -> str:
        """The reason with line and column, both from 1, in `text`."""
        line = text.count("\n", 0, self.offset) + 1
        column = self.offset - text.rfind("\n", 0, self.offset)
        return f"line {line}, column {column}: {self.why}"


class PolicyError(LabFailure):
    """A policy refuses, or cannot be used: `name` is the reference's, `kind` the catalogue's entry for it."""

    def __init__(self, name: PolicyErrorName, detail: str = "") -> None:
        super().__init__(KINDS[name], detail)
        self.args = (name, detail)
        self.name = name

    def as_migtd_error(self) -> MigTDError:
        """What leaves the MigTD: InvalidPolicyError (9) for InvalidPolicy, else PolicyUnsatisfiedError (8)."""
        result = InvalidPolicyError if self.name is PolicyErrorName.InvalidPolicy else PolicyUnsatisfiedError
        return result(self.kind, self.detail)
