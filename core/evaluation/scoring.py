"""Whether an answer is right.

- JSON answers are scored by field. A field with the score `exact` is right when it equals the
  expected value; texts are compared without white space at their ends and without case. A field
  with the score `token_f1` is right when the F1 of its words is 0.5 or more. An answer that is no
  JSON object has every field wrong. One code fence around the answer is taken off first.
- Other answers are scored whole: equal or not (white space at the ends and case apart), and the
  F1 of their words.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.evaluation.answers.metric import words_of

Array = NDArray[np.float64]

EXACT, TOKEN_F1 = "exact", "token_f1"
F1_NEEDED = 0.5
# A field belongs to the task when so many of the expected answers have it.
_COMMON = 0.9
_FENCE = re.compile(r"```[a-zA-Z]*\s*\n(.*?)\n?\s*```", re.DOTALL)


@dataclass(frozen=True)
class FieldRule:
    """A field of a JSON answer and how it is scored: `exact` or `token_f1`."""

    name: str
    score: str = EXACT


@dataclass(frozen=True)
class Scored:
    """A model's answers by row: names of the fields that are right, F1 of the words, equality.

    `scores` is the number in 0..1 that the two models are compared by: the share of fields that
    are right, or the F1.
    """

    answers: list[str]
    right: list[list[str]]
    scores: Array
    equal: Array
    parsed: Array


def score_answers(
    answers: Sequence[str], expected: Sequence[str], rules: Sequence[FieldRule]
) -> Scored:
    """Compares each answer with the row's expected one; by fields when there are `rules`."""
    pairs = list(zip(answers, expected, strict=True))
    right = [fields_right(a, e, rules) for a, e in pairs]
    if rules:
        scores = [len(names) / len(rules) for names in right]
    else:
        scores = [token_f1(a, e) for a, e in pairs]
    equal = [same_value(a, e) for a, e in pairs]
    parsed = [parse_object(answer) is not None for answer in answers]
    return Scored(list(answers), right, _array(scores), _array(equal), _array(parsed))


def field_rules(task: dict[str, Any] | None, expected: Sequence[str]) -> list[FieldRule]:
    """The fields to score; [] when the answers are no JSON objects.

    A data set's task names them. Without one they are those that 90 % of the expected answers
    have, all scored exactly.
    """
    objects = [parse_object(text) for text in expected]
    known = [item for item in objects if item is not None]
    if not expected or len(known) < _COMMON * len(expected):
        return []
    if task and task.get("fields"):
        return [FieldRule(str(f["name"]), str(f.get("score", EXACT))) for f in task["fields"]]
    counts = Counter(name for item in known for name in item)
    return [FieldRule(name) for name, n in counts.items() if n >= _COMMON * len(expected)]


def parse_object(text: str) -> dict[str, Any] | None:
    """The JSON object that `text` is, one code fence apart; None when it is none."""
    text = text.strip()
    fenced = _FENCE.fullmatch(text)
    try:
        value = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def fields_right(answer: str, expected: str, rules: Sequence[FieldRule]) -> list[str]:
    """The names of the fields that `answer` has right, in the order of the rules.

    A field that the expected answer has not is right when the answer has not got it either.
    """
    given, wanted = parse_object(answer), parse_object(expected)
    if given is None or wanted is None:
        return []
    return [rule.name for rule in rules if _is_right(rule, given, wanted)]


def _is_right(rule: FieldRule, given: dict[str, Any], wanted: dict[str, Any]) -> bool:
    if rule.name not in wanted or rule.name not in given:
        return rule.name not in wanted and rule.name not in given
    if rule.score == TOKEN_F1:
        return token_f1(str(given[rule.name]), str(wanted[rule.name])) >= F1_NEEDED
    return same_value(given[rule.name], wanted[rule.name])


def same_value(one: Any, other: Any) -> bool:
    """Equality of JSON values; texts without case and outer white space, and true is not 1."""
    if isinstance(one, str) and isinstance(other, str):
        return one.strip().casefold() == other.strip().casefold()
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_value, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_value(one[k], other[k]) for k in one)
    return bool(one == other)


def token_f1(answer: str, expected: str) -> float:
    """F1 of the words of two texts, case apart (as in SQuAD, Rajpurkar et al. 2016), 0 to 1."""
    given, wanted = Counter(words_of(answer)), Counter(words_of(expected))
    if not given or not wanted:
        return float(given == wanted)
    common = (given & wanted).total()
    return 2 * common / (given.total() + wanted.total())


def _array(values: Sequence[float]) -> Array:
    return np.array(values, dtype=np.float64)
