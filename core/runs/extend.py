"""A run that goes on as a new one, from a checkpoint and with other settings: trained longer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.config import RunConfig
from core.data.registry import load_dataset_info
from core.errors import ConfigError, JobError, Problem
from core.jobs.job import Job
from core.jobs.store import Store
from core.language import N_, _
from core.models.checkpoints import Checkpoint, broken, last_good_checkpoint
from core.rules import load_config, parse_config
from core.runs.records import run_job
from core.runs.submit import submit_run
from core.workspace import RunFolder, Workspace

# What may change while the same training goes on: neither the model, nor what it learns from, nor
# what the optimizer remembers of it.
CHANGEABLE = (
    "name",
    "training.learning_rate",
    "training.num_train_epochs",
    "training.max_steps",
    "training.lr_scheduler_type",
    "training.lr_scheduler_kwargs",
    "training.warmup_steps",
    "training.max_grad_norm",
    "training.per_device_train_batch_size",
    "training.gradient_accumulation_steps",
    "training.gradient_checkpointing",
    "training.on_out_of_memory",
    "training.device",
    "evaluation.",
    "tracking.",
)
_SCHEDULE = "training.lr_scheduler_type"
# These remember the rate itself, so that neither it nor they can be changed on the way.
_REMEMBERING = ("reduce_lr_on_plateau", "greedy")
_NO_CHECKPOINT = N_(
    "Continue from its model instead, which begins a new training: train --from-run {run}."
)


def train_longer(
    workspace: Workspace,
    store: Store,
    run_id: str,
    changes: Mapping[str, Any],
    *,
    checkpoint: str | None = None,
    devices: Sequence[str] | None = None,
) -> Job:
    """A new run that goes on from a checkpoint of this one (the last whole one), its optimizer and
    its place in the rows included, with other settings by dotted path.

    Raises JobError when the run still trains or left no such checkpoint, ConfigError when a change
    is not possible on the way, names rows that have changed, or leaves nothing to train.
    """
    job = run_job(store, run_id)
    if not job.ended:
        raise JobError(
            _("{run_id} is {state}.", run_id=run_id, state=job.state),
            _("Wait for its end, or stop it first."),
        )
    run = workspace.run(run_id)
    start = _checkpoint(run, checkpoint)
    before = load_config(run.config)
    own_name = {"name": changes.get("name") or _("{name}, longer", name=job.name)[:80]}
    config = parse_config(before.values() | dict(changes) | own_name)
    problems = [
        *_change_problems(before, config),
        *_rows_problems(workspace, before),
        *_length_problems(start, before, config),
    ]
    if problems:
        raise ConfigError(problems)
    return submit_run(
        workspace,
        store,
        config,
        parent_id=run_id,
        resume_from=str(start.path),
        devices=devices,
    )


def _checkpoint(run: RunFolder, name: str | None) -> Checkpoint:
    run_id = run.root.name
    if name is None:
        found, _ = last_good_checkpoint(run.checkpoints)
        if found is None:
            hint = _NO_CHECKPOINT.format(run=run_id)
            raise JobError(_("{run_id} left no checkpoint to go on from.", run_id=run_id), hint)
        return found
    path = run.checkpoints / Path(name).name
    why = broken(path, resumable=True)
    if why is not None:
        raise JobError(
            _("{run_id} has no {name} to go on from: {why}.", run_id=run_id, name=name, why=why),
            _("Take another one."),
        )
    return Checkpoint(path.name, int(path.name.rpartition("-")[2]), path)


def _change_problems(before: RunConfig, config: RunConfig) -> list[Problem]:
    old, found = before.values(), []
    for path, value in config.values().items():
        if value == old[path]:
            continue
        if not path.startswith(CHANGEABLE):
            found.append(
                Problem(
                    path,
                    _(
                        "{value} instead of {old} cannot be changed while a training goes on. Leave it, "
                        "or begin a new training that continues from the run's model.",
                        value=value,
                        old=old[path],
                    ),
                )
            )
    types = {before.training.lr_scheduler_type, config.training.lr_scheduler_type}
    changed = old["training.learning_rate"] != config.training.learning_rate or len(types) > 1
    if changed and types & set(_REMEMBERING):
        found.append(
            Problem(
                _SCHEDULE,
                _(
                    "{types}: this schedule keeps its own rate, so neither it nor the learning rate "
                    "can be changed on the way.",
                    types=" and ".join(sorted(types)),
                ),
                ("training.learning_rate",),
            )
        )
    return found


def _rows_problems(workspace: Workspace, before: RunConfig) -> list[Problem]:
    info = load_dataset_info(workspace, before.data.dataset)
    known = before.data.dataset_fingerprint
    if not known or info.fingerprint == known:
        return []
    words = _(
        "{name} has changed since the run. Bring the old rows back, or begin a new run.",
        name=info.name,
    )
    return [Problem("data.dataset", words)]


def _length_problems(start: Checkpoint, before: RunConfig, config: RunConfig) -> list[Problem]:
    """A run that would end where it begins."""
    state = json.loads((start.path / "trainer_state.json").read_text(encoding="utf-8"))
    training = config.training
    if training.max_steps > 0:
        if training.max_steps > start.step:
            return []
        message = _(
            "{max_steps} steps, but {name} has {step}. Take more.",
            max_steps=training.max_steps,
            name=start.name,
            step=start.step,
        )
        return [Problem("training.max_steps", message)]
    epochs = float(state.get("epoch") or 0.0)
    if training.num_train_epochs > epochs + 1e-6:
        return []
    message = _(
        "{num_train_epochs:g}, but {name} has seen {epochs:g}. Take more.",
        num_train_epochs=training.num_train_epochs,
        name=start.name,
        epochs=epochs,
    )
    return [Problem("training.num_train_epochs", message)]
