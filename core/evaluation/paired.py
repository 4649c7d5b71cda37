"""Two models on the same rows: which one each row speaks for, whether that can be chance, and how
many rows would show it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from core.evaluation.report import Compared

Array = NDArray[np.float64]

# Quantiles of the normal: 97.5 % for the doubt, 80 % for the chance to see what is there.
_DOUBT, _POWER = 1.959963984540054, 0.8416212335729143
_MOST_NEEDED = 100_000


def compared(tuned: Array, other: Array) -> Compared:
    """Of each row's scores, higher better; rows where either is NaN are left out.

    The p-value is McNemar's exact one (the sign test of the rows that differ; McNemar 1947,
    Psychometrika 12:153). `needed` are the rows on which the mean difference found here would be
    seen at 5 % in four of five cases, if that is more than there are.
    """
    known = ~(np.isnan(tuned) | np.isnan(other))
    apart = tuned[known] - other[known]
    wins, losses = int((apart > 0).sum()), int((apart < 0).sum())
    needed = None
    if len(apart) > 1 and apart.mean() != 0:
        rows = ((_DOUBT + _POWER) * apart.std(ddof=1) / apart.mean()) ** 2
        if len(apart) < rows <= _MOST_NEEDED:
            needed = math.ceil(rows)
    return Compared(
        wins=wins,
        losses=losses,
        ties=len(apart) - wins - losses,
        p_value=sign_test(wins, losses),
        needed=needed,
    )


def sign_test(wins: int, losses: int) -> float:
    """The exact two-sided p-value of so many wins and losses if both were as likely."""
    from scipy.stats import binomtest

    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
