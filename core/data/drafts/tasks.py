"""Tasks that write drafts: begin, list, change, delete. For the page and the shell.

A task is a folder datasets/<id>/drafts/<task id>/ with task.json, drafts.jsonl and a file for each
time that accepted rows were taken over. Whether a task is at work is known by a lock that its
process holds, so one that was killed does not look as if it went on.

The drafts stand in one file that only grows, so that a crash loses at most its last line. Each line
is a JSON object: a reply with its rows and what it took; a person's decision on drafts; a row as a
person changed it; or which drafts went into a file of accepted rows. The drafts are numbered from 1
in the order in which they stand. A torn line counts as not written.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, SkipValidation, ValidationError

from core.data.drafts.settings import DraftSettings, draft_settings, drafts_form
from core.data.read.row import Row
from core.data.record import DatasetInfo
from core.data.registry import load_dataset_info
from core.data.rowfile import iter_rows, label_counts
from core.errors import ConfigError, DataError, JobError, Problem
from core.language import N_, _, unpack
from core.methods import StandardForm
from core.remote.endpoint import endpoint_from
from core.sentence import Sentence
from core.workspace import Workspace, checked_id, new_id, write_atomic

State = Literal["working", "stopped", "finished", "failed"]

FOLDER = "drafts"
NOT_STARTED = N_("It has not been started.")
DIED = N_("Its process ended before it was done. Start it again to go on.")

# What may be changed between two stretches of a task: how far and how fast, not what is asked.
CHANGEABLE = (
    "rows token_budget max_cost input_price output_price requests_per_minute requests_at_once "
    "timeout_seconds max_new_tokens"
).split()


class Tally(BaseModel):
    """What came of a task so far. `unusable` counts by reason what was no row; `estimated` says
    that the endpoint told no token counts. `cost` is None where a price is unknown."""

    model_config = ConfigDict(extra="ignore")

    requests: int = 0
    drafts: int = 0
    new: int = 0
    accepted: int = 0
    rejected: int = 0
    taken: int = 0
    duplicates: int = 0
    unusable: Annotated[dict[str, int], SkipValidation] = {}
    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False
    cost: float | None = None

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


class DraftTask(BaseModel):
    """A task as task.json keeps it. `form` is that of the data set, `drafts_form` of the drafts;
    `version` and `fingerprint` say which rows the model was shown; `host` is the endpoint's."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    id: str
    dataset: str
    created_at: str
    settings: DraftSettings
    form: StandardForm
    drafts_form: StandardForm
    labels: list[str] = []
    version: int = 0
    fingerprint: str = ""
    host: str = ""
    state: State = "stopped"
    reason: Sentence = NOT_STARTED
    tally: Tally = Tally()
    folder: Path = Field(default=Path(), exclude=True)

    @property
    def log(self) -> Path:
        return self.folder / "drafts.jsonl"

    @property
    def makes_dataset(self) -> bool:
        """Whether the drafts have another form, so that they become a data set of their own."""
        return self.form != self.drafts_form

    def save(self) -> None:
        text = orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_INDENT_2).decode()
        write_atomic(self.folder / "task.json", text + "\n")


def begin(
    workspace: Workspace, dataset_id: str, settings: Mapping[str, Any] | DraftSettings
) -> DraftTask:
    """A new task, which `run.run_drafts` then works on. Asks nothing yet.

    Raises ConfigError for a wrong setting, ModelError when no endpoint is set.
    """
    info = load_dataset_info(workspace, dataset_id)
    chosen = draft_settings(settings)
    form = drafts_form(chosen, info.form)
    labels = list(label_counts(info.rows_path("train"))) if info.form == "labelled-text" else []
    if chosen.only_label and chosen.only_label not in labels:
        message = _(
            "no row has the label {label!r}; the labels are {labels}.",
            label=chosen.only_label,
            labels=", ".join(labels[:50]) or _("none: it is not labelled text"),
        )
        raise ConfigError([Problem("only_label", message)])
    task = DraftTask(
        id=new_id(),
        dataset=info.id,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        settings=chosen,
        form=info.form,
        drafts_form=form,
        labels=labels,
        version=info.version,
        fingerprint=info.fingerprint,
        host=endpoint_from().host if chosen.source == "endpoint" else "",
    )
    task.folder = info.folder / FOLDER / task.id
    task.save()
    return task


def load_task(workspace: Workspace, dataset_id: str, task_id: str) -> DraftTask:
    """A task with its present tally. Raises DataError when it is missing or broken."""
    return _load(load_dataset_info(workspace, dataset_id), task_id)


def list_tasks(workspace: Workspace, dataset_id: str) -> list[DraftTask]:
    """Every task of a data set that opens, newest first."""
    info = load_dataset_info(workspace, dataset_id)
    names = (path.parent.name for path in (info.folder / FOLDER).glob("[a-z0-9]*/task.json"))
    return sorted((_load(info, name) for name in names), key=lambda t: t.created_at, reverse=True)


def change_task(
    workspace: Workspace, dataset_id: str, task_id: str, changes: Mapping[str, Any]
) -> DraftTask:
    """Other limits for a task that is not at work, such as more rows or tokens (CHANGEABLE)."""
    task = load_task(workspace, dataset_id, task_id)
    fixed = [name for name in changes if name not in CHANGEABLE]
    if fixed:
        message = _("stays as it was in a task that has begun; begin another one.")
        raise ConfigError([Problem(name, message) for name in fixed])
    with at_work(task):
        task.settings = draft_settings({**task.settings.model_dump(), **changes})
        task.save()
    return task


def delete_task(workspace: Workspace, dataset_id: str, task_id: str) -> None:
    """Deletes a task with its drafts. Raises DataError while a version of the data set is made
    with them, JobError while it is at work."""
    info = load_dataset_info(workspace, dataset_id)
    task = _load(info, task_id)
    steps = [*info.steps, *(step for version in info.versions for step in version.steps)]
    if any(name.startswith(f"{FOLDER}/{task.id}/") for name in _added_files(steps)):
        raise DataError(
            _("Rows of the task {id} are in the data set {name}.", id=task.id, name=info.name),
            _("Its steps read them again at each change, so they are deleted with the data set."),
        )
    with at_work(task):
        doomed = task.folder.with_name(f".deleted-{task.id}")
        os.rename(task.folder, doomed)
    shutil.rmtree(doomed)


@contextmanager
def at_work(task: DraftTask) -> Iterator[None]:
    """Nobody else works on the task meanwhile. Raises JobError when somebody does."""
    lock = FileLock(task.folder / "working.lock", timeout=1.0)
    try:
        lock.acquire()
    except Timeout:
        raise JobError(
            _("The task {id} is at work already.", id=task.id), _("Wait for it, or stop it first.")
        ) from None
    try:
        yield
    finally:
        lock.release()


def tally_of(task: DraftTask, written: Written, info: DatasetInfo | None = None) -> Tally:
    """What came of a task; without `info` nothing counts as taken over."""
    drafts = _marked(written.drafts, info, task) if info else written.drafts
    counts = Counter("taken" if draft.taken else draft.status for draft in drafts)
    return Tally(
        **counts,
        requests=len(written.requests),
        drafts=len(drafts),
        duplicates=written.duplicates,
        unusable={_(reason): count for reason, count in written.unusable.most_common()},
        input_tokens=written.input_tokens,
        output_tokens=written.output_tokens,
        estimated=written.estimated,
        cost=task.settings.cost(written.input_tokens, written.output_tokens),
    )


def seed_rows(info: DatasetInfo, task: DraftTask) -> tuple[Path, Sequence[int]]:
    """(the file of train rows that the task was begun with, the places of those to show)."""
    if info.version != task.version:
        info = info.at(task.version)
    if info.fingerprint != task.fingerprint or not info.rows_path("train").is_file():
        raise DataError(
            _("The rows that this task was begun with are gone."),
            _("Take over what it wrote, and begin another one."),
        )
    path = info.rows_path("train")
    if not task.settings.only_label:
        return path, range(info.counts.train)
    rows = (row for batch in iter_rows(path, columns=["labels"]) for row in batch)
    wanted = task.settings.only_label
    return path, [place for place, row in enumerate(rows) if wanted in row["labels"]]


def _load(info: DatasetInfo, task_id: str) -> DraftTask:
    folder = info.folder / FOLDER / checked_id(task_id)
    try:
        task = DraftTask.model_validate_json((folder / "task.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            _("The data set {name} has no drafts {task_id}.", name=info.name, task_id=task_id),
            _("Look at the list of its drafts."),
        ) from error
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise DataError(
            _(
                "The drafts {task_id} cannot be opened: their task.json is damaged.",
                task_id=task_id,
            ),
            _("Delete the folder and begin again."),
        ) from error
    task.folder = folder
    if task.state == "working" and not _is_held(folder):
        task.state, task.reason = "stopped", _(DIED)
    task.tally = tally_of(task, read_log(task.log), info)
    return task


def _is_held(folder: Path) -> bool:
    lock = FileLock(folder / "working.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    lock.release()
    return False


def drafts_of(info: DatasetInfo, task: DraftTask) -> list[Draft]:
    """Every draft of a task, with what is in a data set by now."""
    return _marked(read_log(task.log).drafts, info, task)


def _marked(drafts: Sequence[Draft], info: DatasetInfo, task: DraftTask) -> list[Draft]:
    """Drafts with what is taken: in another data set, or by a step of this one as it is now."""
    added = _added_files(info.steps)
    return [
        replace(draft, taken=True)
        if draft.file and (draft.dataset or f"{FOLDER}/{task.id}/{draft.file}" in added)
        else draft
        for draft in drafts
    ]


def _added_files(steps: Sequence[Any]) -> set[str]:
    return {
        str(result.step.get("file", "")) for result in steps if result.step.get("op") == "add_rows"
    }


Status = Literal["new", "accepted", "rejected"]


@dataclass(frozen=True)
class Draft:
    """A row that a model wrote. `seeds` are the places of the rows that it was shown, `file` the
    file of accepted rows that it was written to, `taken` whether that is in a data set."""

    id: int
    row: Row
    seeds: tuple[int, ...] = ()
    status: Status = "new"
    edited: bool = False
    file: str = ""
    dataset: str = ""
    taken: bool = False


@dataclass
class Written:
    """All that the file of a task says."""

    drafts: list[Draft] = field(default_factory=list)
    requests: set[int] = field(default_factory=set)
    unusable: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False

    def _take(self, line: dict[str, Any]) -> None:
        if "request" in line:
            self.requests.add(line["request"])
            self._count_problems(line.get("problems") or [])
            self.duplicates += line.get("duplicates", 0)
            self.input_tokens += line.get("input_tokens", 0)
            self.output_tokens += line.get("output_tokens", 0)
            self.estimated |= bool(line.get("estimated"))
            for row in line["rows"]:
                seeds = tuple(line["seeds"])
                self.drafts.append(Draft(len(self.drafts) + 1, row, seeds))
        elif "status" in line:
            self._change(line["ids"], status=line["status"])
        elif "edit" in line:
            self._change([line["edit"]], row=line["row"], edited=True)
        elif "file" in line:
            self._change(line["ids"], file=line["file"], dataset=line.get("dataset", ""))

    def _count_problems(self, problems: list[dict[str, Any]] | dict[str, int]) -> None:
        if isinstance(problems, dict):  # as it was written before there were other languages
            problems = [{"reason": reason, "count": n} for reason, n in problems.items()]
        for one in problems:
            self.unusable[unpack(one["reason"])] += one["count"]

    def _change(self, ids: Sequence[int], **changes: Any) -> None:
        for number in ids:
            self.drafts[number - 1] = replace(self.drafts[number - 1], **changes)


def read_log(path: Path) -> Written:
    """What a task's file says; treat it as fixed, for it is kept while the file stays as it is."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return Written()
    return _read(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=8)
def _read(path: Path, size: int, changed_ns: int) -> Written:
    written = Written()
    with path.open("rb") as file:
        for text in file.read(size).splitlines():
            try:
                line = orjson.loads(text)
            except orjson.JSONDecodeError:
                continue  # torn when its writer was killed: the request is asked again
            if isinstance(line, dict):
                written._take(line)
    return written


def append(path: Path, line: dict[str, Any]) -> None:
    """Adds a line and waits until it is on the disk. Several processes may do so."""
    data = orjson.dumps(line) + b"\n"
    with FileLock(path.with_suffix(".lock")), path.open("ab+") as file:
        if file.tell() or file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a torn line must not swallow this one
                data = b"\n" + data
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
