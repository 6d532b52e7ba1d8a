# SPDX-License-Identifier: BSD-2-Clause-Patent
"""How evidence and session are bound to each other (spdm.md 7.1)."""

from __future__ import annotations

from typing import Final

from migtd.attestation.mode import REPORT_DATA_SIZE
from migtd.spdm.transcript import digest

_REQUESTER: Final = b"MigTDReq"
_RESPONDER: Final = b"MigTDRsp"


def requester_report_data(th1: bytes) -> bytes:
    """REPORTDATA of the requester's evidence, 64 bytes, the last 16 zero."""
    return digest(_REQUESTER + th1).ljust(REPORT_DATA_SIZE, b"\0")


def responder_report_data(th1: bytes) -> bytes:
    """REPORTDATA of the responder's evidence, 64 bytes, the last 16 zero."""
    return digest(_RESPONDER + th1).ljust(REPORT_DATA_SIZE, b"\0")
