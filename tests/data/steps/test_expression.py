"""A condition answers for a row, or says why not; nothing a person types runs code, fills the
memory or never ends."""

from __future__ import annotations

import time
from typing import Any

import pytest

from core.data.steps.expression import FUNCTIONS, condition, template
from core.data.values import Unusable
from core.errors import DataError

COLUMNS = ("text", "n", "my column")
ROW: dict[str, Any] = {"text": "a" * 5000 + "!", "meta": {"n": 5, "my column": "x"}}


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ('n == 5 and len(text) > 5000 and col("my column") == "x"', True),
        ('n % 2 == 0 or "b" in text', False),
        ('matches("a{3,}!", text) and not matches("^b", text)', True),
        ('text[0] in ["a", "b"] and text.endswith("!") and words(text) == 1', True),
        ('(n * 2 if n > 3 else 0) == number("10")', True),
    ],
)
def test_conditions_that_people_write(expression: str, answer: bool) -> None:
    assert condition(expression, COLUMNS)(ROW) is answer


@pytest.mark.parametrize(
    "expression",
    [
        *("9**9**9 > 1", "1 << 10**9", 'f"{n:>1000000000}"', "[x for x in text]", "(lambda: 1)()"),
        *("text.__class__", '__import__("os")', "text.format(n)", "words(*[text])", '{"a": 1}'),
        *('col("no such")', "col(text)", "col()", 'matches("(", text)', "dict(n)", "n = 1", ""),
        *("not " * 400 + "n", "-" * 300 + "n", "n" + " + n" * 1500, "(" * 500 + "n" + ")" * 500),
    ],
)
def test_what_a_condition_may_not_hold_is_refused_before_a_row_is_read(expression: str) -> None:
    for _ in range(2):  # a first condition must not open anything to a second one
        with pytest.raises(DataError):
            condition(expression, COLUMNS)
    assert "dict" not in FUNCTIONS


@pytest.mark.parametrize(
    "expression",
    [
        *('text * 1000000000 == ""', '["a"] * 1000000000 == []', '"%999999999d" % n == ""'),
        *("text[99999999] == 1", "number(text) > 1", "n / 0 > 1", "text < n", "n.lower() == n"),
        "matches(n, text)",
    ],
)
def test_a_row_that_gives_no_answer_is_dropped_with_a_short_reason(expression: str) -> None:
    start = time.process_time()
    with pytest.raises(Unusable, match="the condition cannot be answered") as caught:
        condition(expression, COLUMNS)(ROW)
    assert len(str(caught.value)) < 300
    assert time.process_time() - start < 1


def test_a_pattern_without_end_is_stopped_and_named() -> None:
    """Without it one row would hold up the import for ever, and no stop would be seen."""
    with pytest.raises(DataError, match=r"The pattern \(a\+\)\+\$ takes longer") as caught:
        condition('matches("(a+)+$", text)', COLUMNS)(ROW)
    assert "repeats inside repeats" in caught.value.hint


def test_a_template_names_columns_only() -> None:
    assert template("{n}: {{{my column}}}", COLUMNS)(ROW) == "5: {x}"
    for wrong in ("{text.__class__}", "{0}", "{nn}", "{text"):
        with pytest.raises(DataError):
            template(wrong, COLUMNS)
