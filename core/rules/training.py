"""What of measuring, saving, packing, lengths and the start of a run does not go together."""

from __future__ import annotations

from collections.abc import Iterator

from core.config import RunConfig
from core.config.derived import as_run
from core.errors import Problem


def training_rules(config: RunConfig) -> Iterator[Problem]:
    yield from _machine_rules(config)
    yield from _measuring_rules(config)
    yield from _best_metric_rules(config)
    yield from _best_checkpoint_rules(config)
    yield from _packing_rules(config)
    yield from _length_rules(config)
    yield from _chain_rules(config)


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


def _chain_rules(config: RunConfig) -> Iterator[Problem]:
    """What a run that begins with another one has to keep, as far as its own settings tell."""
    model = config.model
    if model.start_from == "base" and model.from_run:
        yield Problem(
            "model.from_run",
            f"{model.from_run} with model.start_from base: it would have no effect. Set "
            "start_from to merge, stack or continue, or leave the run out.",
            ("model.start_from",),
        )
    if model.start_from != "base" and not model.from_run:
        yield Problem(
            "model.from_run",
            f"empty with model.start_from {model.start_from}: name the run to begin with.",
            ("model.start_from",),
        )
    quantization: str = config.adapter.quantization
    if model.start_from == "stack" and quantization != "none":
        yield Problem(
            "model.start_from",
            f"stack with adapter.quantization {quantization}: the adapter beneath would be "
            "rounded away. Take merge, which quantizes the merged model.",
            ("adapter.quantization",),
        )
