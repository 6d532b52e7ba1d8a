# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a host's quoting refuses."""

from __future__ import annotations

from migtd.errors import FailureKind, LabFailure


class QuotingError(LabFailure):
    """Settings, material or a request that no quote can be made from; the kind says which (VMM-QUOTING-…).

    `answer` is what a guest is told of it, where its form of request has room for that; else it gets the error status.
    """

    def __init__(self, kind: FailureKind, detail: str = "", *, answer: bytes = b"") -> None:
        super().__init__(kind, detail)
        self.answer = answer
