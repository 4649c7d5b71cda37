"""ROUGE-L (Lin 2004). rouge-score drops every Chinese character, so the words are ours."""

from __future__ import annotations

import numpy as np

from core.evaluation.answers.metric import Answered, RowMetric, words_of
from core.language import N_, Said


def longest_common(one: list[str], other: list[str]) -> int:
    """The length of the longest common subsequence."""
    numbers = {word: number for number, word in enumerate(dict.fromkeys(one + other))}
    across = np.array([numbers[word] for word in other])
    row = np.zeros(len(other) + 1, dtype=np.int64)
    for word in one:
        fresh = row.copy()
        fresh[1:] = np.maximum(row[1:], row[:-1] + (across == numbers[word]))
        row = np.maximum.accumulate(fresh)
    return int(row[-1])


class RougeL(RowMetric):
    key = "rouge_l"
    place = 70
    title = Said("ROUGE-L")
    meaning = Said(
        N_("F1 of the longest run of words, gaps allowed, that answer and expected answer share")
    )

    def fits(self, rows: Answered) -> bool:
        return rows.are_sentences

    def score(self, answer: str, expected: str, rows: Answered) -> float:
        given, wanted = words_of(answer), words_of(expected)
        if not given or not wanted:
            return float(given == wanted)
        return 2 * longest_common(given, wanted) / (len(given) + len(wanted))


METRIC = RougeL()
