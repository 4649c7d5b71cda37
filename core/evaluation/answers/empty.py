"""Answers without a word."""

from __future__ import annotations

from core.evaluation.answers.metric import Answered, RowMetric
from core.language import N_, Said


class Empty(RowMetric):
    key = "empty"
    place = 100
    title = Said(N_("Empty"))
    meaning = Said(N_("Share of answers without a word"))
    better = "lower"

    def score(self, answer: str, expected: str, rows: Answered) -> float:
        return float(not answer.strip())


METRIC = Empty()
