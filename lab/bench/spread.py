# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A measured quantity: the median of its samples and how far they spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, 10th and 90th percentile of `n` samples, in the unit of the samples."""

    median: float
    p10: float
    p90: float
    n: int

    @classmethod
    def of(cls, samples: Iterable[float]) -> Spread:
        """The spread of at least one sample. Raises ValueError if there is none, or one that is no number."""
        ordered = sorted(samples)
        if not ordered or not all(map(math.isfinite, ordered)):
            raise ValueError(f"no spread of {len(ordered)} samples")
        return cls(statistics.median(ordered), percentile(ordered, 0.1), percentile(ordered, 0.9), len(ordered))


def percentile(ordered: list[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the sorted samples lie, interpolated between neighbours."""
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)
