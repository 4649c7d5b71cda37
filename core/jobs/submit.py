"""What a person can ask of jobs: start, evaluate, export, stop, resume, move, rename, delete.

The page and the shell call the same functions. None of them needs a scheduler: they write the
folder and the row, and whichever scheduler looks after the workspace sees it.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.config import RunConfig, load_config, parse_config
from core.config.chain import continues, run_and_checkpoint
from core.config.needs import need_problems
from core.data.chat_templates import MODELS_OWN, keep_with_run, load_template
from core.data.fit import data_problems
from core.data.prompted import reward_problems
from core.data.record import DatasetInfo
from core.data.registry import load_dataset_info
from core.errors import ConfigError, JobError, ModelError, Problem, TunesmithError
from core.jobs.chain import built_on, chain_problems
from core.jobs.checkpoints import last_good_checkpoint
from core.jobs.devices import asked_device, local_devices, serves
from core.jobs.events import EventWriter, read_events
from core.jobs.job import TASK_FOLDERS, update_record, write_record
from core.jobs.store import ACTIVE, QUEUED, Job, Store
from core.models.adapter_fit import adapter_problems
from core.models.kinds import model_problems
from core.models.lay_origin import lay_longer, lay_origin
from core.models.trained import FINAL, find_trained
from core.workspace import RunFolder, Workspace, new_id

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

    `resume_from` is the folder of a checkpoint to begin from; one of the run `parent_id` comes
    along into the new run, with the curves before it. `devices` is what this machine has (looked
    up when not given). Raises ConfigError when the config does not fit this machine or
    the data set, WorkspaceError when the checkpoint lies outside what may be read.
    """
    begin_at = workspace.confine(resume_from) if resume_from else None
    config = parse_config(config.model_dump())
    problems = start_problems(workspace, config, devices, goes_on=begin_at is not None)
    if problems:
        raise ConfigError(problems)
    # Whatever becomes of the data set while the run waits: it learns from what it is now.
    info = load_dataset_info(workspace, config.data.dataset)
    config.data.dataset_fingerprint = info.fingerprint
    run_id, folder = _new_folder(workspace.runs)
    config.save(folder / "config.yaml")
    # It may be changed or deleted while the run waits.
    keep_with_run(folder, config.data.chat_template, workspace)
    params = {"device": config.training.device}
    try:
        begin, step = _take_over(workspace, RunFolder(folder), config, parent_id, begin_at)
    except BaseException:
        shutil.rmtree(folder)
        raise
    if begin is not None:
        params["resume_from"] = begin
    elif continues(config):
        parent_id, _ = run_and_checkpoint(config)
    job = Job(
        id=run_id,
        kind="train",
        run_id=run_id,
        folder=folder.relative_to(workspace.root).as_posix(),
        name=config.name or run_id,
        device=config.training.device,
        model=config.model.model_name_or_path,
        dataset=config.data.dataset,
        step=step,
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
    """Puts an export of a run's model in the queue. Raises ModelError when it left none, or none
    of this format."""
    if params.get("format") == "merged" and run_job(store, run_id):
        trained = find_trained(workspace.run(run_id), str(params.get("checkpoint") or FINAL))
        if trained.why_not_merged:
            raise ModelError(trained.why_not_merged, "Export it as an adapter.")
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
        longer = f"Train it longer: runs resume {run_id} --training.num_train_epochs 5."
        hint = "It goes on already." if not job.ended else longer
        raise JobError(f"{run_id} is {job.state} and cannot be resumed.", hint)
    checkpoint, broken = last_good_checkpoint(run.checkpoints)
    if checkpoint is None and not changes:
        raise JobError(
            f"{run_id} left no checkpoint to resume from.",
            "Start it again, and save more often with tracking.save_steps.",
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
            raise JobError(f"{run_id} was resumed already.", "Look at it in Runs.")
        run.stop_request.unlink(missing_ok=True)
        events = EventWriter(run.events)
        events.write("state", state=QUEUED, resumed_from_step=step)
        if changes:
            parse_config(load_config(run.config).values() | dict(changes)).save(run.config)
        for field, value in (changes or {}).items():
            choice = {"field": field, "value": value, "reason": "changed when it was resumed"}
            message = f"{field.rpartition('.')[2]}: {value} (changed when it was resumed)"
            events.write("log", level="info", message=message, choice=choice)
        for path, why in broken:
            went = checkpoint.name if checkpoint else "the start"
            message = f"{path.name} cannot be used ({why}); going on from {went}."
            events.write("log", level="warning", message=message)
        write_record(run.root, store.get(run_id))
    return store.get(run_id)


def delete_run(
    workspace: Workspace, store: Store, run_id: str, *, though_built_on: bool = False
) -> None:
    """Deletes a run with its evaluations and exports: rows and folder.

    Raises JobError while one of them is at work, and when other runs began with it, unless that
    is known (`though_built_on`): they have what they need of it, but nobody could look it up.
    """
    run_job(store, run_id)
    later = [] if though_built_on else built_on(store, run_id)
    if later:
        names = ", ".join(job.name for job in later)
        raise JobError(
            f"{run_id} is what {names} began with.",
            "They keep what they need of it. To delete it all the same: runs delete "
            f"{run_id} --though-built-on",
        )
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


def _take_over(
    workspace: Workspace,
    run: RunFolder,
    config: RunConfig,
    parent_id: str | None,
    checkpoint: Path | None,
) -> tuple[str | None, int]:
    """(the checkpoint that the run begins at, its step), once what the run needs of another one is
    in its folder: a model, or a parent's checkpoint with its curves as far as that."""
    if checkpoint is None:
        lay_origin(run, config, workspace)
        return None, 0
    if parent_id is None:
        return str(checkpoint), 0
    parent = workspace.run(parent_id)
    if checkpoint.parent != parent.checkpoints.resolve():
        raise JobError(
            f"{checkpoint} is no checkpoint of {parent_id}.", "Choose one that the run left."
        )
    place = lay_longer(run, parent, checkpoint.name)
    step = int(checkpoint.name.rpartition("-")[2])
    with run.events.open("w", encoding="utf-8") as file:
        for event in read_events(parent.events):
            if event["kind"] in ("metrics", "sample") and event.get("step", step + 1) <= step:
                file.write(json.dumps(event, ensure_ascii=False) + "\n")
    return place.relative_to(run.root).as_posix(), step


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


def start_problems(
    workspace: Workspace,
    config: RunConfig,
    devices: Sequence[str] | None = None,
    *,
    goes_on: bool = False,
) -> list[Problem]:
    """All that keeps a run from being started, as far as the model is here: what `submit_run`
    would refuse. One that `goes_on` has what an earlier run began with."""
    _, data_problems = _data_problems(workspace, config)
    return [
        *_device_problems(config, devices),
        *data_problems,
        *_template_problems(workspace, config),
        *model_problems(workspace, config),
        *adapter_problems(workspace, config),
        *([] if goes_on else chain_problems(workspace, config)),
        *need_problems(config, local_devices() if devices is None else devices),
    ]


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


def _data_problems(
    workspace: Workspace, config: RunConfig
) -> tuple[DatasetInfo | None, list[Problem]]:
    try:
        info = load_dataset_info(workspace, config.data.dataset)
    except TunesmithError as error:
        return None, [Problem("data.dataset", str(error))]
    return info, [*data_problems(info, config), *reward_problems(info, config, workspace)]


def _template_problems(workspace: Workspace, config: RunConfig) -> list[Problem]:
    try:
        if config.data.chat_template != MODELS_OWN:
            load_template(config.data.chat_template, workspace)
    except TunesmithError as error:
        return [Problem("data.chat_template", str(error))]
    return []
