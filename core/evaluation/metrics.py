"""What is measured of a model, and every number that is counted from it.

A metric is the function that counts it, declared with its key (transformers' or TRL's name where
they have one), its title and its meaning. Reports, page and shell find it here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from core.evaluation.intervals import Estimate, clustered_share, mean, ratio, share
from core.evaluation.label_scores import Flags, Truth, macro_f1, means, right_rows
from core.evaluation.scoring import FieldRule, Scored

Array = NDArray[np.float64]
Parts = dict[str, Estimate]
"""A number for each part of an answer, by the part's name."""
Numbers = dict[str, Estimate | Parts]

# Beyond this perplexity is a number that no reader can use, and exp overflows later.
_HIGHEST_LOSS = 50.0


@dataclass(frozen=True)
class Written:
    """What a model that writes or fills gaps did: for each row the sum of its loss (nats) and the
    tokens that carry it; its answers, None where the rows have no question."""

    sums: Array
    tokens: Array
    scored: Scored | None = None
    rules: Sequence[FieldRule] = ()


@dataclass(frozen=True)
class Labelled:
    """What a classifier did: the labels it gave, (rows, labels), those there are, and its
    probabilities."""

    given: Flags
    truth: Truth
    chances: Array


@dataclass(frozen=True)
class Paired:
    """What a reward model did: the scores of the better and of the worse answer of each pair."""

    better: Array
    worse: Array


@dataclass(frozen=True)
class Rewarded:
    """What a model's answers got: (rows, functions), NaN where a function does not apply."""

    answers: list[str]
    rewards: Array
    names: Sequence[str]
    weights: Array

    @property
    def totals(self) -> Array:
        """(rows,): the weighted sum, NaN where no function applies."""
        found: Array = np.nansum(self.rewards * self.weights, axis=1)
        found[np.isnan(self.rewards).all(axis=1)] = np.nan
        return found


Measured = Written | Labelled | Paired | Rewarded


@dataclass(frozen=True)
class Metric:
    """A number of a report.

    `of` is what it is counted from, and so to which models it applies. `count` gives it with its
    95 % interval, or None where these rows do not have it. A metric of parts has a line for each,
    titled with the part's name.
    """

    key: str
    title: str
    meaning: str
    of: type[Any]
    count: Callable[[Any], Estimate | Parts | None]
    unit: Literal["share", "nats", ""] = ""
    better: Literal["higher", "lower"] = "higher"

    @property
    def is_share(self) -> bool:
        return self.unit == "share"


METRICS: dict[str, Metric] = {}
"""Every metric by its key, in the order that they are shown."""


def numbers_of(measured: Measured) -> Numbers:
    """All numbers that what was measured has."""
    found = {m.key: m.count(measured) for m in METRICS.values() if isinstance(measured, m.of)}
    return {key: number for key, number in found.items() if number is not None}


def difference_of(tuned: Measured, base: Measured) -> Parts:
    """Tuned minus base on the same rows, in pairs: of the loss and what the answers are compared
    by (score), or of the reward."""
    if isinstance(tuned, Rewarded) and isinstance(base, Rewarded):
        apart = tuned.totals - base.totals
        return {"reward": mean(apart[~np.isnan(apart)])}
    assert isinstance(tuned, Written) and isinstance(base, Written), "others have no base"
    found = {"eval_loss": ratio(tuned.sums - base.sums, base.tokens)}
    if tuned.scored and base.scored:
        found["score"] = mean(tuned.scored.scores - base.scored.scores)
    return found


def _metric(of: type[Any], key: str, title: str, meaning: str, **more: Any) -> Any:
    def declare(count: Any) -> Any:
        METRICS[key] = Metric(key, title, meaning, of, count, **more)
        return count

    return declare


def _share_metric(of: type[Any], key: str, title: str, meaning: str) -> Any:
    return _metric(of, key, title, meaning, unit="share")


@_share_metric(
    Written, "all_fields", "Fields right", "Share of the fields of all answers that are right"
)
def _all_fields(found: Written) -> Estimate | None:
    if not (found.scored and found.rules):
        return None
    return clustered_share(found.scored.scores, len(found.rules))


@_share_metric(Written, "exact_rows", "Rows right", "Share of rows with every exact field right")
def _exact_rows(found: Written) -> Estimate | None:
    exact = {rule.name for rule in found.rules if rule.score == "exact"}
    if not (found.scored and exact):
        return None
    right = found.scored.right
    return share(sum(exact <= set(names) for names in right), len(right))


@_share_metric(Written, "valid_json", "Valid JSON", "Share of answers that can be read as JSON")
def _valid_json(found: Written) -> Estimate | None:
    if not (found.scored and found.rules):
        return None
    return share(float(found.scored.parsed.sum()), len(found.scored.parsed))


@_share_metric(Written, "exact_match", "Same answer", "Share of answers equal to the expected one")
def _exact_match(found: Written) -> Estimate | None:
    if found.scored is None or found.rules:
        return None
    return share(float(found.scored.equal.sum()), len(found.scored.equal))


@_share_metric(
    Labelled, "accuracy", "Labels right", "Share of rows that were given exactly their labels"
)
def _accuracy(found: Labelled) -> Estimate:
    right = right_rows(found.given, found.truth)
    return share(float(right.sum()), len(right))


@_share_metric(
    Labelled, "f1_macro", "F1, macro", "Mean over the labels of precision and recall together"
)
def _f1_macro(found: Labelled) -> Estimate:
    return macro_f1(found.given, found.truth)


@_share_metric(
    Labelled, "f1_weighted", "F1, weighted", "The same, each label by how many rows have it"
)
def _f1_weighted(found: Labelled) -> Estimate:
    return Estimate(means(found.given, found.truth)["f1_weighted"])


@_share_metric(
    Labelled,
    "precision_macro",
    "Precision, macro",
    "Of rows given a label, the share that has it",
)
def _precision_macro(found: Labelled) -> Estimate:
    return Estimate(means(found.given, found.truth)["precision_macro"])


@_share_metric(
    Labelled, "recall_macro", "Recall, macro", "Of rows that have a label, the share given it"
)
def _recall_macro(found: Labelled) -> Estimate:
    return Estimate(means(found.given, found.truth)["recall_macro"])


@_share_metric(
    Paired, "pair_accuracy", "Pairs right", "Share of pairs whose better answer scores higher"
)
def _pair_accuracy(found: Paired) -> Estimate:
    return share(float((found.better > found.worse).sum()), len(found.better))


@_metric(Paired, "margin", "Margin", "Mean score of the better answers less that of the worse ones")
def _margin(found: Paired) -> Estimate:
    return mean(found.better - found.worse)


@_metric(Paired, "score_chosen", "Better answers", "Their mean score")
def _score_chosen(found: Paired) -> Estimate:
    return mean(found.better)


@_metric(Paired, "score_rejected", "Worse answers", "Their mean score", better="lower")
def _score_rejected(found: Paired) -> Estimate:
    return mean(found.worse)


@_metric(Rewarded, "reward", "Mean reward", "Sum of all functions, each times its weight")
def _reward(found: Rewarded) -> Estimate:
    return _mean_of_known(found.totals)


@_share_metric(
    Written, "token_f1", "Words in common", "F1 of the words of answer and expected answer"
)
def _token_f1(found: Written) -> Estimate | None:
    return None if found.scored is None or found.rules else mean(found.scored.scores)


@_metric(
    Written,
    "eval_loss",
    "Eval loss",
    "Mean of -ln p over the tokens of the expected answers",
    unit="nats",
    better="lower",
)
def _eval_loss(found: Written) -> Estimate:
    return ratio(found.sums, found.tokens)


@_metric(
    Written,
    "perplexity",
    "Perplexity",
    "exp of the loss: choices the model wavers between",
    better="lower",
)
def _perplexity(found: Written) -> Estimate:
    return ratio(found.sums, found.tokens).mapped(perplexity)


@_share_metric(Written, "fields", "Field", "Right means exactly the same")
def _fields(found: Written) -> Parts | None:
    if not (found.scored and found.rules):
        return None
    right = found.scored.right
    return {
        rule.name: share(sum(rule.name in names for names in right), len(right))
        for rule in found.rules
    }


@_metric(Rewarded, "rewards", "Reward", "Mean of this function alone")
def _rewards(found: Rewarded) -> Parts | None:
    if len(found.names) < 2:
        return None
    return {
        name: _mean_of_known(values)
        for name, values in zip(found.names, found.rewards.T, strict=True)
        if not np.isnan(values).all()
    }


def perplexity(loss: float) -> float:
    """exp of a loss in nats a token."""
    return math.exp(min(loss, _HIGHEST_LOSS))


def _mean_of_known(values: Array) -> Estimate:
    """The mean with its interval, which stays open where every answer is right, or none."""
    known = values[~np.isnan(values)]
    if np.isin(known, (0.0, 1.0)).all():
        return share(float(known.sum()), len(known))
    return mean(known)
