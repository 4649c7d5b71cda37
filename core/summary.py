"""What a run will be, told before it starts: base, what is trained, rows, tokens, steps, and what
looks wrong. Torch-free; nothing is fetched."""

from __future__ import annotations

import dataclasses
import difflib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.config import RunConfig
from core.errors import Problem, TunesmithError
from core.models.describe import (
    ModelFacts,
    describe_model,
    trainable_parameters,
    unknown_modules,
)
from core.workspace import Workspace


@dataclass(frozen=True)
class Summary:
    """The plan of a run. None means not known (yet), and `warnings` says why where it matters.

    `tokens` counts one pass over the training rows, cut at max_length. `parameters_exact` is
    False when they are worked out from the model's config. `memory_bytes` and `seconds` stay None
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
    warnings: list[Problem] = field(default_factory=list)
    memory_bytes: int | None = None
    seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def summarize(
    workspace: Workspace, config: RunConfig, token_counts: dict[str, Any] | None = None
) -> Summary:
    """The plan of `config`. `token_counts` is what `core.data.preview.dataset_token_counts` gave
    for this data set, model and length."""
    warnings: list[Problem] = []
    facts = _facts(workspace, config, warnings)
    train_rows, eval_rows = _rows(workspace, config, warnings)
    trainable = trainable_parameters(facts, config) if facts else None
    parameters = facts.parameters if facts else None
    # An adapter stands beside the model's own parameters, and counts among all of them.
    total = parameters if config.adapter.method == "none" else (parameters or 0) + (trainable or 0)
    steps = optimizer_steps(config, train_rows)
    if facts:
        warnings += _model_warnings(facts, config)
    warnings += _step_warnings(config, steps)
    if token_counts:
        warnings += _token_warnings(token_counts)
    return Summary(
        base=config.model.model_name_or_path,
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
        warnings=warnings,
    )


def optimizer_steps(config: RunConfig, rows: int | None) -> int | None:
    """Optimizer steps of the run, counted as transformers' Trainer counts them.

    None when the rows are not known, when the batch size is still `auto`, or with packing, where
    rows are joined; `max_steps` decides in any case.
    """
    training = config.training
    if training.max_steps > 0:
        return training.max_steps
    batch = training.per_device_train_batch_size
    if not rows or not isinstance(batch, int) or training.packing:
        return None
    each_epoch = math.ceil(math.ceil(rows / batch) / training.gradient_accumulation_steps)
    return math.ceil(training.num_train_epochs * each_epoch)


def local_model(workspace: Workspace, name: str) -> Path | None:
    """The folder of a model that is on this machine: a starter model, a folder, the Hub's cache.

    Raises WorkspaceError for a folder that may not be read.
    """
    from core.models.hub import cached_snapshot
    from core.models.starter import find_local

    found = find_local(name, workspace.root)
    if found is not None:
        return found
    for folder in (workspace.root / name, Path(name).expanduser()):
        if folder.is_dir():
            return workspace.confine(folder)
    return cached_snapshot(name)


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
            f"{name} is not on this machine yet: its size is known once the first run has "
            "fetched it.",
        )
    )
    return None


def _rows(
    workspace: Workspace, config: RunConfig, warnings: list[Problem]
) -> tuple[int | None, int | None]:
    """(training rows, held-out rows) that the run will use."""
    from core.data.registry import load_dataset_info

    try:
        info = load_dataset_info(workspace, config.data.dataset)
    except TunesmithError as error:
        warnings.append(Problem("data.dataset", str(error)))
        return None, None
    train, held_out = info.counts.train, info.counts.eval
    if config.evaluation.eval_strategy != "no" and not held_out:
        warnings.append(
            Problem(
                "evaluation.eval_strategy",
                f"{config.evaluation.eval_strategy} needs held-out rows, and data.dataset "
                f"{config.data.dataset} has none. Import it again with a share for evaluation, or "
                "set evaluation.eval_strategy to no.",
                ("data.dataset",),
            )
        )
    return min(train, config.data.max_train_samples or train), held_out


def _model_warnings(facts: ModelFacts, config: RunConfig) -> list[Problem]:
    found: list[Problem] = []
    adapter = config.adapter
    if adapter.method == "lora" and facts.shapes:
        targets = adapter.target_modules if isinstance(adapter.target_modules, list) else []
        known = sorted(facts.module_names)
        for path, names in (
            ("adapter.target_modules", targets),
            ("adapter.modules_to_save", adapter.modules_to_save),
        ):
            for name in unknown_modules(facts, names):
                near = difflib.get_close_matches(name.rpartition(".")[2], known, n=2, cutoff=0.4)
                mend = (
                    f"Did you mean {' or '.join(near)}?"
                    if near
                    else f"It has {', '.join(facts.linear_modules)}."
                )
                found.append(
                    Problem(
                        path,
                        f"{facts.name} has no module {name}. {mend}",
                        ("model.model_name_or_path",),
                    )
                )
    longest = facts.max_position_embeddings
    if longest and config.training.max_length > longest:
        found.append(
            Problem(
                "training.max_length",
                f"{config.training.max_length} is more than the {longest} tokens that "
                f"{facts.name} was made for.",
                ("model.model_name_or_path",),
            )
        )
    return found


def _step_warnings(config: RunConfig, steps: int | None) -> list[Problem]:
    """Evaluations and checkpoints that would never come."""
    found: list[Problem] = []
    if steps is None:
        return found
    evaluation, tracking = config.evaluation, config.tracking
    if evaluation.eval_strategy == "steps" and evaluation.eval_steps > steps:
        found.append(
            Problem(
                "evaluation.eval_steps",
                f"{evaluation.eval_steps} is more than the {steps} "
                "steps of the run: it is never evaluated on the way.",
            )
        )
    if tracking.save_strategy == "steps" and tracking.save_steps > steps:
        found.append(
            Problem(
                "tracking.save_steps",
                f"{tracking.save_steps} is more than the {steps} steps "
                "of the run: there is no checkpoint to resume from on the way.",
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
                f"{cut} rows are longer and lose their end; the longest has "
                f"{counts.get('longest')} tokens.",
            )
        )
    if left_out:
        found.append(
            Problem(
                "data.dataset",
                f"{left_out} rows are left out of the training. {counts.get('first_reason') or ''}",
                ("training.max_length",),
            )
        )
    return found
