"""How long answers are beside the expected ones."""

from __future__ import annotations

import numpy as np

from core.evaluation.answers.metric import Answered, AnswerMetric, words_of
from core.evaluation.intervals import Estimate, ratio
from core.language import N_, Said


class AnswerLength(AnswerMetric):
    key = "length_ratio"
    place = 80
    title = Said(N_("Length"))
    meaning = Said(N_("Words of the answers for each word of the expected ones; 1 is as long"))
    unit = ""

    def fits(self, rows: Answered) -> bool:
        return any(words_of(text) for text in rows.expected)

    def count(self, rows: Answered) -> Estimate:
        counts = [(len(words_of(one)), len(words_of(other))) for one, other in rows.pairs]
        given, wanted = np.array(counts, dtype=float).T
        # Rows without a word expected count one, so that no drawing of rows divides by nothing.
        return ratio(given, np.maximum(wanted, 1))


METRIC = AnswerLength()
