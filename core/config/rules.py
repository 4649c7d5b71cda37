"""The rules that span fields and need nothing but the config. Each names all its fields."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from core.config.adapter_rules import adapter_rules
from core.config.chain import chain_rules
from core.config.classification import as_run, classification_rules
from core.config.extra import REFUSED, config_fields, wrong_extra_value
from core.config.fields import FieldSpec
from core.config.optimizer_rules import measured_rules, optimizer_rules, schedule_rules
from core.config.preference import preference_rules
from core.config.reinforcement import reinforcement_rules
from core.config.text import text_rules
from core.config.vocabulary import vocabulary_rules
from core.errors import Problem

if TYPE_CHECKING:
    from core.config.run import RunConfig


def broken_rules(config: RunConfig, own_fields: Mapping[str, FieldSpec]) -> list[Problem]:
    """Every broken rule. `own_fields` are the dotted paths that have a field of their own."""
    return [
        *adapter_rules(config),
        *_machine_rules(config),
        *_measuring_rules(config),
        *_best_metric_rules(config),
        *_best_checkpoint_rules(config),
        *_packing_rules(config),
        *_length_rules(config),
        *measured_rules(config),
        *optimizer_rules(config),
        *schedule_rules(config),
        *chain_rules(config),
        *classification_rules(config),
        *preference_rules(config),
        *reinforcement_rules(config),
        *text_rules(config),
        *vocabulary_rules(config),
        *_extra_rules(config, own_fields),
    ]


def _machine_rules(config: RunConfig) -> Iterator[Problem]:
    training = config.training
    if training.precision == "fp16" and training.device == "cpu":
        yield Problem(
            "training.precision",
            "fp16 with training.device cpu: a CPU trains in bf16 or fp32. Set precision to auto.",
            ("training.device",),
        )


def _measuring_rules(config: RunConfig) -> Iterator[Problem]:
    """What needs a measured loss, and what the measure means."""
    evaluation, tracking = config.evaluation, config.tracking
    stops_early = evaluation.early_stopping_patience is not None
    if evaluation.eval_strategy == "no" and stops_early:
        yield Problem(
            "evaluation.early_stopping_patience",
            "early stopping with evaluation.eval_strategy no: nothing is measured. Evaluate "
            "by steps or epoch.",
            ("evaluation.eval_strategy",),
        )
    if tracking.save_strategy == "no" and stops_early:
        yield Problem(
            "tracking.save_strategy",
            "no checkpoints with evaluation.early_stopping_patience: the best one could not be "
            "restored. Save by steps or epoch.",
            ("evaluation.early_stopping_patience",),
        )


def _best_metric_rules(config: RunConfig) -> Iterator[Problem]:
    """The metric that tells the best checkpoint is one that is measured, and its direction is
    right."""
    method, evaluation = config.training_method, config.evaluation
    best = evaluation.metric_for_best_model
    measured = as_run(config).evaluation.eval_strategy != "no"
    known = [f"eval_{metric.name.removeprefix('*')}" for metric in method.metrics]
    is_known = f"eval_{best.removeprefix('eval_')}" in known
    if measured and method.measures_only_these and not is_known:
        yield Problem(
            "evaluation.metric_for_best_model",
            f"{best} is not measured with method {method.name}. There are: {', '.join(known)}.",
            ("method",),
        )
    better = method.better(best)
    if better == "lower" and evaluation.greater_is_better:
        kind = "perplexity" if best.endswith("perplexity") else "loss"
        wrong, mend = "on", f"Turn it off for a {kind}."
    elif measured and better == "higher" and not evaluation.greater_is_better:
        wrong, mend = "off", "Turn it on."
    else:
        return
    yield Problem(
        "evaluation.greater_is_better",
        f"{wrong} with evaluation.metric_for_best_model {best}: the worst checkpoint would count "
        f"as the best. {mend}",
        ("evaluation.metric_for_best_model",),
    )


def _packing_rules(config: RunConfig) -> Iterator[Problem]:
    why = config.training_method.why_not_packed
    if config.training.packing and why:
        yield Problem(
            "training.packing", f"on with method {config.method}: {why}. Turn it off.", ("method",)
        )


def _best_checkpoint_rules(config: RunConfig) -> Iterator[Problem]:
    """The best checkpoint can be kept only if each evaluation it may choose has one."""
    evaluation, tracking = config.evaluation, config.tracking
    if evaluation.eval_strategy == "no":
        if evaluation.load_best_model_at_end:
            yield Problem(
                "evaluation.load_best_model_at_end",
                "the best checkpoint with evaluation.eval_strategy no: nothing is measured. "
                "Evaluate by steps or epoch.",
                ("evaluation.eval_strategy",),
            )
        return
    stops_early = evaluation.early_stopping_patience is not None
    if not evaluation.load_best_model_at_end and not (
        stops_early and tracking.save_strategy != "no"
    ):
        return
    if tracking.save_strategy != evaluation.eval_strategy:
        yield Problem(
            "tracking.save_strategy",
            f"{tracking.save_strategy} with evaluation.eval_strategy {evaluation.eval_strategy}: "
            "to keep the best checkpoint, save when you evaluate.",
            ("evaluation.eval_strategy",),
        )
    elif tracking.save_strategy == "steps" and tracking.save_steps % evaluation.eval_steps:
        yield Problem(
            "tracking.save_steps",
            f"{tracking.save_steps} is not a multiple of evaluation.eval_steps "
            f"({evaluation.eval_steps}): to keep the best checkpoint, save when you evaluate.",
            ("evaluation.eval_steps",),
        )


def _length_rules(config: RunConfig) -> Iterator[Problem]:
    training = config.training
    if training.max_steps == 0:
        yield Problem(
            "training.max_steps",
            "0 would train nothing. Give a number of steps, or -1 to go by "
            "training.num_train_epochs.",
            ("training.num_train_epochs",),
        )


def _extra_rules(config: RunConfig, own_fields: Mapping[str, FieldSpec]) -> Iterator[Problem]:
    method = config.training_method
    known = config_fields(method)
    refused = REFUSED | dict(method.refused_arguments)
    own = {
        spec.name: path
        for path, spec in own_fields.items()
        if method.name in spec.when.get("method", [method.name])  # others' say nothing of it
    } | dict(method.other_names)
    for key, value in config.training.extra.items():
        if key in own:
            message = f"{key} has its own field: set {own[key]}."
        elif key in refused:
            message = f"{key} is not allowed here: {refused[key]}."
        elif key in method.idle_arguments:
            message = f"{key} does nothing with method {method.name}."
        elif key not in known:
            near = difflib.get_close_matches(key, sorted(known), n=1)
            message = f"{key} is not a field of {method.arguments.name}" + (
                f"; did you mean {near[0]}?" if near else "."
            )
        else:
            message = wrong_extra_value(method, key, value)
        if message:
            yield Problem("training.extra", message)
