# SPDX-License-Identifier: BSD-2-Clause-Patent
"""PEM sections of one label, as DER (RFC 7468). Text between sections and sections of other labels are skipped."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from migtd.attestation.quote.errors import QuoteError
from migtd.errors import FailureKind

CERTIFICATE: Final = "CERTIFICATE"
X509_CRL: Final = "X509 CRL"

_SPACE: Final = re.compile(rb"[ \t\r\n]+")


def pull_pem(data: bytes, label: str, kind: FailureKind) -> list[bytes]:
    """The DER of every section `label`, in order; empty if there is none.

    Raises QuoteError (`kind`) on a section that does not end or is not base64.
    """
    begin, end = f"-----BEGIN {label}-----".encode(), f"-----END {label}-----".encode()
    sections = data.split(begin)[1:]
    found = []
    for number, section in enumerate(sections):
        text, mark, _ = section.partition(end)
        if not mark:
            raise QuoteError(kind, f"PEM section {number} does not end")
        try:
            found.append(base64.b64decode(_SPACE.sub(b"", text), validate=True))
        except binascii.Error as error:
            raise QuoteError(kind, f"PEM section {number}: {error}") from error
    return found


def push_pem(der: bytes, label: str) -> bytes:
    """One PEM section with lines of 64 characters and a final newline."""
    text = base64.b64encode(der)
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return b"\n".join([f"-----BEGIN {label}-----".encode(), *lines, f"-----END {label}-----".encode(), b""])
