# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Dates as policies compare them: text (policy.md 2.6)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from migtd.policy.errors import PolicyError, PolicyErrorName

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def unix_to_iso(seconds: int) -> str:
    """Seconds since 1970 as `YYYY-MM-DDTHH:MM:SSZ`. Raises PolicyError (InvalidParameter) beyond year 9999."""
    try:
        moment = _EPOCH + timedelta(seconds=seconds)
    except OverflowError as error:
        raise PolicyError(PolicyErrorName.InvalidParameter, f"{seconds} seconds since 1970 are no date") from error
    return f"{moment.replace(tzinfo=None).isoformat()}Z"
