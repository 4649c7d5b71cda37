"""The rules that span fields and need nothing but the config. Each names all its fields."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from core.config.extra import REFUSED, sft_config_fields, wrong_extra_value
from core.errors import Problem

if TYPE_CHECKING:
    from core.config.run import RunConfig


def broken_rules(config: RunConfig, own_fields: Collection[str]) -> list[Problem]:
    """Every broken rule. `own_fields` are the dotted paths that have a field of their own."""
    return [
        *_adapter_rules(config),
        *_measuring_rules(config),
        *_best_checkpoint_rules(config),
        *_schedule_rules(config),
        *_extra_rules(config.training.extra, own_fields),
    ]


def _adapter_rules(config: RunConfig) -> Iterator[Problem]:
    adapter, training = config.adapter, config.training
    if adapter.quantization != "none" and adapter.method == "none":
        yield Problem(
            "adapter.quantization",
            f"{adapter.quantization} with adapter.method none: quantized weights cannot be trained "
            "in full. Train LoRA, or set quantization to none.",
            ("adapter.method",),
        )
    if training.precision == "fp16" and training.device == "cpu":
        yield Problem(
            "training.precision",
            "fp16 with training.device cpu: a CPU trains in bf16 or fp32. Set precision to auto.",
            ("training.device",),
        )
    if adapter.method == "none":
        return
    if isinstance(adapter.target_modules, list) and not adapter.target_modules:
        yield Problem(
            "adapter.target_modules",
            "empty with adapter.method lora: there would be nothing to train. Name modules, or "
            "use all-linear.",
            ("adapter.method",),
        )
    if adapter.init_lora_weights not in ("pissa", "olora"):
        return
    if adapter.use_dora:
        yield Problem(
            "adapter.init_lora_weights",
            f"{adapter.init_lora_weights} with adapter.use_dora: choose one of the two.",
            ("adapter.use_dora",),
        )
    if adapter.quantization != "none":
        yield Problem(
            "adapter.init_lora_weights",
            f"{adapter.init_lora_weights} with adapter.quantization {adapter.quantization}: it "
            "changes the base weights, which are quantized. Use default.",
            ("adapter.quantization",),
        )


def _measuring_rules(config: RunConfig) -> Iterator[Problem]:
    """What needs a measured loss, and what the measure means."""
    training, evaluation, tracking = config.training, config.evaluation, config.tracking
    stops_early = evaluation.early_stopping_patience is not None
    if evaluation.eval_strategy == "no":
        if stops_early:
            yield Problem(
                "evaluation.early_stopping_patience",
                "early stopping with evaluation.eval_strategy no: nothing is measured. Evaluate "
                "by steps or epoch.",
                ("evaluation.eval_strategy",),
            )
        if training.lr_scheduler_type == "reduce_lr_on_plateau":
            yield Problem(
                "training.lr_scheduler_type",
                "reduce_lr_on_plateau with evaluation.eval_strategy no: it needs a measured loss. "
                "Evaluate by steps or epoch.",
                ("evaluation.eval_strategy",),
            )
    if tracking.save_strategy == "no" and stops_early:
        yield Problem(
            "tracking.save_strategy",
            "no checkpoints with evaluation.early_stopping_patience: the best one could not be "
            "restored. Save by steps or epoch.",
            ("evaluation.early_stopping_patience",),
        )
    if evaluation.greater_is_better and evaluation.metric_for_best_model.endswith("loss"):
        yield Problem(
            "evaluation.greater_is_better",
            f"on with evaluation.metric_for_best_model {evaluation.metric_for_best_model}: the "
            "worst checkpoint would count as the best. Turn it off for a loss.",
            ("evaluation.metric_for_best_model",),
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


def _schedule_rules(config: RunConfig) -> Iterator[Problem]:
    training = config.training
    given = training.lr_scheduler_kwargs
    if training.lr_scheduler_type == "cosine_with_min_lr" and (
        ("min_lr" in given) == ("min_lr_rate" in given)
    ):
        yield Problem(
            "training.lr_scheduler_kwargs",
            "training.lr_scheduler_type cosine_with_min_lr needs one of min_lr and min_lr_rate, "
            "such as min_lr_rate=0.1.",
            ("training.lr_scheduler_type",),
        )
    if training.lr_scheduler_type == "warmup_stable_decay" and "num_decay_steps" not in given:
        yield Problem(
            "training.lr_scheduler_kwargs",
            "training.lr_scheduler_type warmup_stable_decay needs num_decay_steps, such as "
            "num_decay_steps=20.",
            ("training.lr_scheduler_type",),
        )
    if training.max_steps == 0:
        yield Problem(
            "training.max_steps",
            "0 would train nothing. Give a number of steps, or -1 to go by "
            "training.num_train_epochs.",
            ("training.num_train_epochs",),
        )


def _extra_rules(extra: dict[str, Any], own_fields: Collection[str]) -> Iterator[Problem]:
    known = sft_config_fields()
    own = {path.rpartition(".")[2]: path for path in own_fields}
    for key, value in extra.items():
        if key in REFUSED:
            message = f"{key} is not allowed here: {REFUSED[key]}."
        elif key in own:
            message = f"{key} has its own field: set {own[key]}."
        elif key not in known:
            near = difflib.get_close_matches(key, sorted(known), n=1)
            message = f"{key} is not a field of TRL's SFTConfig" + (
                f"; did you mean {near[0]}?" if near else "."
            )
        else:
            message = wrong_extra_value(key, value)
        if message:
            yield Problem("training.extra", message)
