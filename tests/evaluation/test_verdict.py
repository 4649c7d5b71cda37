"""The verdict is what most people read; it must not claim more than the rows show."""

from __future__ import annotations

from typing import Any

from core.evaluation.report import Report
from core.evaluation.verdict import verdict


def number(value: float, low: float | None, high: float | None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high}


def result(**changes: Any) -> Report:
    tuned = {"eval_loss": number(0.35, 0.3, 0.4), "all_fields": number(0.91, 0.86, 0.95)}
    base = {"eval_loss": number(3.21, 3.0, 3.4), "all_fields": number(0.02, 0.0, 0.09)}
    apart = {"eval_loss": number(-2.86, -3, -2.7), "score": number(0.89, 0.84, 0.94)}
    whole = {"rows": 40, "part": "eval", "tuned": tuned, "base": base, "difference": apart}
    return Report.model_validate(whole | changes)


def test_a_clear_gain() -> None:
    assert verdict(result()) == (
        "The tuned model gets 91 % (86 to 95 %) of fields right, the base 2 % (0 to 9 %). "
        "That is better by 89 points (+84 to +94). "
        "Its loss on the expected answers fell from 3.210 to 0.350."
    )


def test_a_gain_within_chance_is_called_that() -> None:
    apart = {"eval_loss": number(-0.1, -0.2, 0.0), "score": number(0.03, -0.02, 0.08)}
    text = verdict(result(difference=apart))
    assert "The difference of 3 points is within chance (-2 to +8): no clear winner." in text
    assert "better" not in text


def test_a_model_that_got_worse_is_told() -> None:
    apart = {"eval_loss": number(0.5, 0.4, 0.6), "score": number(-0.1, -0.2, -0.01)}
    text = verdict(result(difference=apart))
    assert "worse by 10 points (-20 to -1): the training did harm" in text


def test_for_a_loss_lower_is_better() -> None:
    tuned, base = {"eval_loss": number(2.0, 1.9, 2.1)}, {"eval_loss": number(2.5, 2.4, 2.6)}
    better = {"eval_loss": number(-0.5, -0.6, -0.4)}
    text = verdict(result(tuned=tuned, base=base, difference=better))
    assert text == (
        "The tuned model has a loss of 2.000 (1.900 to 2.100), the base 2.500 (2.400 to 2.600). "
        "That is better by 0.5 (-0.6 to -0.4)."
    )
    worse = {"eval_loss": number(0.5, 0.4, 0.6)}
    assert "worse by 0.5" in verdict(result(tuned=base, base=tuned, difference=worse))


def test_few_rows_and_training_rows_are_named() -> None:
    text = verdict(result(rows=5, part="train"))
    assert text.endswith(
        "With 5 rows this is a hint, not a proof. These are rows that it was trained on."
    )


def test_one_row_gives_no_judgement() -> None:
    tuned = {"eval_loss": number(0.3, None, None), "token_f1": number(1.0, None, None)}
    base = {"eval_loss": number(3.0, None, None), "token_f1": number(0.0, None, None)}
    apart = {"eval_loss": number(-2.7, None, None), "score": number(1.0, None, None)}
    text = verdict(result(rows=1, tuned=tuned, base=base, difference=apart))
    assert "One row says nothing about others." in text
    assert "better" not in text


def test_without_the_base_only_the_tuned_model_is_described() -> None:
    text = verdict(result(base=None, difference=None))
    assert text == "The tuned model gets 91 % (86 to 95 %) of fields right."
