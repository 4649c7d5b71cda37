"""From what was measured to the report: numbers with intervals, the rows that differ, a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.evaluation.intervals import Estimate, clustered_share, mean, ratio, share
from core.evaluation.rows import EvalRow
from core.evaluation.scoring import FieldRule, fields_right, parse_object, same_value, token_f1

Array = NDArray[np.float64]

# Beyond this perplexity is a number that no reader can use, and exp overflows later.
_HIGHEST_LOSS = 50.0
_MOST_DIFFERENCES = 200


@dataclass(frozen=True)
class Measured:
    """One model on the rows: sums of the loss (nats), tokens that carry it, and its answers.

    `answers` is None when the rows have no question.
    """

    sums: Array
    tokens: Array
    answers: list[str] | None


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
    answers: Sequence[str], rows: Sequence[EvalRow], rules: Sequence[FieldRule]
) -> Scored:
    """Compares each answer with the row's expected one; by fields when there are `rules`."""
    expected = [row.expected or "" for row in rows]
    right = [fields_right(a, e, rules) for a, e in zip(answers, expected, strict=True)]
    if rules:
        scores = [len(names) / len(rules) for names in right]
    else:
        scores = [token_f1(a, e) for a, e in zip(answers, expected, strict=True)]
    equal = [same_value(a, e) for a, e in zip(answers, expected, strict=True)]
    parsed = [parse_object(answer) is not None for answer in answers]
    return Scored(list(answers), right, _array(scores), _array(equal), _array(parsed))


def summarize_side(
    measured: Measured, scored: Scored | None, rules: Sequence[FieldRule]
) -> dict[str, Any]:
    """The numbers of one model, each {"value", "low", "high"}."""
    loss = ratio(measured.sums, measured.tokens)
    numbers: dict[str, Any] = {
        "eval_loss": loss.as_dict(),
        "perplexity": loss.mapped(lambda x: math.exp(min(x, _HIGHEST_LOSS))).as_dict(),
    }
    if scored is None:
        return numbers
    rows = len(scored.right)
    if rules:
        counts = {r.name: sum(r.name in names for names in scored.right) for r in rules}
        numbers["fields"] = {name: share(n, rows).as_dict() for name, n in counts.items()}
        numbers["all_fields"] = clustered_share(scored.scores, len(rules)).as_dict()
        exact = {rule.name for rule in rules if rule.score == "exact"}
        if exact:
            whole = sum(exact <= set(names) for names in scored.right)
            numbers["exact_rows"] = share(whole, rows).as_dict()
        numbers["valid_json"] = share(float(scored.parsed.sum()), rows).as_dict()
    else:
        numbers["exact_match"] = share(float(scored.equal.sum()), rows).as_dict()
        numbers["token_f1"] = mean(scored.scores).as_dict()
    return numbers


def difference(
    base: Measured, tuned: Measured, base_scored: Scored | None, tuned_scored: Scored | None
) -> dict[str, Any]:
    """Tuned minus base on the same rows, in pairs: {"eval_loss", "score"?}."""
    found = {"eval_loss": ratio(tuned.sums - base.sums, base.tokens).as_dict()}
    if base_scored and tuned_scored:
        found["score"] = mean(tuned_scored.scores - base_scored.scores).as_dict()
    return found


def differing_rows(
    rows: Sequence[EvalRow],
    rules: Sequence[FieldRule],
    base: Scored | None,
    tuned: Scored | None,
) -> list[dict[str, Any]]:
    """The rows where the two answers differ or the tuned one is not right, worst of tuned first.

    At most 200; answers.jsonl has every row.
    """
    if tuned is None:
        return []
    found: list[dict[str, Any]] = []
    for place, row in enumerate(rows):
        whole = tuned.scores[place] == 1.0
        if whole and (base is None or base.answers[place] == tuned.answers[place]):
            continue
        found.append(
            {
                "index": row.index,
                "prompt": row.prompt,
                "expected": row.expected,
                "base": base.answers[place] if base else None,
                "tuned": tuned.answers[place],
                "base_fields_right": base.right[place] if base and rules else None,
                "tuned_fields_right": tuned.right[place] if rules else None,
                "base_score": float(base.scores[place]) if base else None,
                "tuned_score": float(tuned.scores[place]),
            }
        )
    found.sort(key=lambda item: (item["tuned_score"], -(item["base_score"] or 0), item["index"]))
    return found[:_MOST_DIFFERENCES]


def estimate(numbers: dict[str, Any], name: str) -> Estimate:
    """The estimate that `summarize_side` or `difference` wrote down under `name`."""
    return Estimate(**numbers[name])


def _array(values: Sequence[float]) -> Array:
    return np.array(values, dtype=np.float64)
