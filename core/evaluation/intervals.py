"""How sure a measured number is: 95 % intervals, from nothing but the rows that were measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_Z = 1.959963984540054  # the normal quantile of 97.5 %
_RESAMPLES = 4000
_SEED = 20240  # the same rows give the same interval


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its 95 % interval; None where a single row tells no interval."""

    value: float
    low: float | None = None
    high: float | None = None

    def mapped(self, function: Any) -> Estimate:
        """The estimate of a function that only rises, such as the exponential."""
        ends = [None if end is None else float(function(end)) for end in (self.low, self.high)]
        return Estimate(float(function(self.value)), *ends)


def share(right: float, total: float) -> Estimate:
    """The share right / total with its Wilson score interval (Wilson 1927, JASA 22:209).

    Unlike the usual one it stays within 0 to 1 and is not empty at the ends. Neither number need
    be whole: see `clustered_share`.
    """
    if total <= 0:
        raise ValueError("a share of nothing")
    p = right / total
    squared = _Z * _Z / total
    middle = (p + squared / 2) / (1 + squared)
    half = _Z * math.sqrt(p * (1 - p) / total + squared / (4 * total)) / (1 + squared)
    low = 0.0 if right <= 0 else max(0.0, middle - half)
    high = 1.0 if right >= total else min(1.0, middle + half)
    return Estimate(p, low, high)


def clustered_share(row_shares: Array, parts: int) -> Estimate:
    """The mean of `row_shares` (each in 0..1, of `parts` equal parts of a row) with its interval.

    The fields of one row are often right or wrong together, so n rows of k fields tell less than
    n * k coin tosses and more than n. Wilson's interval is taken for the number of independent
    tosses that would vary as much as the rows do (Korn and Graubard 1998, Survey Methodology
    24:193), kept between n and n * k.
    """
    rows = len(row_shares)
    p = float(row_shares.mean())
    effective = float(rows)
    if rows > 1:
        variance = float(row_shares.var(ddof=1)) / rows
        if variance > 0:
            effective = min(max(p * (1 - p) / variance, rows), rows * parts)
    return share(p * effective, effective)


def ratio(sums: Array, weights: Array) -> Estimate:
    """sum(sums) / sum(weights) over rows, with a bootstrap interval (Efron 1979, percentiles).

    Whole rows are drawn again, so the interval holds for other rows of the same kind. A
    difference of two models is a ratio too, with the difference of their sums: drawn in pairs,
    what makes a row hard for both falls out.
    """
    value = float(sums.sum() / weights.sum())
    rows = len(sums)
    if rows < 2:
        return Estimate(value)
    drawn = np.random.default_rng(_SEED).integers(0, rows, size=(_RESAMPLES, rows))
    values = sums[drawn].sum(axis=1) / weights[drawn].sum(axis=1)
    low, high = np.quantile(values, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def mean(values: Array) -> Estimate:
    """The mean over rows with its bootstrap interval."""
    return ratio(values, np.ones_like(values))
