"""What two models' scores on the same rows allow to say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from core.evaluation.intervals import mean
from core.evaluation.paired import compared
from core.evaluation.report import Report
from core.evaluation.verdict import verdict


def scores(wins: int, losses: int, ties: int) -> tuple[np.ndarray, np.ndarray]:
    tuned = np.array([1.0] * wins + [0.0] * losses + [1.0] * ties)
    return tuned, np.array([0.0] * wins + [1.0] * losses + [1.0] * ties)


def told(wins: int, losses: int, ties: int) -> str:
    tuned, base = scores(wins, losses, ties)
    number = {"value": 0.5, "low": 0.4, "high": 0.6}
    report = Report(
        rows=len(tuned),
        tuned={"eval_loss": number, "token_f1": number},
        base={"eval_loss": number, "token_f1": number},
        difference={"score": mean(tuned - base), "eval_loss": number},
        compared=compared(tuned, base),
    )
    return verdict(report)


def test_rows_are_counted_and_the_p_value_is_mcnemars_exact_one() -> None:
    found = compared(*scores(37, 14, 149))
    assert (found.wins, found.losses, found.ties, found.needed) == (37, 14, 149, None)
    assert found.p_value == pytest.approx(2 * binom.cdf(14, 51, 0.5))


def test_a_gain_that_is_sure() -> None:
    text = told(37, 14, 149)
    assert "Of 200 rows it is better on 37 and worse on 14 (p 0.0018)." in text
    assert "That is better by 11.5 points, 95 % interval +4." in text


def test_a_loss_that_is_sure() -> None:
    text = told(2, 60, 138)
    assert "(p < 0.001)" in text
    assert "worse by 29.0 points" in text and "the training did harm" in text


def test_what_cannot_be_seen_yet_is_said_with_the_rows_that_would_show_it() -> None:
    found = compared(*scores(9, 6, 25))
    assert found.needed is not None and 400 < found.needed < 700
    text = told(9, 6, 25)
    assert "No difference can be told from chance" in text
    assert "rows would be needed to see one" in text
    assert "better by" not in text


def test_nothing_to_tell_apart() -> None:
    found = compared(*scores(0, 0, 30))
    assert (found.p_value, found.needed) == (1.0, None)
    assert "There is no difference on these rows." in told(0, 0, 30)


def test_rows_without_a_score_are_left_out_and_one_row_says_nothing() -> None:
    one = compared(np.array([1.0, np.nan]), np.array([0.0, 1.0]))
    assert (one.wins, one.losses, one.ties, one.needed) == (1, 0, 0, None)
    assert "One row says nothing about others." in told(1, 0, 0)
