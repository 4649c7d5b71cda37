"""The right number, or the right formula, at the end of an answer."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from core.evaluation.answers.metric import Answered, RowMetric
from core.language import N_, Said
from core.rewards.functions import numeric_answer
from core.rewards.kinds import NumericAnswer

_ENDS_WITH_NUMBER = re.compile(r"\d[\d,.]*\s*(%|[^\W\d]{1,3})?[\s.。)}\]$*]*$")
# LaTeX, a power, or a fraction at the end: its last number alone says nothing.
_FORMULA = re.compile(r"\\[a-zA-Z(\[]|[\w)}]\^|\d\s*/\s*\d+[\s.。)}\]$*]*$")
_EAST_ASIAN = re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]+")
_MOST = 0.9


class NumericMatch(RowMetric):
    key = "numeric_match"
    place = 20
    title = Said(N_("Right number"))
    meaning = Said(
        N_("Share of answers whose last number, or formula, is that of the expected answer")
    )

    def fits(self, rows: Answered) -> bool:
        ends = sum(
            bool(_ENDS_WITH_NUMBER.search(text) or _FORMULA.search(text)) for text in rows.expected
        )
        return not rows.by_fields and ends >= _MOST * len(rows.expected)

    def score(self, answer: str, expected: str, rows: Answered) -> float:
        if _FORMULA.search(expected):
            return float(_same_formula(answer, expected))
        return numeric_answer(NumericAnswer(), answer, expected) or 0.0


def _same_formula(answer: str, expected: str) -> bool:
    """Whether both come to the same, whatever they are written as."""
    from math_verify import verify

    return bool(verify(_parsed(expected), _parsed(answer)))


@lru_cache(4096)
def _parsed(text: str) -> list[Any]:
    from math_verify import parse

    text = _EAST_ASIAN.sub(" , ", text)  # between which it looks for no number
    return list(parse(text) or parse(f"${text}$"))


METRIC = NumericMatch()
