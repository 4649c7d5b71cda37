"""The same answer but for what does not matter: case, punctuation, articles, width, spaces."""

from __future__ import annotations

import re
import unicodedata

from core.evaluation.answers.metric import Answered, RowMetric, words_of
from core.language import N_, Said

_ARTICLE = re.compile(r"a|an|the")


def normalized(text: str) -> list[str]:
    """The words of a text, as SQuAD compares them (Rajpurkar et al. 2016), full width as half."""
    words = words_of(unicodedata.normalize("NFKC", text))
    return [word for word in words if not _ARTICLE.fullmatch(word)]


class NormalizedMatch(RowMetric):
    key = "normalized_match"
    place = 10
    title = Said(N_("Same words"))
    meaning = Said(
        N_("Share of answers equal to the expected one but for case, punctuation and articles")
    )

    def fits(self, rows: Answered) -> bool:
        return not rows.by_fields

    def score(self, answer: str, expected: str, rows: Answered) -> float:
        return float(normalized(answer) == normalized(expected))


METRIC = NormalizedMatch()
