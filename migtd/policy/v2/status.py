# SPDX-License-Identifier: BSD-2-Clause-Patent
"""TCB statuses and their ranks: those of platforms, and those of MigTDs (policy.md 2.5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from migtd.policy.errors import PolicyError, PolicyErrorName
from migtd.policy.explain import shown_name

REVOKED: Final = "Revoked"
UP_TO_DATE: Final = "UpToDate"
OUT_OF_DATE: Final = "OutOfDate"
CONFIGURATION_NEEDED: Final = "ConfigurationNeeded"

PLATFORM_RANKS: Final[Mapping[str, int]] = {
    UP_TO_DATE: 2,
    "SWHardeningNeeded": 2,
    OUT_OF_DATE: 2,
    CONFIGURATION_NEEDED: 1,
    "ConfigurationAndSWHardeningNeeded": 1,
    "OutOfDateConfigurationNeeded": 1,
    REVOKED: 0,
}
"""Equality and order of platform statuses are those of their ranks."""
SERVTD_RANKS: Final[Mapping[str, int]] = {UP_TO_DATE: 1, OUT_OF_DATE: 1, REVOKED: 0}
"""The same for the statuses of MigTDs."""
BEST: Final = 2
WORST: Final = 0
"""Ranks that decide before a property is looked at."""


def rank(name: str, ranks: Mapping[str, int]) -> int:
    """The rank of a status. Raises PolicyError (InvalidParameter) on a name that is none."""
    if name not in ranks:
        raise PolicyError(PolicyErrorName.InvalidParameter, f"there is no TCB status {shown_name(name)!r}")
    return ranks[name]
