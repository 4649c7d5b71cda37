"""Answers that go round in circles."""

from __future__ import annotations

from core.evaluation.answers.metric import Answered, RowMetric, words_of
from core.language import N_, Said

_RUN, _MOST_REPEATED = 4, 0.4


class Repetition(RowMetric):
    key = "repetitive"
    place = 90
    title = Said(N_("Repetitive"))
    meaning = Said(
        N_("Share of answers in which 40 % or more of all runs of four words stood before")
    )
    better = "lower"

    def score(self, answer: str, expected: str, rows: Answered) -> float:
        words = words_of(answer)
        runs = [tuple(words[at : at + _RUN]) for at in range(len(words) - _RUN + 1)]
        return float(bool(runs) and 1 - len(set(runs)) / len(runs) >= _MOST_REPEATED)


METRIC = Repetition()
