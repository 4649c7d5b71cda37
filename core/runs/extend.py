"""A run that goes on as a new one, from a checkpoint and with other settings: trained longer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.config import RunConfig, checked_fields
from core.config.run import settle_devices
from core.data.registry import load_dataset_info
from core.errors import ConfigError, JobError, Problem
from core.jobs.job import Job
from core.jobs.store import Store
from core.language import _
from core.models.checkpoints import Checkpoint, broken, last_good_checkpoint
from core.models.hardware import local_devices
from core.rules import load_config, parse_config
from core.rules.half_batch import on_devices
from core.runs.records import STATE_WORDS, run_job
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
    "training.device",  # and devices
    "training.strategy",
    "training.offload",
    "training.deepspeed",
    "training.ray_",
    "evaluation.",
    "tracking.",
)
_STRATEGY = "training.strategy"
_SHARING = ("training.devices", _STRATEGY)
_SCHEDULE = "training.lr_scheduler_type"
# These remember the rate itself, so that neither it nor they can be changed on the way.
_REMEMBERING = ("reduce_lr_on_plateau", "greedy")


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
            _("{run} is {state}.", run=run_id, state=STATE_WORDS[job.state]),
            _("Wait for its end, or stop it first."),
        )
    run = workspace.run(run_id)
    start = _checkpoint(run, checkpoint)
    before = load_config(run.config)
    problems = _strategy_problems(before, changes)
    if problems:
        raise ConfigError(problems)
    own_name = {"name": changes.get("name") or _("{name}, longer", name=job.name)[:80]}
    config = parse_config(
        before.values() | _same_step(before, changes, devices) | dict(changes) | own_name
    )
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


def _same_step(
    before: RunConfig, changes: Mapping[str, Any], here: Sequence[str] | None
) -> dict[str, Any]:
    """On another number of devices a step learns from as many rows as before, if it can."""
    if "training.devices" not in changes:
        return {}
    asked = checked_fields(before.values() | {"training.devices": changes["training.devices"]})
    wanted = settle_devices(asked, local_devices() if here is None else here).training.devices
    found = on_devices(before, wanted)
    if found is None:
        words = _(
            "{devices}: so many cannot share the rows of a step evenly, as it is. Take another "
            "number of devices.",
            devices=wanted,
        )
        raise ConfigError([Problem("training.devices", words)])
    return found


def _checkpoint(run: RunFolder, name: str | None) -> Checkpoint:
    run_id = run.root.name
    if name is None:
        found, _broken = last_good_checkpoint(run.checkpoints)
        if found is None:
            raise JobError(
                _("{run} left no checkpoint to go on from.", run=run_id),
                _(
                    "Continue from its model instead, which begins a new training: "
                    "train --from-run {run}.",
                    run=run_id,
                ),
            )
        return found
    path = run.checkpoints / Path(name).name
    why = broken(path, resumable=True)
    if why is not None:
        given = {"run": run_id, "checkpoint": name, "why": why}
        raise JobError(
            _("{run} has no {checkpoint} to go on from: {why}.", **given),
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
                        "{value} instead of {old} cannot be changed while a training goes on. "
                        "Leave it, or begin a new training that continues from the run's model.",
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
                    "{schedules}: this schedule keeps its own rate, so neither it nor the "
                    "learning rate can be changed on the way.",
                    schedules=", ".join(sorted(types)),
                ),
                ("training.learning_rate",),
            )
        )
    return found


def _strategy_problems(before: RunConfig, changes: Mapping[str, Any]) -> list[Problem]:
    """A checkpoint in parts, or one that would have to be parted."""
    old = {path: before.values()[path] for path in _SHARING}
    new = old | {path: str(changes[path]) for path in _SHARING if path in changes}
    changed = [path for path in _SHARING if old[path] != new[path]]
    if not changed or {old[_STRATEGY], new[_STRATEGY]} <= {"auto", "ddp"}:
        return []
    words = _(
        "{value} instead of {old}: a checkpoint of {strategy} goes on only on as many devices as "
        "it was made on, with the same strategy. Leave both, or begin a new training that "
        "continues from the run's model.",
        value=new[changed[-1]],
        old=old[changed[-1]],
        strategy=old[_STRATEGY],
    )
    return [Problem(changed[-1], words, _SHARING)]


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
            "{steps} steps, but {checkpoint} has {done}. Take more.",
            steps=training.max_steps,
            checkpoint=start.name,
            done=start.step,
        )
        return [Problem("training.max_steps", message)]
    epochs = float(state.get("epoch") or 0.0)
    if training.num_train_epochs > epochs + 1e-6:
        return []
    message = _(
        "{epochs:g}, but {checkpoint} has seen {done:g}. Take more.",
        epochs=training.num_train_epochs,
        checkpoint=start.name,
        done=epochs,
    )
    return [Problem("training.num_train_epochs", message)]
