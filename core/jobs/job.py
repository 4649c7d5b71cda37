"""One job, its states, and `job.json`: what the store knows of it, kept in the job's own folder.

Train: runs/<run>/. Evaluate: runs/<run>/evaluations/<id>/. Export: runs/<run>/exports/<id>/.
Work on data: jobs/<id>/.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from filelock import FileLock

from core.errors import WorkspaceError
from core.jobs.events import event_seconds, read_attempt
from core.jobs.kinds import KINDS
from core.workspace import Workspace, checked_id, write_atomic

log = logging.getLogger(__name__)

QUEUED = "queued"
ACTIVE = frozenset({"starting", "running", "stopping"})
ENDED = frozenset({"finished", "stopped", "failed", "died"})
STATES = frozenset({QUEUED}) | ACTIVE | ENDED


@dataclass(frozen=True)
class Job:
    """One job as the store knows it. Times are seconds since the epoch.

    `folder` is relative to the workspace. `device` is what was asked for until a slot takes the
    job, then the slot's device. `owner_pid` and `owner_started_at` name the process whose
    scheduler looks after it. `earlier_seconds` is the time worked before the last resume.
    """

    id: str
    kind: str
    run_id: str
    folder: str
    name: str = ""
    state: str = QUEUED
    device: str = "auto"
    slot: str | None = None
    created_at: float = field(default_factory=time.time)
    started_at: float | None = None
    ended_at: float | None = None
    earlier_seconds: float = 0.0
    pid: int | None = None
    pid_started_at: float | None = None
    step: int = 0
    max_steps: int = 0
    error: str | None = None
    advice: str | None = None
    signal: int | None = None
    parent_id: str | None = None
    note: str = ""
    model: str = ""
    dataset: str = ""
    best_eval_loss: float | None = None
    position: int = 0
    params: dict[str, Any] = field(default_factory=dict)
    owner_pid: int | None = None
    owner_started_at: float | None = None

    @property
    def active(self) -> bool:
        return self.state in ACTIVE

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    def seconds(self, now: float | None = None) -> float:
        """Time worked so far or in all, the pauses between attempts left out."""
        if self.started_at is None:
            return self.earlier_seconds
        end = self.ended_at or now or time.time()
        return self.earlier_seconds + max(0.0, end - self.started_at)


# Of this workspace's queue and schedulers, not of the job: they stay out of its folder.
_NOT_IN_FOLDER = {"position", "owner_pid", "owner_started_at"}


def write_record(folder: Path, job: Job) -> None:
    """Writes `job.json` anew from the store's row."""
    values = {key: value for key, value in asdict(job).items() if key not in _NOT_IN_FOLDER}
    with _lock(folder):
        write_atomic(folder / "job.json", json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def update_record(folder: Path, **changes: Any) -> None:
    """Changes fields of `job.json`; the worker, the scheduler and the page may do so at once."""
    with _lock(folder):
        values = read_record(folder) | changes
        write_atomic(folder / "job.json", json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def read_record(folder: Path) -> dict[str, Any]:
    """The content of `job.json`; {} where there is none that can be read."""
    try:
        values = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def scan(workspace: Workspace) -> Iterator[Job]:
    """The job of every folder in the workspace, as far as its files tell.

    A folder whose name is no id is passed over, with a warning in the log.
    """
    for run in _named_by_id(workspace.runs):
        yield from _in_folder(workspace, run, run.name)
        for kind in KINDS.values():
            for task in _named_by_id(run / kind.folder) if kind.folder else ():
                yield from _in_folder(workspace, task, run.name)
    for folder in _named_by_id(workspace.jobs):
        yield from _in_folder(workspace, folder, "")


def _named_by_id(parent: Path) -> Iterator[Path]:
    for folder in sorted(parent.glob("[!.]*/")):
        try:
            checked_id(folder.name)
        except WorkspaceError as error:
            log.warning("%s is not read: %s", folder, error)
        else:
            yield folder


def _in_folder(workspace: Workspace, folder: Path, run_id: str) -> Iterator[Job]:
    values = read_record(folder)
    known = get_type_hints(Job)
    usable = {
        key: value
        for key, value in values.items()
        if key in known and key not in _NOT_IN_FOLDER and _fits(value, known[key])
    }
    if usable.get("kind") not in KINDS or usable.get("state") not in STATES:
        if values:
            log.warning("%s/job.json is not read: it tells of no job", folder)
        return
    copied = values.get("id") != folder.name
    relative = folder.relative_to(workspace.root).as_posix()
    job = Job(**{**usable, "id": folder.name, "run_id": run_id, "folder": relative})
    if copied:
        # The worker, if there is one, belongs to the folder that this one was copied from.
        job = replace(job, pid=None, pid_started_at=None)
    yield _caught_up(job, folder)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value read from JSON has the type of its field; an int is a float too."""
    parts = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    kinds = tuple(get_origin(part) or part for part in parts)
    return isinstance(value, (*kinds, int) if float in kinds else kinds)


def _caught_up(job: Job, folder: Path) -> Job:
    """The events are written first: where they tell of an end, `job.json` may not yet."""
    if job.ended:
        return job
    for event in reversed(read_attempt(folder / "events.jsonl")):
        if event["kind"] == "state" and event.get("state") in ENDED:
            return replace(
                job,
                state=event["state"],
                ended_at=event_seconds(event),
                error=event.get("error"),
                advice=event.get("advice"),
                signal=event.get("signal"),
            )
    return job


def _lock(folder: Path) -> FileLock:
    return FileLock(folder / ".job.lock", timeout=30)
