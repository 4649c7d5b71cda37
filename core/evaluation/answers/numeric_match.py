"""The right number at the end of an answer."""

from __future__ import annotations

import re

from core.evaluation.answers.metric import Answered, RowMetric
from core.language import N_, Said
from core.rewards.functions import numeric_answer
from core.rewards.kinds import NumericAnswer

_ENDS_WITH_NUMBER = re.compile(r"\d[\d,.]*\s*(%|[^\W\d]{1,3})?[\s.)}\]$*]*$")
_MOST = 0.9


class NumericMatch(RowMetric):
    key = "numeric_match"
    place = 20
    title = Said(N_("Right number"))
    meaning = Said(N_("Share of answers whose last number is that of the expected answer"))

    def fits(self, rows: Answered) -> bool:
        ends = sum(bool(_ENDS_WITH_NUMBER.search(text)) for text in rows.expected)
        return not rows.by_fields and ends >= _MOST * len(rows.expected)

    def score(self, answer: str, expected: str, rows: Answered) -> float:
        return numeric_answer(NumericAnswer(), answer, expected) or 0.0


METRIC = NumericMatch()
