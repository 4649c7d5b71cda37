"""One job, its states, and `job.json`: what the store knows of it, kept in the job's own folder.

Train: runs/<run>/. Evaluate: runs/<run>/evaluations/<id>/. Export: runs/<run>/exports/<id>/.
Work on data: jobs/<id>/.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from filelock import FileLock

from core.errors import WorkspaceError
from core.jobs.events import event_seconds, read_events
from core.jobs.kinds import KINDS
from core.jobs.process import named
from core.jobs.told import Told
from core.language import _, pack, unpack
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

    def belongs_to(self, job_id: str | None) -> bool:
        """Whether it is this job, or one that this job has put into the queue; to None all do."""
        return job_id in (None, self.id, self.params.get("put_by"))

    def seconds(self, now: float | None = None) -> float:
        """Time worked so far or in all, the pauses between attempts left out."""
        if self.started_at is None:
            return self.earlier_seconds
        end = self.ended_at or now or time.time()
        return self.earlier_seconds + max(0.0, end - self.started_at)


# Of this workspace's schedulers, not of the job: they stay out of its folder.
_NOT_IN_FOLDER = {"owner_pid", "owner_started_at"}


def write_record(folder: Path, job: Job) -> None:
    """Writes `job.json` anew from the store's row."""
    values = {key: value for key, value in asdict(job).items() if key not in _NOT_IN_FOLDER}
    with _lock(folder):
        _write(folder, values)


def update_record(folder: Path, **changes: Any) -> None:
    """Changes fields of `job.json`; the worker, the scheduler and the page may do so at once."""
    with _lock(folder):
        _write(folder, read_record(folder) | changes)


def _write(folder: Path, values: dict[str, Any]) -> None:
    text = json.dumps(pack(values), indent=1, ensure_ascii=False)
    write_atomic(folder / "job.json", text + "\n")


def read_record(folder: Path) -> dict[str, Any]:
    """The content of `job.json`; {} where there is none that can be read."""
    try:
        values = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return unpack(values) if isinstance(values, dict) else {}


def scan(workspace: Workspace, known: Collection[str] = ()) -> Iterator[Job]:
    """The job of every folder in the workspace, as far as its files tell; but for those `known`.

    A folder whose name is no id is passed over, with a warning in the log.
    """
    folders = [(run, run.name, "train") for run in _named_by_id(workspace.runs)]
    for run, run_id, _kind in list(folders):
        for kind in KINDS.values():
            tasks = _named_by_id(run / kind.folder) if kind.folder else ()
            folders += [(task, run_id, kind.name) for task in tasks]
    folders += [(folder, "", "") for folder in _named_by_id(workspace.jobs)]
    for folder, run_id, made_by in folders:
        job = None if folder.name in known else _in_folder(workspace, folder, run_id, made_by)
        if job is not None:
            yield job


def _named_by_id(parent: Path) -> Iterator[Path]:
    for folder in sorted(parent.glob("[!.]*/")):
        try:
            checked_id(folder.name)
        except WorkspaceError as error:
            log.warning("%s is not read: %s", folder, error)
        else:
            yield folder


def _in_folder(workspace: Workspace, folder: Path, run_id: str, kind: str) -> Job | None:
    """`kind` is what a job in such a place is, "" where that may be several."""
    values = read_record(folder)
    known = get_type_hints(Job)
    usable = {
        key: value
        for key, value in values.items()
        if key in known and key not in _NOT_IN_FOLDER and _fits(value, known[key])
    }
    place = {"folder": folder.relative_to(workspace.root).as_posix(), "run_id": run_id}
    told = _told(folder)
    if usable.get("kind") not in KINDS or usable.get("state") not in STATES:
        # One that is not there belongs to a folder that somebody is just making.
        if not (folder / "job.json").is_file():
            return None
        log.warning("%s/job.json is not read: it tells of no job", folder)
        return _recalled(usable, folder, kind, told, place) if kind else None
    job = Job(**{**usable, "id": folder.name, **place})
    if values.get("id") != folder.name:
        # The worker, if there is one, belongs to the folder that this one was copied from.
        return replace(_caught_up(job, folder, told), pid=None, pid_started_at=None)
    return _caught_up(job, folder, told)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value read from JSON has the type of its field; an int is a float too."""
    parts = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    kinds = tuple(get_origin(part) or part for part in parts)
    return isinstance(value, (*kinds, int) if float in kinds else kinds)


def _told(folder: Path) -> Told:
    told = Told()
    for event in read_events(folder / "events.jsonl"):
        told.add(event)
    return told


def _caught_up(job: Job, folder: Path, told: Told) -> Job:
    """The job as its events tell of it: they are written first, and `job.json` may not yet know."""
    if job.state == QUEUED:
        return job
    job = replace(job, **told.values)
    if job.active and told.state is not None and told.state.get("state") in ENDED:
        return replace(job, **told.end, state=told.state["state"])
    if job.active and (folder / "STOP").exists():
        return replace(job, state="stopping")
    return job


def _recalled(
    usable: dict[str, Any], folder: Path, kind: str, told: Told, place: dict[str, Any]
) -> Job:
    """The job of a folder whose `job.json` is torn, as far as its other files tell."""
    recall = KINDS[kind].recall
    known = named(recall)(folder) if recall else {}
    state = str(told.state.get("state")) if told.state else ""
    # What was asked of one that has not begun stands in job.json alone, where nothing recalls it.
    if state not in (ENDED | {"running"} | ({QUEUED, "starting"} if recall else set())):
        lost = _("Its job.json cannot be read, so nobody knows how it ended.")
        known |= {"error": lost, "advice": _("Look at its files, or start it again.")}
        state = "failed"
    elif told.state is not None and state in ENDED:
        known |= told.end
    begun = [event_seconds(event) for event in read_events(folder / "events.jsonl")[:1]]
    known |= {"created_at": begun[0] if begun else folder.stat().st_mtime}
    usable = {name: value for name, value in usable.items() if name not in ("kind", "state")}
    values = {"name": folder.name, **known, **told.values, **usable}
    return Job(**{**values, **place, "id": folder.name, "kind": kind, "state": state})


def _lock(folder: Path) -> FileLock:
    return FileLock(folder / ".job.lock", timeout=30)
