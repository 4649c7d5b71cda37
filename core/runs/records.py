"""The runs there are: list them, look one up, rename, note, delete."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConfigError, JobError
from core.jobs.job import QUEUED, Job, update_record
from core.jobs.kinds import KINDS
from core.jobs.store import Store
from core.language import N_, _
from core.rules import load_config
from core.runs.lineage import built_on
from core.runs.naming import run_title
from core.workspace import RunFolder, Workspace

RESUMABLE = frozenset({"stopped", "failed", "died"})
STATE_WORDS = {
    "queued": N_("queued"),
    "starting": N_("starting"),
    "running": N_("running"),
    "stopping": N_("stopping"),
    "finished": N_("finished"),
    "stopped": N_("stopped"),
    "failed": N_("failed"),
    "died": N_("died"),
}


@dataclass(frozen=True)
class RunSummary:
    """A run as lists show it. `queue_position` counts from 1, None when it does not wait.

    `resumable` says that it ended early and left a checkpoint.
    """

    job: Job
    folder: RunFolder
    duration_seconds: float
    resumable: bool
    queue_position: int | None

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def state(self) -> str:
        return self.job.state

    @property
    def size_bytes(self) -> int:
        """Counted anew at each access: it walks through the folder."""
        return folder_size_bytes(self.folder.root)


def list_runs(workspace: Workspace, store: Store) -> list[RunSummary]:
    """Every run, newest first."""
    waiting = [job.id for job in store.list(states={QUEUED}) if job.run_id]
    return [_summary(workspace, job, waiting) for job in store.list(kind="train")]


def load_run(workspace: Workspace, store: Store, run_id: str) -> RunSummary:
    """One run. Raises JobError when there is none."""
    waiting = [job.id for job in store.list(states={QUEUED}) if job.run_id]
    return _summary(workspace, run_job(store, run_id), waiting)


def run_job(store: Store, run_id: str) -> Job:
    """The training with this id. Raises JobError when there is none."""
    job = store.find(run_id)
    if job is None or job.kind != "train":
        raise JobError(
            _("There is no run {run}.", run=run_id), _("See which there are: runs list.")
        )
    return job


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
            _("{run} is what {names} began with.", run=run_id, names=names),
            _(
                "They keep what they need of it. To delete it all the same: runs delete {run} "
                "--though-built-on",
                run=run_id,
            ),
        )
    folder = workspace.run(run_id).root
    going = folder.with_name(f".deleting-{run_id}")
    with store.transaction():
        jobs = store.list(run_id=run_id)
        busy = [job for job in jobs if job.active]
        if busy:
            raise JobError(
                _(
                    "{run} is at work ({kind}: {state}).",
                    run=run_id,
                    kind=KINDS[busy[0].kind].doing,
                    state=STATE_WORDS[busy[0].state],
                ),
                _("Stop it first."),
            )
        if folder.exists():
            folder.rename(going)  # at once, so that a half deleted folder is never read as a run
        for job in jobs:
            store.delete(job.id)
    if going.exists():
        shutil.rmtree(going)


def rename_run(workspace: Workspace, store: Store, run_id: str, name: str) -> Job:
    """Changes the name that lists and charts show; an empty one is made of what the run is."""
    if len(name) > 80:
        raise JobError(
            _("A name of {n} characters is too long.", n=len(name)), _("Take at most 80.")
        )
    return _describe(workspace, store, run_id, name=name.strip() or _title(workspace, run_id))


def _title(workspace: Workspace, run_id: str) -> str:
    try:
        return run_title(workspace, load_config(workspace.run(run_id).config))
    except ConfigError:
        return run_id  # its settings are gone


def note_run(workspace: Workspace, store: Store, run_id: str, note: str) -> Job:
    """Changes the note that is kept with the run."""
    return _describe(workspace, store, run_id, note=note)


def folder_size_bytes(folder: Path) -> int:
    """Bytes of all files below `folder`; links are not followed."""
    total = 0
    for parent, _folders, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue  # a checkpoint was rotated away meanwhile
    return total


def _summary(workspace: Workspace, job: Job, waiting: list[str]) -> RunSummary:
    folder = workspace.run(job.id)
    return RunSummary(
        job=job,
        folder=folder,
        duration_seconds=job.seconds(time.time()),
        resumable=job.state in RESUMABLE and any(folder.checkpoints.glob("checkpoint-*/")),
        queue_position=waiting.index(job.id) + 1 if job.id in waiting else None,
    )


def _describe(workspace: Workspace, store: Store, run_id: str, **changes: str) -> Job:
    run_job(store, run_id)
    store.update(run_id, **changes)
    update_record(workspace.run(run_id).root, **changes)
    return store.get(run_id)
