"""A wrong interval makes a person trust a difference that is chance, or doubt one that is not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from core.evaluation.intervals import Estimate, clustered_share, mean, ratio, share


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        # Published values of Wilson's score interval at 95 %, without continuity correction.
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (8, 10, 0.4902, 0.9433),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I
        (15, 148, 0.0624, 0.1605),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_share_has_wilsons_interval(right: int, total: int, low: float, high: float) -> None:
    found = share(right, total)
    assert found.value == right / total
    assert found.low == pytest.approx(low, abs=6e-5)
    assert found.high == pytest.approx(high, abs=6e-5)


def test_share_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        share(0, 0)


def test_fields_that_stand_or_fall_together_count_as_one_toss_a_row() -> None:
    """Else four fields that are always right together would look four times as sure."""
    together = np.array([1.0] * 30 + [0.0] * 10)
    found = clustered_share(together, parts=4)
    assert found.value == 0.75
    assert (found.low, found.high) == pytest.approx(
        (share(30, 40).low, share(30, 40).high), abs=0.003
    )


def test_independent_fields_count_nearly_one_by_one() -> None:
    rng = np.random.default_rng(1)
    rows = (rng.random((200, 4)) < 0.7).mean(axis=1)
    found, single = clustered_share(rows, parts=4), share(rows.sum() * 4, 800)
    assert found.high - found.low == pytest.approx(single.high - single.low, rel=0.15)


def test_rows_without_any_spread_count_once_each() -> None:
    assert clustered_share(np.zeros(40), parts=4) == share(0, 40)


def test_ratio_weighs_rows_by_their_tokens() -> None:
    """A mean of row means would let short answers decide the loss."""
    assert ratio(np.array([2.0, 30.0]), np.array([1.0, 9.0])).value == 3.2


def test_bootstrap_agrees_with_the_normal_interval_and_is_the_same_each_time() -> None:
    values = np.random.default_rng(3).normal(5.0, 2.0, 400)
    found = mean(values)
    half = 1.96 * values.std(ddof=1) / math.sqrt(400)
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)
    assert mean(values) == found


def test_a_paired_difference_is_surer_than_two_single_numbers() -> None:
    """Hard rows are hard for both models; only what differs should widen the interval."""
    rng = np.random.default_rng(4)
    hard = rng.normal(3.0, 1.0, 50)
    base, tuned = hard, hard - 0.2 + rng.normal(0, 0.05, 50)
    apart = mean(tuned - base)
    assert apart.high < 0
    assert mean(base).low < mean(tuned).value


def test_one_row_has_no_interval() -> None:
    assert mean(np.array([3.0])) == Estimate(3.0, None, None)


def test_perplexity_keeps_the_ends_of_the_loss() -> None:
    found = Estimate(1.0, 0.5, None).mapped(math.exp)
    assert found == Estimate(math.e, math.exp(0.5), None)
