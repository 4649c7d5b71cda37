"""chrF of the whole set, by sacrebleu."""

from __future__ import annotations

from core.evaluation.answers.bleu import with_interval
from core.evaluation.answers.metric import Answered, AnswerMetric
from core.evaluation.intervals import Estimate
from core.language import N_, Said


class ChrF(AnswerMetric):
    key = "chrf"
    place = 60
    title = Said("chrF")
    meaning = Said(N_("Runs of one to six characters that they share, by sacrebleu"))

    def fits(self, rows: Answered) -> bool:
        return rows.are_sentences

    def count(self, rows: Answered) -> Estimate:
        from sacrebleu.metrics.chrf import CHRF

        return with_interval(CHRF(), rows)


METRIC = ChrF()
