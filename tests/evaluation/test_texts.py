"""How well texts are known: pieces of a long text, and the verdict."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.evaluation.report import Report
from core.evaluation.verdict import verdict
from core.tokens.tokenize import NO_LOSS, TokenizedRow
from core.worker.evaluation.texts import in_pieces
from webui.report import report


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 200), st.integers(2, 40))
def test_each_token_but_the_first_is_predicted_once(length: int, longest: int) -> None:
    """Long texts would count less than short ones, or some tokens twice."""
    row = TokenizedRow(list(range(length)), [NO_LOSS, *range(1, length)], length)
    pieces = in_pieces(row, longest)
    learned = [label for piece in pieces for label in piece.labels if label != NO_LOSS]
    assert learned == list(range(1, length))
    assert all(piece.length <= longest for piece in pieces)


def numbers(value: float, low: float | None, high: float | None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high}


def result(low: float, high: float, **changes: Any) -> Report:
    apart = numbers((low + high) / 2, low, high)
    values: dict[str, Any] = {
        "method": "cpt",
        "rows": 40,
        "part": "eval",
        "base": {"eval_loss": numbers(3, 2.9, 3.1), "perplexity": numbers(20.1, 18.2, 22.2)},
        "tuned": {"eval_loss": numbers(2, 1.9, 2.1), "perplexity": numbers(7.39, 6.69, 8.17)},
        "difference": {"eval_loss": apart},
        **changes,
    }
    return Report.model_validate(values)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-0.12, -0.08, "lower by 10 % (8 to 11 %): it has learned"),
        (-0.1, 0.05, "within chance"),
        (0.08, 0.12, "higher by 11 % (8 to 13 %): the training did harm"),
    ],
)
def test_the_verdict_claims_what_the_interval_allows(low: float, high: float, words: str) -> None:
    """A person would ship a model that is no better, or throw away one that is."""
    told = verdict(result(low, high))
    assert words in told
    assert "a perplexity of 7.39 (6.69 to 8.17), the base one of 20.1" in told


def test_few_texts_and_known_texts_are_said() -> None:
    """A hint would be taken for a proof."""
    told = verdict(result(-0.1, -0.05, rows=5, part="train", method="mlm"))
    assert "a hint, not a proof" in told and "was trained on" in told
    assert told.startswith("Guessing hidden tokens of texts")


def test_the_page_shows_the_texts_that_are_known_least() -> None:
    """Evaluate would say that all answers were as expected, where none was asked for."""
    texts = [{"index": 4, "text": "<b>Once", "tokens": 12, "base": 30.5, "tuned": 20.25}]
    page = report(result(-0.1, -0.05, texts=texts))
    assert "&lt;b&gt;Once" in page and "20.25" in page and "30.5" in page
    assert "expected answer to every row" not in page
