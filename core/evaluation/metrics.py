"""What is measured of a model, and every number that is counted from it.

A metric is a method of what was measured, and so of the models that it applies to. It is named by
its key (transformers' or TRL's name where they have one), gives its number with the 95 % interval,
None where the rows do not have it, and is declared with its title and meaning. What is counted from
answers alone stands in `core.evaluation.answers`. Reports, page and shell find all of them here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from core.evaluation.answers import answer_metrics
from core.evaluation.answers.metric import Answered
from core.evaluation.intervals import Estimate, clustered_share, mean, ratio, share
from core.evaluation.label_curves import bins, calibration_error, two_class_scores
from core.evaluation.label_scores import Flags, Truth, macro_f1, means, right_rows
from core.evaluation.scoring import FieldRule, Scored
from core.language import N_, Said

Array = NDArray[np.float64]
Parts = dict[str, Estimate]
"""A number for each part of an answer, by the part's name."""
Numbers = dict[str, Estimate | Parts]

# Beyond this perplexity is a number that no reader can use, and exp overflows later.
_HIGHEST_LOSS = 50.0


@dataclass(frozen=True)
class Metric:
    """A number of a report; one of parts has a line for each, titled with the part's name too."""

    key: str
    count: Callable[[Any], Estimate | Parts | None]
    unit: Literal["share", "nats", ""]
    better: Literal["higher", "lower"]
    title: Said = Said()
    meaning: Said = Said()
    of: type | None = None
    """Of what was measured; None of the class in which it is declared."""

    @property
    def is_share(self) -> bool:
        return self.unit == "share"


METRICS: dict[str, Metric] = {}
"""Every metric by its key, in the order that they are shown."""


def metric(
    title: str,
    meaning: str,
    unit: Literal["share", "nats", ""] = "",
    better: Literal["higher", "lower"] = "higher",
) -> Callable[[Any], Any]:
    """Declares a method as a metric."""

    def declare(count: Any) -> Any:
        METRICS[count.__name__] = Metric(count.__name__, count, unit, better, title, meaning)
        return count

    return declare


@dataclass(frozen=True)
class Written:
    """What a model that writes or fills gaps did: for each row the sum of its loss (nats) and the
    tokens that carry it, None where nobody can tell; its answers, None where the rows have no
    question, and how fast they came."""

    sums: Array | None
    tokens: Array | None
    scored: Scored | None = None
    rules: Sequence[FieldRule] = ()
    expected: Sequence[str] = ()
    pattern: str = ""
    speed: float | None = None

    @property
    def by_field(self) -> Scored | None:
        """The answers, where they are scored by their fields."""
        return self.scored if self.rules else None

    @property
    def as_whole(self) -> Scored | None:
        return None if self.rules else self.scored

    @metric(N_("Fields right"), N_("Share of the fields of all answers that are right"), "share")
    def all_fields(self) -> Estimate | None:
        found = self.by_field
        return clustered_share(found.scores, len(self.rules)) if found else None

    @metric(N_("Rows right"), N_("Share of rows with every exact field right"), "share")
    def exact_rows(self) -> Estimate | None:
        found, exact = self.by_field, {r.name for r in self.rules if r.score == "exact"}
        if not (found and exact):
            return None
        return share(sum(exact <= set(names) for names in found.right), len(found.right))

    @metric(N_("Valid JSON"), N_("Share of answers that can be read as JSON"), "share")
    def valid_json(self) -> Estimate | None:
        found = self.by_field
        return share(float(found.parsed.sum()), len(found.parsed)) if found else None

    @metric(N_("Same answer"), N_("Share of answers equal to the expected one"), "share")
    def exact_match(self) -> Estimate | None:
        found = self.as_whole
        return share(float(found.equal.sum()), len(found.equal)) if found else None

    @metric(N_("Words in common"), N_("F1 of the words of answer and expected answer"), "share")
    def token_f1(self) -> Estimate | None:
        return mean(self.as_whole.scores) if self.as_whole else None

    @metric(
        N_("Eval loss"),
        N_("Mean of -ln p over the tokens of the expected answers"),
        "nats",
        "lower",
    )
    def eval_loss(self) -> Estimate | None:
        if self.sums is None or self.tokens is None:
            return None
        return ratio(self.sums, self.tokens)

    @metric(
        N_("Perplexity"), N_("exp of the loss: choices the model wavers between"), better="lower"
    )
    def perplexity(self) -> Estimate | None:
        loss = self.eval_loss()
        return loss.mapped(perplexity) if loss else None

    @metric(N_("Tokens a second"), N_("Written while the rows were answered, several at once"))
    def tokens_per_second(self) -> Estimate | None:
        return None if self.speed is None else Estimate(self.speed)

    @metric(N_("Field"), N_("Right means exactly the same"), "share")
    def fields(self) -> Parts | None:
        if self.by_field is None:
            return None
        right, names = self.by_field.right, [rule.name for rule in self.rules]
        return {name: share(sum(name in row for row in right), len(right)) for name in names}


@dataclass(frozen=True)
class Labelled:
    """What a classifier did: the labels it gave, (rows, labels), those there are, and its
    probabilities."""

    given: Flags
    truth: Truth
    chances: Array

    def _mean(self, key: str) -> Estimate:
        return Estimate(means(self.given, self.truth)[key])

    @metric(N_("Labels right"), N_("Share of rows that were given exactly their labels"), "share")
    def accuracy(self) -> Estimate:
        right = right_rows(self.given, self.truth)
        return share(float(right.sum()), len(right))

    @metric(N_("F1, macro"), N_("Mean over the labels of precision and recall together"), "share")
    def f1_macro(self) -> Estimate:
        return macro_f1(self.given, self.truth)

    @metric(N_("F1, weighted"), N_("The same, each label by how many rows have it"), "share")
    def f1_weighted(self) -> Estimate:
        return self._mean("f1_weighted")

    @metric(N_("Precision, macro"), N_("Of rows given a label, the share that has it"), "share")
    def precision_macro(self) -> Estimate:
        return self._mean("precision_macro")

    @metric(N_("Recall, macro"), N_("Of rows that have a label, the share given it"), "share")
    def recall_macro(self) -> Estimate:
        return self._mean("recall_macro")

    @metric(
        N_("Calibration error"),
        N_("How far its probabilities are from the share that is right, on average (ECE)"),
        better="lower",
    )
    def ece(self) -> Estimate:
        return Estimate(calibration_error(bins(self.given, self.chances, self.truth)))

    @metric(N_("Area under the ROC curve"), N_("0.5 is chance, 1 tells both labels apart"))
    def roc_auc(self) -> Estimate | None:
        return self._of_two("roc_auc_score")

    @metric(N_("Average precision"), N_("Area under the curve of precision and recall"))
    def average_precision(self) -> Estimate | None:
        return self._of_two("average_precision_score")

    def _of_two(self, name: str) -> Estimate | None:
        import sklearn.metrics

        two = two_class_scores(self.chances, self.truth)
        return Estimate(float(getattr(sklearn.metrics, name)(two[1], two[0]))) if two else None


@dataclass(frozen=True)
class Paired:
    """What a reward model did: the scores of the better and of the worse answer of each pair."""

    better: Array
    worse: Array

    @metric(N_("Pairs right"), N_("Share of pairs whose better answer scores higher"), "share")
    def pair_accuracy(self) -> Estimate:
        return share(float((self.better > self.worse).sum()), len(self.better))

    @metric(N_("Margin"), N_("Mean score of the better answers less that of the worse ones"))
    def margin(self) -> Estimate:
        return mean(self.better - self.worse)

    @metric(N_("Better answers"), N_("Their mean score"))
    def score_chosen(self) -> Estimate:
        return mean(self.better)

    @metric(N_("Worse answers"), N_("Their mean score"), better="lower")
    def score_rejected(self) -> Estimate:
        return mean(self.worse)


@dataclass(frozen=True)
class Rewarded:
    """What a model's answers got: (rows, functions), NaN where a function does not apply."""

    answers: list[str]
    given: Array
    names: Sequence[str]
    weights: Array

    @property
    def totals(self) -> Array:
        """(rows,): the weighted sum, NaN where no function applies."""
        found: Array = np.nansum(self.given * self.weights, axis=1)
        found[np.isnan(self.given).all(axis=1)] = np.nan
        return found

    @metric(N_("Mean reward"), N_("Sum of all functions, each times its weight"))
    def reward(self) -> Estimate:
        return _mean_of_known(self.totals)

    @metric(N_("Reward"), N_("Mean of this function alone"))
    def rewards(self) -> Parts | None:
        if len(self.names) < 2:
            return None
        columns = zip(self.names, self.given.T, strict=True)
        return {name: _mean_of_known(one) for name, one in columns if not np.isnan(one).all()}


@dataclass(frozen=True)
class Chosen:
    """What a model said to questions: (rows,) whether it is right, 0 or 1, and the same by the sum
    of a choice's log-likelihood alone, NaN where there are no choices."""

    given: list[str]
    right: Array
    unscaled: Array

    @metric(
        N_("Questions right"),
        N_(
            "Share of rows whose right choice is the most probable one, by log-likelihood over "
            "length (acc_norm); without choices, whose answer has the expected one in it"
        ),
        "share",
    )
    def acc_norm(self) -> Estimate:
        return share(float(self.right.sum()), len(self.right))

    @metric(
        N_("Right, length left out"),
        N_("By the log-likelihood of the whole choice (acc), which prefers short ones"),
        "share",
    )
    def acc(self) -> Estimate | None:
        known = self.unscaled[~np.isnan(self.unscaled)]
        return share(float(known.sum()), len(known)) if len(known) else None


@dataclass(frozen=True)
class Tasked:
    """What lm-eval counted of the tasks that were asked for, of the parts of groups of them, and
    what is no share; the questions of all tasks, each with its task and as lm-eval keeps it, and
    their scores by the `main` metric of their task. `rows` are those measured and those there are,
    `shots` the examples before each question."""

    asked: Parts
    parts: Parts
    others: Parts
    scores: Array
    samples: list[tuple[str, Any]]
    main: dict[str, str]
    rows: dict[str, tuple[int, int]]
    shots: dict[str, int]

    def by_task(self) -> dict[str, Array]:
        """The scores of each task's questions."""
        names = np.array([name for name, _sample in self.samples])
        return {name: self.scores[names == name] for name in self.main}

    @metric(N_("Task"), N_("As lm-eval counts it, with its standard error"), "share")
    def tasks(self) -> Parts | None:
        return self.asked or None

    @metric(N_("All questions"), N_("Share of the questions of all tasks that are right"), "share")
    def all_tasks(self) -> Estimate | None:
        return _mean_of_known(self.scores) if len(self.main) > 1 else None

    @metric(N_("Task"), N_("As lm-eval counts it, with its standard error"))
    def task_numbers(self) -> Parts | None:
        return self.others or None

    @metric(N_("Part"), N_("A task of a group, as lm-eval counts it"), "share")
    def subtasks(self) -> Parts | None:
        return self.parts or None


METRICS["subtasks"] = replace(METRICS["subtasks"], of=Tasked)  # folded, for there may be fifty

Measured = Written | Labelled | Paired | Rewarded | Chosen | Tasked


def numbers_of(measured: Measured) -> Numbers:
    """All numbers that what was measured has."""
    kind = type(measured)
    its_own = [m for m in METRICS.values() if m.of is kind or getattr(kind, m.key, None) is m.count]
    found = {metric.key: metric.count(measured) for metric in its_own}
    return {key: number for key, number in found.items() if number is not None}


def _of_answers(key: str) -> Callable[[Written], Estimate | None]:
    def count(written: Written) -> Estimate | None:
        if written.scored is None:
            return None
        rows = Answered(
            written.scored.answers, written.expected, bool(written.rules), written.pattern
        )
        one = answer_metrics()[key]
        return one.count(rows) if one.fits(rows) else None

    return count


def difference_of(tuned: Measured, base: Measured) -> Parts:
    """Tuned minus base on the same rows, in pairs: of the loss and what the answers are compared
    by (score), of right questions (score), or of the reward."""
    if isinstance(tuned, Rewarded) and isinstance(base, Rewarded):
        apart = tuned.totals - base.totals
        return {"reward": mean(apart[~np.isnan(apart)])}
    if isinstance(tuned, Chosen) and isinstance(base, Chosen):
        return {"score": mean(tuned.right - base.right)}
    if isinstance(tuned, Tasked) and isinstance(base, Tasked):
        return {"score": mean(tuned.scores - base.scores)} if len(tuned.scores) else {}
    assert isinstance(tuned, Written) and isinstance(base, Written), "others have no base"
    found: Parts = {}
    if tuned.sums is not None and base.sums is not None and base.tokens is not None:
        found["eval_loss"] = ratio(tuned.sums - base.sums, base.tokens)
    if tuned.scored and base.scored:
        found["score"] = mean(tuned.scored.scores - base.scored.scores)
    return found


for _key, _one in answer_metrics().items():
    METRICS[_key] = Metric(
        _key, _of_answers(_key), _one.unit, _one.better, _one.title, _one.meaning, Written
    )


def perplexity(loss: float) -> float:
    """exp of a loss in nats a token."""
    return math.exp(min(loss, _HIGHEST_LOSS))


def _mean_of_known(values: Array) -> Estimate:
    """The mean with its interval, which stays open where every answer is right, or none."""
    known = values[~np.isnan(values)]
    if np.isin(known, (0.0, 1.0)).all():
        return share(float(known.sum()), len(known))
    return mean(known)
