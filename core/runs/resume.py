"""A run that ended early goes on: from its last whole checkpoint, or with half the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.config import RunConfig
from core.errors import ConfigError, JobError
from core.jobs.devices import CLUSTER, asked_device
from core.jobs.events import EventWriter, read_attempt
from core.jobs.job import QUEUED, Job, write_record
from core.jobs.store import Store
from core.language import _
from core.models.checkpoints import Checkpoint, last_good_checkpoint
from core.rules import load_config, parse_config
from core.rules.half_batch import halved
from core.runs.records import RESUMABLE, STATE_WORDS, run_job
from core.workspace import RunFolder, Workspace


def resume_run(
    workspace: Workspace, store: Store, run_id: str, *, changes: Mapping[str, Any] | None = None
) -> Job:
    """Puts a run that stopped, failed or died back in the queue, from its last whole checkpoint.

    With `changes`, settings by dotted path, it goes on with those; without a checkpoint it then
    begins anew. Raises JobError when it is not in one of these states or left no checkpoint.
    """
    job = run_job(store, run_id)
    run = workspace.run(run_id)
    if job.state not in RESUMABLE:
        longer = _("Train it longer: runs resume {run} --training.num_train_epochs 5.", run=run_id)
        hint = _("It goes on already.") if not job.ended else longer
        raise JobError(
            _("{run} is {state} and cannot be resumed.", run=run_id, state=STATE_WORDS[job.state]),
            hint,
        )
    checkpoint, broken = last_good_checkpoint(run.checkpoints)
    if checkpoint is None and not changes:
        raise JobError(
            _("{run} left no checkpoint to resume from.", run=run_id),
            _("Start it again, and save more often with tracking.save_steps."),
        )
    step = checkpoint.step if checkpoint else 0
    place = f"checkpoints/{checkpoint.name}" if checkpoint else None
    row: dict[str, Any] = {
        "device": asked_device(job),
        "slot": None,
        "pid": None,
        "pid_started_at": None,
        "owner_pid": None,
        "owner_started_at": None,
        "started_at": None,
        "ended_at": None,
        "earlier_seconds": job.seconds(),
        "step": step,
        "error": None,
        "advice": None,
        "signal": None,
        "params": {**job.params, "resume_from": place},
    }
    with store.transaction():
        if not store.enqueue(run_id, RESUMABLE, **row):
            raise JobError(_("{run} was resumed already.", run=run_id), _("Look at it in Runs."))
        run.stop_request.unlink(missing_ok=True)
        events = EventWriter(run.events)
        events.write("state", state=QUEUED, resumed_from_step=step)
        if changes:
            parse_config(load_config(run.config).values() | dict(changes)).save(run.config)
        _tell(events, changes or {}, checkpoint, broken)
        write_record(run.root, store.get(run_id))
    return store.get(run_id)


def _tell(
    events: EventWriter,
    changes: Mapping[str, Any],
    checkpoint: Checkpoint | None,
    broken: Sequence[tuple[Path, str]],
) -> None:
    """What is other than the run was, in its events."""
    for field, value in changes.items():
        choice = {"field": field, "value": value, "reason": _("changed when it was resumed")}
        message = _(
            "{setting}: {value} (changed when it was resumed)",
            setting=field.rpartition(".")[2],
            value=value,
        )
        events.write("log", level="info", message=message, choice=choice)
    for path, why in broken:
        message = _(
            "{checkpoint} cannot be used ({why}); going on from {place}.",
            checkpoint=path.name,
            why=why,
            place=checkpoint.name if checkpoint else _("the start"),
        )
        events.write("log", level="warning", message=message)


def asked_devices(config: RunConfig) -> dict[str, str]:
    """What the queue is to know of the devices that a run asks for."""
    if config.training.ray_address:
        return {"device": CLUSTER}
    training = config.training
    return {"device": training.device} | (
        {"devices": training.devices} if training.devices != "1" else {}
    )


def recall(folder: Path) -> dict[str, Any]:
    """What the store is to know of a run whose job.json is torn: from its settings, and from the
    checkpoints where it had not begun again."""
    run = RunFolder(folder)
    attempt = read_attempt(run.events)
    begins = attempt[0].get("resumed_from_step") if attempt else None
    checkpoint = run.checkpoints / f"checkpoint-{begins}"
    place = f"checkpoints/{checkpoint.name}" if begins and checkpoint.is_dir() else None
    try:
        config = load_config(run.config)
    except ConfigError:
        return {}
    asked = asked_devices(config)
    return {
        "name": config.name or folder.name,
        "device": asked["device"],
        "model": config.model.model_name_or_path,
        "dataset": config.data.dataset,
        "params": {
            **asked,
            **({"resume_from": place} if place else {}),
        },
    }


def resume_with_half(workspace: Workspace, store: Store, run_id: str) -> Job:
    """Puts a run that the memory was not enough for back in the queue, with half the rows at once
    and as many in each step as before. Raises JobError when it has only one row at once."""
    config = load_config(workspace.run(run_id).config)
    change = halved(config)
    if change is None:
        rows = config.training.per_device_train_batch_size
        raise JobError(
            _(
                "{run} cannot go on with less: its batch of {rows} cannot be halved.",
                run=run_id,
                rows=rows,
            ),
            _("Lower training.max_length, quantize the base, or choose a smaller model."),
        )
    return resume_run(workspace, store, run_id, changes=change)


def memory_was_short(job: Job, folder: Path) -> bool:
    """Whether the run ended for want of memory, or was killed as the system does for want of it."""
    if job.state == "died":
        return job.signal == 9
    if job.state != "failed":
        return False
    errors = [event for event in read_attempt(folder / "events.jsonl") if event["kind"] == "error"]
    return bool(errors) and errors[-1].get("type") == "MemoryRanOut"


def can_halve(job: Job, folder: Path) -> bool:
    """Whether to offer to go on with half the batch."""
    if job.state not in RESUMABLE or not memory_was_short(job, folder):
        return False
    try:
        return halved(load_config(RunFolder(folder).config)) is not None
    except ConfigError:
        return False
