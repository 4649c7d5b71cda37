"""What a person can ask of jobs: start, evaluate, export, stop, resume, move, rename, delete.

The page and the shell call the same functions. None of them needs a scheduler: they write the
folder and the row, and whichever scheduler looks after the workspace sees it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.config import RunConfig, parse_config
from core.data.registry import load_dataset_info
from core.errors import ConfigError, JobError, Problem, TunesmithError
from core.jobs.checkpoints import last_good_checkpoint
from core.jobs.devices import asked_device, local_devices, serves
from core.jobs.events import EventWriter
from core.jobs.job import TASK_FOLDERS, update_record, write_record
from core.jobs.store import ACTIVE, QUEUED, Job, Store
from core.models.trained import FINAL, find_trained
from core.workspace import Workspace, new_id

RESUMABLE = frozenset({"stopped", "failed", "died"})
STOP_GENTLY, STOP_NOW = "", "now"


def submit_run(
    workspace: Workspace,
    store: Store,
    config: RunConfig,
    *,
    parent_id: str | None = None,
    resume_from: str | None = None,
    devices: Sequence[str] | None = None,
) -> Job:
    """Puts a training in the queue: its folder with config.yaml and job.json, then its row.

    `resume_from` is the folder of a checkpoint to begin from, `devices` what this machine has
    (looked up when not given). Raises ConfigError when the config does not fit this machine or
    the data set, WorkspaceError when the checkpoint lies outside what may be read.
    """
    begin_at = str(workspace.confine(resume_from)) if resume_from else None
    config = parse_config(config.model_dump())
    problems = [*_device_problems(config, devices), *_data_problems(workspace, config)]
    if problems:
        raise ConfigError(problems)
    run_id, folder = _new_folder(workspace.runs)
    config.save(folder / "config.yaml")
    params = {"device": config.training.device}
    if begin_at is not None:
        params["resume_from"] = begin_at
    job = Job(
        id=run_id,
        kind="train",
        run_id=run_id,
        folder=folder.relative_to(workspace.root).as_posix(),
        name=config.name or run_id,
        device=config.training.device,
        model=config.model.model_name_or_path,
        dataset=config.data.dataset,
        max_steps=max(0, config.training.max_steps),
        parent_id=parent_id,
        params=params,
    )
    return _enqueue(workspace, store, job)


def submit_evaluation(
    workspace: Workspace, store: Store, run_id: str, params: dict[str, Any]
) -> Job:
    """Puts an evaluation of a run's model in the queue. Raises ModelError when it left none."""
    return _submit_task(workspace, store, "evaluate", run_id, params)


def submit_export(workspace: Workspace, store: Store, run_id: str, params: dict[str, Any]) -> Job:
    """Puts an export of a run's model in the queue. Raises ModelError when it left none."""
    return _submit_task(workspace, store, "export", run_id, params)


def stop_job(workspace: Workspace, store: Store, job_id: str, *, now: bool = False) -> Job:
    """Asks a job to stop after a checkpoint, or kills it with `now`; a waiting one is cancelled.

    Returns at once; the state is `stopping` until the worker has ended. Raises JobError when the
    job has ended already.
    """
    folder = workspace.root / store.get(job_id).folder
    with store.transaction():
        if store.transition(job_id, {QUEUED}, "stopped", ended_at=time.time()):
            EventWriter(folder / "events.jsonl").write("state", state="stopped", reason="cancelled")
            write_record(folder, store.get(job_id))
            return store.get(job_id)
    if store.transition(job_id, ACTIVE, "stopping"):
        (folder / "STOP").write_text(STOP_NOW if now else STOP_GENTLY, encoding="utf-8")
        return store.get(job_id)
    raise JobError(f"{job_id} is not running.", f"It has {store.get(job_id).state} already.")


def resume_run(workspace: Workspace, store: Store, run_id: str) -> Job:
    """Puts a run that stopped, failed or died back in the queue, from its last whole checkpoint.

    Raises JobError when it is not in one of these states or left no checkpoint.
    """
    job = run_job(store, run_id)
    run = workspace.run(run_id)
    if job.state not in RESUMABLE:
        hint = "It goes on already." if not job.ended else "Start a new run with more epochs."
        raise JobError(f"{run_id} is {job.state} and cannot be resumed.", hint)
    checkpoint, broken = last_good_checkpoint(run.checkpoints)
    if checkpoint is None:
        raise JobError(
            f"{run_id} left no checkpoint to resume from.",
            "Start it again, and save more often with tracking.save_steps.",
        )
    changes: dict[str, Any] = {
        "device": asked_device(job),
        "slot": None,
        "pid": None,
        "pid_started_at": None,
        "owner_pid": None,
        "owner_started_at": None,
        "started_at": None,
        "ended_at": None,
        "earlier_seconds": job.seconds(),
        "step": checkpoint.step,
        "error": None,
        "advice": None,
        "signal": None,
        "params": {**job.params, "resume_from": str(checkpoint.path.relative_to(run.root))},
    }
    with store.transaction():
        if not store.enqueue(run_id, RESUMABLE, **changes):
            raise JobError(f"{run_id} was resumed already.", "Look at it in Runs.")
        run.stop_request.unlink(missing_ok=True)
        events = EventWriter(run.events)
        events.write("state", state=QUEUED, resumed_from_step=checkpoint.step)
        for path, why in broken:
            message = f"{path.name} cannot be used ({why}); going on from {checkpoint.name}."
            events.write("log", level="warning", message=message)
        write_record(run.root, store.get(run_id))
    return store.get(run_id)


def delete_run(workspace: Workspace, store: Store, run_id: str) -> None:
    """Deletes a run with its evaluations and exports: rows and folder.

    Raises JobError while one of them is at work.
    """
    run_job(store, run_id)
    folder = workspace.run(run_id).root
    going = folder.with_name(f".deleting-{run_id}")
    with store.transaction():
        jobs = store.list(run_id=run_id)
        busy = [job for job in jobs if job.active]
        if busy:
            raise JobError(
                f"{run_id} is at work ({busy[0].kind}: {busy[0].state}).", "Stop it first."
            )
        if folder.exists():
            folder.rename(going)  # at once, so that a half deleted folder is never read as a run
        for job in jobs:
            store.delete(job.id)
    if going.exists():
        shutil.rmtree(going)


def rename_run(workspace: Workspace, store: Store, run_id: str, name: str) -> Job:
    """Changes the name that lists and charts show; an empty one takes the id."""
    if len(name) > 80:
        raise JobError(f"A name of {len(name)} characters is too long.", "Take at most 80.")
    return _describe(workspace, store, run_id, name=name.strip() or run_id)


def note_run(workspace: Workspace, store: Store, run_id: str, note: str) -> Job:
    """Changes the note that is kept with the run."""
    return _describe(workspace, store, run_id, note=note)


def run_job(store: Store, run_id: str) -> Job:
    """The training with this id. Raises JobError when there is none."""
    job = store.find(run_id)
    if job is None or job.kind != "train":
        raise JobError(f"There is no run {run_id}.", "See which there are: runs list.")
    return job


def _describe(workspace: Workspace, store: Store, run_id: str, **changes: str) -> Job:
    run_job(store, run_id)
    store.update(run_id, **changes)
    update_record(workspace.run(run_id).root, **changes)
    return store.get(run_id)


def _submit_task(
    workspace: Workspace, store: Store, kind: str, run_id: str, params: dict[str, Any]
) -> Job:
    run = run_job(store, run_id)
    find_trained(workspace.run(run_id), params.get("checkpoint", FINAL))
    task_id, folder = _new_folder(workspace.run(run_id).root / TASK_FOLDERS[kind])
    job = Job(
        id=task_id,
        kind=kind,
        run_id=run_id,
        folder=folder.relative_to(workspace.root).as_posix(),
        name=f"{kind} {run.name}",
        model=run.model,
        dataset=run.dataset,
        params=params,
    )
    return _enqueue(workspace, store, job)


def _enqueue(workspace: Workspace, store: Store, job: Job) -> Job:
    """The folder first, then the row: a scheduler may take the job as soon as the row is there."""
    folder = workspace.root / job.folder
    EventWriter(folder / "events.jsonl").write("state", state=QUEUED)
    write_record(folder, job)
    return store.add(job)


def _new_folder(parent: Path) -> tuple[str, Path]:
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        name = new_id()
        try:
            (parent / name).mkdir()
        except FileExistsError:
            continue
        return name, parent / name


def _device_problems(config: RunConfig, devices: Sequence[str] | None) -> list[Problem]:
    here = list(devices) if devices is not None else local_devices()
    device = config.training.device
    accelerators = [name for name in here if name != "cpu"]
    found = []
    if not serves(here, device):
        known = ", ".join(here)
        message = f"{device} is not on this machine, which has {known}. Choose one, or auto."
        found.append(Problem("training.device", message))
    if config.training.precision == "fp16" and (device == "cpu" or not accelerators):
        message = "fp16 needs an accelerator; a CPU trains in bf16 or fp32. Set precision to auto."
        found.append(Problem("training.precision", message, ("training.device",)))
    return found


def _data_problems(workspace: Workspace, config: RunConfig) -> list[Problem]:
    try:
        info = load_dataset_info(workspace, config.data.dataset)
    except TunesmithError as error:
        return [Problem("data.dataset", str(error))]
    if config.evaluation.eval_strategy != "no" and not info.counts.eval:
        message = (
            f"the data set {info.name} has no evaluation rows. Set it to no, or import the data "
            "again with a part held out."
        )
        return [Problem("evaluation.eval_strategy", message, ("data.dataset",))]
    return []
