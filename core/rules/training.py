"""What of measuring, saving, packing, lengths, the start of a run, optimizers and schedules does
not go together."""

from __future__ import annotations

from collections.abc import Iterator

from core.config import RunConfig
from core.config.arguments import wrong_arguments
from core.config.optimizers import OPTIMIZERS, Optimizer
from core.config.run import as_run
from core.config.schedules import SCHEDULES
from core.errors import Problem
from core.language import _
from core.models import modelscope


def training_rules(config: RunConfig) -> Iterator[Problem]:
    yield from _machine_rules(config)
    yield from _measuring_rules(config)
    if config.tracking.push_to_hub and not config.tracking.hub_model_id:
        message = _("name the repository to push to, as OWNER/NAME")
        yield Problem("tracking.hub_model_id", message, ("tracking.push_to_hub",))
    yield from _best_metric_rules(config)
    yield from _best_checkpoint_rules(config)
    yield from _packing_rules(config)
    yield from _length_rules(config)
    yield from _chain_rules(config)
    yield from _source_rules(config)


def _machine_rules(config: RunConfig) -> Iterator[Problem]:
    training = config.training
    if training.precision == "fp16" and training.device == "cpu":
        yield Problem(
            "training.precision",
            _(
                "fp16 with training.device cpu: a CPU trains in bf16 or fp32. Set precision to "
                "auto."
            ),
            ("training.device",),
        )


def _measuring_rules(config: RunConfig) -> Iterator[Problem]:
    """What needs a measured loss, and what the measure means."""
    evaluation, tracking = config.evaluation, config.tracking
    stops_early = evaluation.early_stopping_patience is not None
    if evaluation.eval_strategy == "no" and stops_early:
        yield Problem(
            "evaluation.early_stopping_patience",
            _(
                "early stopping with evaluation.eval_strategy no: nothing is measured. Evaluate "
                "by steps or epoch."
            ),
            ("evaluation.eval_strategy",),
        )
    if tracking.save_strategy == "no" and stops_early:
        yield Problem(
            "tracking.save_strategy",
            _(
                "no checkpoints with evaluation.early_stopping_patience: the best one could not "
                "be restored. Save by steps or epoch."
            ),
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
            _(
                "{best} is not measured with method {method}. There are: {known}.",
                best=best,
                method=method.name,
                known=", ".join(known),
            ),
            ("method",),
        )
    better = method.better(best)
    if better == "lower" and evaluation.greater_is_better:
        message = _(
            "on with evaluation.metric_for_best_model {best}: the worst checkpoint would count as "
            "the best. Turn it off for a {kind}.",
            best=best,
            kind=_("perplexity") if best.endswith("perplexity") else _("loss"),
        )
    elif measured and better == "higher" and not evaluation.greater_is_better:
        message = _(
            "off with evaluation.metric_for_best_model {best}: the worst checkpoint would count as "
            "the best. Turn it on.",
            best=best,
        )
    else:
        return
    yield Problem("evaluation.greater_is_better", message, ("evaluation.metric_for_best_model",))


def _packing_rules(config: RunConfig) -> Iterator[Problem]:
    why = config.training_method.why_not_packed
    if config.training.packing and why:
        yield Problem(
            "training.packing",
            _("on with method {method}: {why}. Turn it off.", method=config.method, why=why),
            ("method",),
        )


def _best_checkpoint_rules(config: RunConfig) -> Iterator[Problem]:
    """The best checkpoint can be kept only if each evaluation it may choose has one."""
    evaluation, tracking = config.evaluation, config.tracking
    if evaluation.eval_strategy == "no":
        if evaluation.load_best_model_at_end:
            yield Problem(
                "evaluation.load_best_model_at_end",
                _(
                    "the best checkpoint with evaluation.eval_strategy no: nothing is measured. "
                    "Evaluate by steps or epoch."
                ),
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
            _(
                "{save_strategy} with evaluation.eval_strategy {eval_strategy}: to keep the best "
                "checkpoint, save when you evaluate.",
                save_strategy=tracking.save_strategy,
                eval_strategy=evaluation.eval_strategy,
            ),
            ("evaluation.eval_strategy",),
        )
    elif tracking.save_strategy == "steps" and tracking.save_steps % evaluation.eval_steps:
        yield Problem(
            "tracking.save_steps",
            _(
                "{save_steps} is not a multiple of evaluation.eval_steps ({eval_steps}): to keep "
                "the best checkpoint, save when you evaluate.",
                save_steps=tracking.save_steps,
                eval_steps=evaluation.eval_steps,
            ),
            ("evaluation.eval_steps",),
        )


def _length_rules(config: RunConfig) -> Iterator[Problem]:
    training = config.training
    if training.max_steps == 0:
        yield Problem(
            "training.max_steps",
            _(
                "0 would train nothing. Give a number of steps, or -1 to go by "
                "training.num_train_epochs."
            ),
            ("training.num_train_epochs",),
        )


def _chain_rules(config: RunConfig) -> Iterator[Problem]:
    """What a run that begins with another one has to keep, as far as its own settings tell."""
    model = config.model
    if model.start_from == "base" and model.from_run:
        yield Problem(
            "model.from_run",
            _(
                "{from_run} with model.start_from base: it would have no effect. Set start_from "
                "to merge, stack or continue, or leave the run out.",
                from_run=model.from_run,
            ),
            ("model.start_from",),
        )
    if model.start_from != "base" and not model.from_run:
        yield Problem(
            "model.from_run",
            _(
                "empty with model.start_from {start_from}: name the run to begin with.",
                start_from=model.start_from,
            ),
            ("model.start_from",),
        )
    quantization: str = config.adapter.quantization
    if model.start_from == "stack" and quantization != "none":
        yield Problem(
            "model.start_from",
            _(
                "stack with adapter.quantization {quantization}: the adapter beneath would be "
                "rounded away. Take merge, which quantizes the merged model.",
                quantization=quantization,
            ),
            ("adapter.quantization",),
        )


def _source_rules(config: RunConfig) -> Iterator[Problem]:
    name, revision = config.model.model_name_or_path.strip(), config.model.model_revision
    if why := modelscope.why_no_name(name):
        yield Problem("model.model_name_or_path", why)
    elif "://" in name:
        yield Problem(
            "model.model_name_or_path",
            _(
                "{name} is an address. A model on the Hub is named by its owner and its name, such "
                "as {example}.",
                name=name,
                example="HuggingFaceTB/SmolLM2-135M-Instruct",
            ),
        )
    if modelscope.is_named(name) and revision != "main":
        yield Problem(
            "model.model_revision",
            _(
                "{revision} would have no effect: of a model on ModelScope the revision stands "
                "behind its name, as in {name}.",
                revision=revision,
                name=f"{name.partition('@')[0]}@{revision}",
            ),
            ("model.model_name_or_path",),
        )


# What greedy takes when nothing is said; it is meant for larger rates than fine-tuning's.
_GREEDY_MIN_LR = 1e-3
_POLYNOMIAL_LR_END = 1e-7


def optimizer_rules(config: RunConfig) -> Iterator[Problem]:
    optimizer = OPTIMIZERS[config.training.optim]
    yield from _argument_rules(config)
    yield from _fit_rules(config, optimizer)
    if optimizer.at_once:
        yield from _at_once_rules(config, optimizer)
    yield from _measured_rules(config)
    yield from _schedule_rules(config)


def _argument_rules(config: RunConfig) -> Iterator[Problem]:
    training = config.training
    name, given = training.optim, training.optim_args
    for message in wrong_arguments(name, given, OPTIMIZERS[name].arguments):
        yield Problem("training.optim_args", message, ("training.optim",))
    if name == "sgd" and given.get("nesterov") and not given.get("momentum"):
        yield Problem("training.optim_args", _("nesterov of sgd needs momentum, such as 0.9."))
    if name == "sgd" and given.get("nesterov") and given.get("dampening"):
        yield Problem("training.optim_args", _("nesterov of sgd goes without dampening."))
    if OPTIMIZERS[name].low_rank and not training.optim_target_modules:
        yield Problem(
            "training.optim_target_modules",
            _(
                "empty with training.optim {name}: no layer would be projected. Name layers, or "
                "use all-linear.",
                name=name,
            ),
            ("training.optim",),
        )


def _fit_rules(config: RunConfig, optimizer: Optimizer) -> Iterator[Problem]:
    """What the run trains and how, as far as the optimizer asks for something."""
    training, name = config.training, optimizer.name
    if optimizer.full_only and config.adapter.method not in ("none", "freeze"):
        yield Problem(
            "training.optim",
            _(
                "{name} saves memory where the model's own weights are trained, and "
                "adapter.method is {method}. Take adamw_torch_fused or adamw_8bit, or set "
                "adapter.method to none.",
                name=name,
                method=config.adapter.method,
            ),
            ("adapter.method",),
        )
    if not optimizer.weight_decay and training.weight_decay:
        yield Problem(
            "training.weight_decay",
            _(
                "{weight_decay:g} with training.optim {name}, which gets none from the library. "
                "Set it to 0.",
                weight_decay=training.weight_decay,
                name=name,
            ),
            ("training.optim",),
        )
    if optimizer.schedule_free and training.lr_scheduler_type != "constant":
        yield Problem(
            "training.lr_scheduler_type",
            _(
                "{lr_scheduler_type} with training.optim {name}, which averages weights in place "
                "of a schedule. Choose constant.",
                lr_scheduler_type=training.lr_scheduler_type,
                name=name,
            ),
            ("training.optim",),
        )


def _at_once_rules(config: RunConfig, optimizer: Optimizer) -> Iterator[Problem]:
    training, name = config.training, optimizer.name
    if training.gradient_accumulation_steps != 1:
        yield Problem(
            "training.gradient_accumulation_steps",
            _(
                "{gradient_accumulation_steps} with training.optim {name}, which changes the "
                "weights at every batch. Set it to 1 and take larger batches.",
                gradient_accumulation_steps=training.gradient_accumulation_steps,
                name=name,
            ),
            ("training.optim",),
        )
    if training.precision == "fp16":
        yield Problem(
            "training.precision",
            _(
                "fp16 with training.optim {name}, which uses gradients before they could be "
                "unscaled. Take bf16 or fp32.",
                name=name,
            ),
            ("training.optim",),
        )


def _schedule_rules(config: RunConfig) -> Iterator[Problem]:
    training = config.training
    schedule = SCHEDULES[training.lr_scheduler_type]
    name, given = schedule.name, training.lr_scheduler_kwargs
    owner = f"training.lr_scheduler_type {name}"

    def wrong(message: str, *also: str) -> Problem:
        fields = ("training.lr_scheduler_type", *also)
        return Problem("training.lr_scheduler_kwargs", message, fields)

    for message in wrong_arguments(owner, given, schedule.arguments):
        yield wrong(message)
    for needed in schedule.needed:
        if needed not in given:
            yield wrong(
                _("{owner} needs {needed}, such as {needed}=20.", owner=owner, needed=needed)
            )
    if schedule.one_of and sum(key in given for key in schedule.one_of) != 1:
        first, second = schedule.one_of
        yield wrong(
            _(
                "{owner} needs one of {first} and {second}, such as {second}=0.1.",
                owner=owner,
                first=first,
                second=second,
            )
        )
    if not all(isinstance(value, int | float) for value in given.values()):
        return  # what follows compares numbers; what is none has been told
    rate = training.learning_rate
    if name == "polynomial" and given.get("lr_end", _POLYNOMIAL_LR_END) >= rate:
        yield wrong(
            _(
                "lr_end is {lr_end:g} and training.learning_rate {rate:g}: the rate has to fall. "
                "Set a smaller lr_end.",
                lr_end=given.get("lr_end", _POLYNOMIAL_LR_END),
                rate=rate,
            ),
            "training.learning_rate",
        )
    if name == "greedy" and given.get("min_lr", _GREEDY_MIN_LR) >= rate:
        yield wrong(
            _(
                "min_lr is {min_lr:g} and training.learning_rate {rate:g}: the rate could not "
                "fall. Set min_lr lower, such as min_lr={lower:g}.",
                min_lr=given.get("min_lr", _GREEDY_MIN_LR),
                rate=rate,
                lower=rate / 100,
            ),
            "training.learning_rate",
        )


def _measured_rules(config: RunConfig) -> Iterator[Problem]:
    """A schedule that follows a measure needs one."""
    name = config.training.lr_scheduler_type
    if SCHEDULES[name].measured and config.evaluation.eval_strategy == "no":
        yield Problem(
            "training.lr_scheduler_type",
            _(
                "{name} with evaluation.eval_strategy no: it needs a measured loss. Evaluate by "
                "steps or epoch.",
                name=name,
            ),
            ("evaluation.eval_strategy",),
        )
