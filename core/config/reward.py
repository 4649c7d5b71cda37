"""The rules of a run that learns a reward model (`method: reward`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from core.errors import Problem

if TYPE_CHECKING:
    from core.config.run import RunConfig

METRICS = ("accuracy", "margin", "mean_reward", "min_reward", "max_reward")
"""What an evaluation of a reward model measures beside its loss, by TRL's names."""


def reward_rules(config: RunConfig) -> Iterator[Problem]:
    """The rules of a reward model; none for other methods."""
    if config.method != "reward":
        return
    evaluation = config.evaluation
    if config.training.packing:
        yield Problem(
            "training.packing",
            "on with method reward: answers are compared one by one. Turn it off.",
            ("method",),
        )
    if evaluation.eval_strategy == "no":
        return
    best = evaluation.metric_for_best_model.removeprefix("eval_")
    if best not in ("loss", *METRICS):
        yield Problem(
            "evaluation.metric_for_best_model",
            f"{evaluation.metric_for_best_model} is not measured with method reward. There are: "
            f"eval_loss, {', '.join(f'eval_{name}' for name in METRICS)}.",
            ("method",),
        )
    elif best in ("accuracy", "margin") and not evaluation.greater_is_better:
        yield Problem(
            "evaluation.greater_is_better",
            f"off with evaluation.metric_for_best_model {evaluation.metric_for_best_model}: the "
            "worst checkpoint would count as the best. Turn it on.",
            ("evaluation.metric_for_best_model",),
        )
