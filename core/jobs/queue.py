"""How a job comes into the queue and is asked to stop, whatever its kind.

Neither needs a scheduler: they write the folder and the row, and whichever scheduler looks after
the workspace sees it.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from core.errors import JobError
from core.jobs.events import EventWriter
from core.jobs.job import ACTIVE, ENDED, QUEUED, Job, update_record, write_record
from core.jobs.kinds import KINDS
from core.jobs.store import Store
from core.language import N_, _
from core.workspace import Workspace, new_id

STOP_GENTLY, STOP_NOW = "", "now"
# How long what is left of a job on data is kept once it has ended, seen by somebody or not.
_SEEN_DAYS, _UNSEEN_DAYS = 1, 30
_ENDED = {
    "finished": N_("It has finished already."),
    "stopped": N_("It has stopped already."),
    "failed": N_("It has failed already."),
    "died": N_("It has died already."),
}


def enqueue(workspace: Workspace, store: Store, job: Job) -> Job:
    """The folder before the row is seen: a scheduler may take the job as soon as it is there."""
    folder = workspace.root / job.folder
    EventWriter(folder / "events.jsonl").write("state", state=QUEUED)
    with store.transaction():
        added = store.add(job)
        write_record(folder, added)
    return added


def move_job(workspace: Workspace, store: Store, job_id: str, position: int) -> None:
    """Moves a waiting job to `position` in the queue, 0 being next."""
    with store.transaction():
        store.reorder(job_id, position)
        for job in store.list(states={QUEUED}):
            update_record(workspace.root / job.folder, position=job.position)


def new_folder(store: Store, parent: Path) -> tuple[str, Path]:
    """(an id that no job has, the folder of that name in `parent`), made for it alone."""
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        name = new_id()
        if store.find(name) is not None:  # of another kind, in another folder
            continue
        try:
            (parent / name).mkdir()
        except FileExistsError:
            continue
        return name, parent / name


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
    ended = _ENDED.get(store.get(job_id).state, "")
    raise JobError(_("{job} is not running.", job=job_id), _(ended) if ended else "")


def dismiss_job(workspace: Workspace, store: Store, job_id: str) -> None:
    """Somebody has seen how the job ended: it need not be told any more."""
    with store.transaction():
        job = store.find(job_id)
        if job is not None and job.ended and not job.params.get("seen"):
            params = {**job.params, "seen": True}
            store.update(job_id, params=params)
            update_record(workspace.root / job.folder, params=params)


def forget_old_jobs(workspace: Workspace, store: Store, now: float | None = None) -> None:
    """Removes what is left of jobs on data that ended long ago; their results stay."""
    for job in store.list(states=ENDED):
        folder = workspace.root / job.folder
        if folder.parent != workspace.jobs or KINDS[job.kind].kept and not job.params.get("seen"):
            continue
        days = ((now or time.time()) - (job.ended_at or job.created_at)) / 86400
        if days > (_SEEN_DAYS if job.params.get("seen") else _UNSEEN_DAYS):
            store.delete(job.id)
            shutil.rmtree(folder, ignore_errors=True)
