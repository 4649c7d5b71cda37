"""What a metric of answers is, and what it is counted from."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np

from core.evaluation.intervals import Estimate, mean, share
from core.language import Said

# A word; of Chinese and Japanese, which write no spaces, a character.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
_CHINESE, _KANA = re.compile(r"[\u3400-\u9fff]"), re.compile(r"[\u3040-\u30ff]")
# A text counts as Chinese when so many of its words are.
_MOSTLY = 0.3
# An answer that is a label or a name tells nothing by its n-grams.
_WORDS_OF_A_SENTENCE = 4


def words_of(text: str) -> list[str]:
    """The words of a text, case apart; each Chinese or Japanese character is one."""
    return _WORD.findall(text.casefold())


@dataclass(frozen=True)
class Answered:
    """A model's answers and those expected, row by row. `by_fields`: they are JSON whose fields
    are scored. `pattern` is what a right answer contains, if somebody said so."""

    answers: Sequence[str]
    expected: Sequence[str]
    by_fields: bool = False
    pattern: str = ""

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return list(zip(self.answers, self.expected, strict=True))

    @cached_property
    def script(self) -> Literal["zh", "ja", ""]:
        """What the expected answers are written in, where words have no spaces between them."""
        text = "".join(self.expected)
        words = words_of(text)
        if len(_CHINESE.findall(text)) + len(_KANA.findall(text)) < _MOSTLY * max(1, len(words)):
            return ""
        return "ja" if _KANA.search(text) else "zh"

    @cached_property
    def are_sentences(self) -> bool:
        """Whether the expected answers are long enough for n-grams, as half of them must be."""
        lengths = [len(words_of(text)) for text in self.expected]
        return not self.by_fields and float(np.median(lengths)) >= _WORDS_OF_A_SENTENCE


class AnswerMetric(ABC):
    """A number of answers. `key` is its usual name; `place` orders what is shown. Whether it
    `fits` follows from what is expected, so that every model has the same numbers."""

    key: ClassVar[str]
    place: ClassVar[int]
    title: Said = Said()
    meaning: Said = Said()
    unit: ClassVar[Literal["share", "nats", ""]] = "share"
    better: ClassVar[Literal["higher", "lower"]] = "higher"

    def fits(self, rows: Answered) -> bool:
        return True

    @abstractmethod
    def count(self, rows: Answered) -> Estimate:
        """The number, with its 95 % interval over rows."""


class RowMetric(AnswerMetric):
    """The mean of a score of each row."""

    @abstractmethod
    def score(self, answer: str, expected: str, rows: Answered) -> float: ...

    def count(self, rows: Answered) -> Estimate:
        scores = np.array([self.score(one, other, rows) for one, other in rows.pairs], dtype=float)
        if np.isin(scores, (0.0, 1.0)).all():
            return share(float(scores.sum()), len(scores))
        return mean(scores)
