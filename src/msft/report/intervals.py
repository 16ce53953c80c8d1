"""95 % intervals of one model's score on one split, from its items."""

from __future__ import annotations

import math
from collections.abc import Sequence

Z = 1.96


def wilson(share: float, items: int) -> tuple[float, float]:
    """Wilson's score interval for the share of `items` that are right; valid at 0 and 1 too."""
    centre = (share + Z * Z / (2 * items)) / (1 + Z * Z / items)
    half = Z * math.sqrt(share * (1 - share) / items + Z * Z / (4 * items * items)) / (1 + Z * Z / items)
    return max(0.0, centre - half), min(1.0, centre + half)


def of_items(report: float, items: Sequence[float]) -> tuple[float, float] | None:
    """Interval of a metric in [0, 1]: the mean of its items or, for log-probabilities, the exponential of the mean.

    None if there are too few items or the metric is not finite.
    """
    if len(items) < 2 or not math.isfinite(report):
        return None
    if set(items) <= {0.0, 1.0}:
        return wilson(report, len(items))
    mean = math.fsum(items) / len(items)
    variance = math.fsum((item - mean) ** 2 for item in items) / (len(items) - 1)
    slope = 1.0 if math.isclose(mean, report, abs_tol=1e-6) else report  # the delta method
    half = Z * slope * math.sqrt(variance / len(items))
    return max(0.0, report - half), min(1.0, report + half)
