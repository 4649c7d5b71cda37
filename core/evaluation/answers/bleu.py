"""BLEU of the whole set, by sacrebleu, with its own way of splitting Chinese."""

from __future__ import annotations

from core.evaluation.answers.metric import Answered, AnswerMetric
from core.evaluation.intervals import Estimate
from core.language import N_, Said

RESAMPLES = 500


def with_interval(metric: object, rows: Answered) -> Estimate:
    """A metric of sacrebleu (0 to 100) as a share, with its bootstrap interval."""
    from sacrebleu.metrics.base import Metric

    assert isinstance(metric, Metric)
    expected, several = [list(rows.expected)], len(rows.answers) > 1
    score = metric.corpus_score(list(rows.answers), expected, n_bootstrap=RESAMPLES * several or 1)
    # Those of a resampled score are of numpy's own kind, which JSON does not know.
    value, half = float(score.score) / 100, float(getattr(score, "_ci", 0.0)) / 100
    if not several:
        return Estimate(value)
    middle = float(getattr(score, "_mean", score.score)) / 100
    return Estimate(value, max(0.0, middle - half), min(1.0, middle + half))


class Bleu(AnswerMetric):
    key = "bleu"
    place = 50
    title = Said("BLEU")
    meaning = Said(
        N_("Runs of one to four words that answers and expected answers share, by sacrebleu")
    )

    def fits(self, rows: Answered) -> bool:
        return rows.are_sentences

    def count(self, rows: Answered) -> Estimate:
        from sacrebleu.metrics.bleu import BLEU

        # Its tokenizer for Japanese needs MeCab; by characters is what it advises without.
        splitting = {"zh": "zh", "ja": "char", "": "13a"}[rows.script]
        return with_interval(BLEU(tokenize=splitting), rows)


METRIC = Bleu()
