# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The one exception of the quote verifier; its kind says which check failed (failures.py)."""

from __future__ import annotations

from migtd.errors import LabFailure


class QuoteError(LabFailure):
    """A quote, its certificates or its collateral do not verify (policy.md 4.3)."""
