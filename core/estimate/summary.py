"""What a run will be, told before it starts: base, what is trained, rows, tokens, steps, and what
looks wrong. Torch-free; nothing is fetched."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.config import RunConfig
from core.config.run import (
    as_run,
    batches_an_epoch,
    continues,
    device_count,
    rows_a_step,
    settle_devices,
)
from core.config.schedules import STAYS_AT_ZERO, stays_at_zero
from core.errors import Problem, TunesmithError
from core.language import _, n_
from core.models.describe import ModelFacts, describe_model, with_head
from core.models.hardware import local_devices
from core.models.location import local_model
from core.rules.base_model import adapter_warnings
from core.rules.machine import tracker_warnings
from core.runs.check import start_problems
from core.workspace import Workspace


@dataclass(frozen=True)
class Summary:
    """The plan of a run. None means not known (yet), and `warnings` says why where it matters.

    `tokens` counts one pass over the training rows, cut at max_length. `parameters_exact` is
    False when they are worked out from the model's config, `steps_exact` when rows are packed and
    how well they fill the blocks is not known. `memory_bytes` and `seconds` stay None
    until they can be estimated.
    """

    base: str
    parameters: int | None
    parameters_exact: bool
    trainable: int | None
    trainable_share: float | None
    train_rows: int | None
    eval_rows: int | None
    tokens: int | None
    steps: int | None
    rows_a_step: int | None
    steps_exact: bool = True
    refused: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    memory_bytes: int | None = None
    seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As the command prints it: what keeps the run from starting stands among the warnings."""
        known = dataclasses.asdict(self)
        known["warnings"] = known.pop("refused") + known["warnings"]
        return known


def summarize(
    workspace: Workspace,
    config: RunConfig,
    token_counts: dict[str, Any] | None = None,
    refused: Sequence[Problem] | None = None,
) -> Summary:
    """The plan of `config`. `token_counts` is what `core.tokens.counts.token_counts` gave
    for this data set, model and length."""
    config = as_run(config)
    if config.training.devices == "all":
        config = settle_devices(config, local_devices())
    if refused is None:
        refused = start_problems(workspace, config)
    warnings: list[Problem] = []
    facts = _facts(workspace, config, warnings)
    train_rows, eval_rows = _rows(workspace, config)
    labels = _labels(workspace, config)
    parameters, trainable = with_head(facts, config, labels) if facts else (None, None)
    # An adapter stands beside the model's own parameters, and counts among all of them.
    own = not config.adapter.is_adapter
    total = parameters if own else (parameters or 0) + (trainable or 0)
    steps = optimizer_steps(config, rows_of_trainer(config, train_rows, token_counts))
    batch = config.training.per_device_train_batch_size
    if facts:
        warnings += _model_warnings(facts, config, steps)
        warnings += _template_warnings(workspace, config, facts)
    warnings += _step_warnings(config, steps)
    warnings += tracker_warnings(config)
    if token_counts and not config.training_method.generates:  # there a row is only its prompt
        warnings += _token_warnings(token_counts)
    return Summary(
        base=_base(config),
        parameters=parameters,
        parameters_exact=facts.exact if facts else False,
        trainable=trainable,
        trainable_share=trainable / total
        if trainable is not None and parameters and total
        else None,
        train_rows=train_rows,
        eval_rows=eval_rows,
        tokens=token_counts.get("train_tokens") if token_counts else None,
        steps=steps,
        rows_a_step=rows_a_step(config, batch) if isinstance(batch, int) else None,
        steps_exact=not config.training.packing or config.training.max_steps > 0,
        refused=list(refused),
        warnings=warnings,
    )


def rows_of_trainer(
    config: RunConfig, rows: int | None, token_counts: Mapping[str, Any] | None
) -> int | None:
    """How many rows the trainer gets of so many rows of the data set: blocks where texts are
    joined or rows are packed, pieces where long ones are parted. None when that is not known; of
    packed rows it is about so many."""
    if not rows or not (config.training_method.section == "text" or config.training.packing):
        return rows
    if not token_counts:
        return None
    longest = config.training.max_length
    if config.training_method.makes == "filler":
        return rows if (token_counts.get("longest") or 0) <= longest else None
    counted = max(int(token_counts.get("train_rows") or rows), 1)
    return math.ceil(int(token_counts.get("train_tokens") or 0) * rows / counted / longest) or None


def _base(config: RunConfig) -> str:
    """What the run begins with."""
    name = config.model.model_name_or_path
    if not continues(config):
        return name
    return _("{base} after {run}", base=name, run=config.model.from_run)


def optimizer_steps(config: RunConfig, rows: int | None) -> int | None:
    """Optimizer steps of the run, counted as transformers' Trainer counts them.

    `rows` are those of the trainer. None when they are not known, or the batch size is still
    `auto`; `max_steps` decides in any case.
    """
    training = config.training
    if training.max_steps > 0:
        return training.max_steps
    batch = training.per_device_train_batch_size
    if not rows or not isinstance(batch, int):
        return None
    # Each device takes a batch at once, the last ones perhaps rows that were there before.
    batches = math.ceil(math.ceil(rows / batch) / device_count(config))
    if config.training_method.generates:
        batches = batches_an_epoch(config, rows, batch)
    each_epoch = math.ceil(batches / training.gradient_accumulation_steps)
    return math.ceil(training.num_train_epochs * each_epoch)


def step_text(config: RunConfig) -> str:
    """The effective batch in words; "" while the batch size is not known."""
    batch = config.training.per_device_train_batch_size
    if not isinstance(batch, int):
        return ""
    values = {
        "rows": rows_a_step(config, batch),
        "batch": batch,
        "batches": config.training.gradient_accumulation_steps,
    }
    devices = devices_text(config)
    if not devices:
        return _("{rows}: {batch} at once x {batches} before each step", **values)
    return _(
        "{rows}: {batch} at once x {batches} before each step x {devices}",
        devices=devices,
        **values,
    )


def devices_text(config: RunConfig) -> str:
    """How many devices train together, and how they share the model; "" of one."""
    count, training = device_count(config), config.training
    if count == 1:
        return ""
    strategy = "ddp" if training.strategy == "auto" else training.strategy
    how = f"{strategy}, offload" if training.offload else strategy
    return n_("{n} device ({strategy})", "{n} devices ({strategy})", count, strategy=how)


def _facts(workspace: Workspace, config: RunConfig, warnings: list[Problem]) -> ModelFacts | None:
    name = config.model.model_name_or_path
    try:
        path = local_model(workspace, name)
        if path is not None:
            return describe_model(path)
    except TunesmithError as error:
        warnings.append(Problem("model.model_name_or_path", str(error)))
        return None
    warnings.append(
        Problem(
            "model.model_name_or_path",
            _(
                "{name} is not on this machine yet: its size is known once the first run has "
                "fetched it.",
                name=name,
            ),
        )
    )
    return None


def _rows(workspace: Workspace, config: RunConfig) -> tuple[int | None, int | None]:
    """(training rows, held-out rows) that the run will use."""
    from core.data.registry import load_dataset_info

    try:
        info = load_dataset_info(workspace, config.data.dataset)
    except TunesmithError:
        return None, None  # said by start_problems
    train, held_out = info.counts.train, info.counts.eval
    return min(train, config.data.max_train_samples or train), held_out


def _model_warnings(facts: ModelFacts, config: RunConfig, steps: int | None) -> list[Problem]:
    found = adapter_warnings(facts, config, steps)
    longest = facts.max_position_embeddings
    if longest and config.training.max_length > longest:
        found.append(
            Problem(
                "training.max_length",
                _(
                    "{length} is more than the {longest} tokens that {model} was made for.",
                    length=config.training.max_length,
                    longest=longest,
                    model=facts.name,
                ),
                ("model.model_name_or_path",),
            )
        )
    return found


def _labels(workspace: Workspace, config: RunConfig) -> int | None:
    """How many labels a classifier will know."""
    from core.data.registry import load_dataset_info

    try:
        return len(load_dataset_info(workspace, config.data.dataset).labels)
    except TunesmithError:
        return None  # said where the rows are counted


def _template_warnings(workspace: Workspace, config: RunConfig, facts: ModelFacts) -> list[Problem]:
    """A base that has learned no layout of conversations."""
    from core.data.registry import load_dataset_info
    from core.rules.data import template_warnings

    try:
        info = load_dataset_info(workspace, config.data.dataset)
    except TunesmithError:
        return []  # said where the rows are counted
    return template_warnings(info, config, facts.has_chat_template)


def _step_warnings(config: RunConfig, steps: int | None) -> list[Problem]:
    """Evaluations and checkpoints that would never come, and a rate that never leaves zero."""
    found: list[Problem] = []
    if steps is None:
        return found
    training = config.training
    kind, more = training.lr_scheduler_type, training.lr_scheduler_kwargs
    if stays_at_zero(kind, more, training.warmup_steps, steps):
        found.append(
            Problem(
                "training.warmup_steps",
                STAYS_AT_ZERO,
                ("training.max_steps", "training.num_train_epochs"),
            )
        )
    evaluation, tracking = config.evaluation, config.tracking
    if evaluation.eval_strategy == "steps" and evaluation.eval_steps > steps:
        found.append(
            Problem(
                "evaluation.eval_steps",
                _(
                    "{every} is more than the {steps} steps of the run: it is never evaluated on "
                    "the way.",
                    every=evaluation.eval_steps,
                    steps=steps,
                ),
            )
        )
    if tracking.save_strategy == "steps" and tracking.save_steps > steps:
        found.append(
            Problem(
                "tracking.save_steps",
                _(
                    "{every} is more than the {steps} steps of the run: there is no checkpoint to "
                    "resume from on the way.",
                    every=tracking.save_steps,
                    steps=steps,
                ),
            )
        )
    return found


def _token_warnings(counts: dict[str, Any]) -> list[Problem]:
    """Rows that the run would cut or leave out."""
    found: list[Problem] = []
    cut = counts.get("cut_rows") or 0
    left_out = (counts.get("rows_without_loss") or 0) + (counts.get("unusable_rows") or 0)
    if cut:
        found.append(
            Problem(
                "training.max_length",
                n_(
                    "{n} row is longer and loses its end; the longest has {longest} tokens.",
                    "{n} rows are longer and lose their end; the longest has {longest} tokens.",
                    cut,
                    longest=counts.get("longest"),
                ),
            )
        )
    if left_out:
        found.append(
            Problem(
                "data.dataset",
                n_(
                    "{n} row is left out of the training. {reason}",
                    "{n} rows are left out of the training. {reason}",
                    left_out,
                    reason=counts.get("first_reason") or "",
                ),
                ("training.max_length",),
            )
        )
    return found
