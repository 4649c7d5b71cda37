"""What a person does with drafts: read, accept, edit or reject them, and take them over."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from core.data.drafts.rows import checked_row
from core.data.drafts.tasks import (
    FOLDER,
    Draft,
    DraftTask,
    Status,
    append,
    drafts_of,
    load_task,
    read_log,
)
from core.data.record import DatasetInfo
from core.data.registry import load_dataset_info
from core.errors import DataError
from core.language import _, n_
from core.progress import Tell
from core.workspace import Workspace, write_atomic


@dataclass(frozen=True)
class AddedRows:
    """A file of accepted rows: its path from the data set's folder, as the step add_rows wants
    it, and the form of its rows."""

    path: str
    sha256: str
    count: int
    form: str


def read_drafts(
    workspace: Workspace,
    dataset_id: str,
    task_id: str,
    offset: int = 0,
    limit: int = 20,
    status: Status | Literal["taken"] | None = None,
) -> tuple[list[Draft], int]:
    """(drafts `offset` to `offset + limit` of those with this status, how many these are)."""
    info = load_dataset_info(workspace, dataset_id)
    drafts = drafts_of(info, load_task(workspace, dataset_id, task_id))
    if status == "taken":
        drafts = [draft for draft in drafts if draft.taken]
    elif status:
        drafts = [draft for draft in drafts if draft.status == status and not draft.taken]
    offset = max(offset, 0)
    return drafts[offset : offset + limit], len(drafts)


def accept(workspace: Workspace, dataset_id: str, task_id: str, ids: Sequence[int]) -> DraftTask:
    """Accepts drafts; they go into the data set when they are taken over."""
    return _decide(workspace, dataset_id, task_id, ids, "accepted")


def reject(workspace: Workspace, dataset_id: str, task_id: str, ids: Sequence[int]) -> DraftTask:
    """Rejects drafts: they stay in the list and are never taken over."""
    return _decide(workspace, dataset_id, task_id, ids, "rejected")


def edit(
    workspace: Workspace, dataset_id: str, task_id: str, draft_id: int, row: Mapping[str, Any]
) -> Draft:
    """Changes a draft's row. Raises DataError that names the wrong field; then nothing changed."""
    info = load_dataset_info(workspace, dataset_id)
    task = load_task(workspace, dataset_id, task_id)
    _reviewable(info, task, [draft_id])
    given = {name: value for name, value in row.items() if name != "meta"}
    changed = checked_row(given, task.drafts_form, task.labels)
    append(task.log, {"edit": draft_id, "row": changed})
    return drafts_of(info, task)[draft_id - 1]


def take_over(workspace: Workspace, dataset_id: str, task_id: str) -> AddedRows:
    """Writes the accepted drafts that are not in a data set yet to a file of their own.

    The file is named by what it holds and never changes: the step that adds it can be done again
    at any time. Raises DataError when there is nothing to take over.
    """
    info = load_dataset_info(workspace, dataset_id)
    task = load_task(workspace, dataset_id, task_id)
    drafts = [d for d in drafts_of(info, task) if d.status == "accepted" and not d.taken]
    if not drafts:
        raise DataError(_("No accepted draft is waiting."), _("Accept some drafts first."))
    origin: dict[str, Any] = {
        "synthetic": task.settings.kind,
        "synthetic_model": task.settings.model,
    }
    # A step reads standard rows; an import makes `meta` of the columns that it has no use for.
    beside = origin if task.makes_dataset else {"meta": origin}
    lines = [orjson.dumps({**draft.row, **beside}).decode() + "\n" for draft in drafts]
    text = "".join(lines)
    digest = hashlib.sha256(text.encode()).hexdigest()
    name = f"accepted-{digest[:12]}.jsonl"
    write_atomic(task.folder / name, text)
    append(task.log, {"file": name, "ids": [draft.id for draft in drafts]})
    path = f"{FOLDER}/{task.id}/{name}"
    return AddedRows(path, digest, len(drafts), task.drafts_form)


def became_dataset(workspace: Workspace, dataset_id: str, added: AddedRows, made: str) -> None:
    """Marks the drafts of a file as taken into the data set `made`, which is another one."""
    _folder, task_id, name = added.path.split("/")
    task = load_task(workspace, dataset_id, task_id)
    ids = [draft.id for draft in read_log(task.log).drafts if draft.file == name]
    append(task.log, {"file": name, "ids": ids, "dataset": made})


def add_to_dataset(
    workspace: Workspace,
    dataset_id: str,
    task_id: str,
    *,
    name: str | None = None,
    progress: Tell | None = None,
) -> DatasetInfo:
    """Takes the accepted drafts over into the data set, by a step that can be undone.

    Drafts of another form become a data set of their own, called `name`. Returns the data set
    that the rows are in now.
    """
    from core.data import prepare, versions
    from core.data.steps import parse_step, with_step

    info = load_dataset_info(workspace, dataset_id)
    task = load_task(workspace, dataset_id, task_id)
    added = take_over(workspace, dataset_id, task_id)
    if not task.makes_dataset:
        step = parse_step({"op": "add_rows", "file": added.path, "sha256": added.sha256})
        steps = with_step(versions.recorded_steps(info), step)
        note = n_(
            "{n} row written by {model}",
            "{n} rows written by {model}",
            added.count,
            model=task.settings.model,
        )
        return versions.apply_steps(workspace, info.id, steps, note=note, progress=progress)
    made = prepare.import_dataset(
        workspace,
        [info.folder / added.path],
        name=name or f"{info.name}, {task.settings.kind.replace('_', ' ')}",
        form=added.form,
        progress=progress,
    )
    became_dataset(workspace, dataset_id, added, made.id)
    return made


def _decide(
    workspace: Workspace, dataset_id: str, task_id: str, ids: Sequence[int], status: Status
) -> DraftTask:
    info = load_dataset_info(workspace, dataset_id)
    task = load_task(workspace, dataset_id, task_id)
    _reviewable(info, task, ids)
    if ids:
        append(task.log, {"status": status, "ids": list(ids)})
    return load_task(workspace, dataset_id, task_id)


def _reviewable(info: DatasetInfo, task: DraftTask, ids: Sequence[int]) -> None:
    drafts = drafts_of(info, task)
    for number in ids:
        if not 1 <= number <= len(drafts):
            raise DataError(
                _("There is no draft {number}.", number=number),
                _("They are numbered from 1 to {last}.", last=len(drafts)),
            )
        if drafts[number - 1].taken:
            raise DataError(
                _("Draft {number} is in the data set already.", number=number),
                _("Undo the step that added it first, or leave it out."),
            )
