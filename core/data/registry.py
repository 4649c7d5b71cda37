"""The prepared data sets of a workspace: list, open, read, change, rename, delete."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
from filelock import FileLock, Timeout

from core.data.build import SCRATCH
from core.data.prepare import ensure_sample
from core.data.record import DELETED, SAMPLE_ID, VERSIONS, DatasetInfo, read_record
from core.data.rowfile import DIGEST, META, TableWriter, iter_rows, read_slice, tables
from core.errors import DataError, WorkspaceError, reason_of
from core.jobs.task import read_result
from core.language import _
from core.progress import Tell
from core.workspace import Workspace, checked_id

if TYPE_CHECKING:
    from core.jobs.store import Store


def list_datasets(workspace: Workspace) -> list[DatasetInfo]:
    """Every data set that opens, newest first. The others are in `damaged_datasets`."""
    found = []
    for dataset_id in _ids(workspace):
        try:
            found.append(read_record(workspace.dataset(dataset_id)))
        except DataError:
            continue  # listed by damaged_datasets with its reason
    return sorted(found, key=lambda info: info.created_at, reverse=True)


def damaged_datasets(workspace: Workspace) -> list[tuple[str, str]]:
    """(id, reason) of each folder that should be a data set and does not open."""
    damaged = []
    for dataset_id in _ids(workspace):
        try:
            read_record(workspace.dataset(dataset_id))
        except DataError as error:
            damaged.append((dataset_id, error.message))
    return damaged


def _ids(workspace: Workspace) -> list[str]:
    if not workspace.datasets.is_dir():
        return []
    names = sorted(path.name for path in workspace.datasets.iterdir() if path.is_dir())
    return [name for name in names if _is_id(name)]


def _is_id(name: str) -> bool:
    try:
        return bool(checked_id(name))
    except WorkspaceError:
        return False


def load_dataset_info(workspace: Workspace, dataset_id: str, fingerprint: str = "") -> DatasetInfo:
    """The record of a data set; `sample` is imported on first need. Raises DataError.

    With a `fingerprint`, the version that has it, where there is still one.
    """
    if dataset_id == SAMPLE_ID:
        info = ensure_sample(workspace)
    else:
        info = read_record(workspace.dataset(dataset_id))
    return with_fingerprint(info, fingerprint)


def read_rows(
    workspace: Workspace,
    dataset_id: str,
    part: str = "train",
    offset: int = 0,
    limit: int = 20,
    *,
    fingerprint: str = "",
) -> list[dict[str, Any]]:
    """Rows `offset` to `offset + limit` of a part (train, eval, test) in their standard form.

    `fingerprint` as in `load_dataset_info`.
    """
    info = load_dataset_info(workspace, dataset_id, fingerprint)
    return read_slice(info.rows_path(part), max(offset, 0), limit)


def rename_dataset(
    workspace: Workspace, dataset_id: str, name: str, description: str | None = None
) -> DatasetInfo:
    """Gives a data set another name (and description). Its id stays, for runs refer to it."""
    if not name.strip():
        raise DataError(_("A data set needs a name."), _("Type one."))
    with changing(workspace, dataset_id) as info:
        info.name = name.strip()
        if description is not None:
            info.description = description.strip()
        info.save()
        return info


def delete_dataset(workspace: Workspace, dataset_id: str, store: Store | None = None) -> None:
    """Deletes a data set, also a damaged one, with what was made of it to be saved and what is left
    of the jobs on its rows. Runs stay.

    Raises DataError while it is being changed, and, with the `store` of jobs, while a run that has
    not ended needs it.
    """
    folder = workspace.dataset(dataset_id)
    if not folder.is_dir():
        raise DataError(
            _("There is no data set {name}.", name=dataset_id),
            _("Look at the list of data sets."),
        )
    _check_unneeded(dataset_id, store)
    doomed = workspace.datasets / f"{DELETED}{uuid.uuid4().hex}"
    try:
        # Not held while it is renamed, which some systems forbid for a folder with an open file:
        # a change that begins in between fails, and leaves nothing.
        with only_changer(folder):
            pass
        # Renamed first: a reader finds all of it or none, whatever the deletion takes.
        os.rename(folder, doomed)
        try:
            _check_unneeded(dataset_id, store)
        except DataError:  # by a run that was queued a moment ago
            os.rename(doomed, folder)
            raise
        shutil.rmtree(doomed)
        _remove_traces(workspace, dataset_id, store)
    except OSError as error:
        raise DataError(
            _(
                "The data set {name} could not be deleted: {reason}.",
                name=dataset_id,
                reason=error.strerror,
            ),
            _("Look at the rights of the workspace's folder."),
        ) from error


def _remove_traces(workspace: Workspace, dataset_id: str, store: Store | None) -> None:
    shutil.rmtree(workspace.downloads(dataset_id), ignore_errors=True)
    if store is None:
        return
    for job in store.list():
        folder = workspace.root / job.folder
        if not job.ended or folder.parent != workspace.jobs:
            continue
        if dataset_id in (job.dataset, (read_result(folder) or {}).get("dataset")):
            store.delete(job.id)
            shutil.rmtree(folder, ignore_errors=True)


def _check_unneeded(dataset_id: str, store: Store | None) -> None:
    waiting = [
        job
        for job in (store.list() if store else [])
        if job.dataset == dataset_id and not job.ended
    ]
    if waiting:
        names = ", ".join(dict.fromkeys(job.name or job.id for job in waiting))
        raise DataError(
            _(
                "The data set {name} is needed by {names}, which has not ended.",
                name=dataset_id,
                names=names,
            ),
            _("Wait for it, or stop it first."),
        )


def export_rows(
    workspace: Workspace,
    dataset_id: str,
    path: Path,
    *,
    parts: Sequence[str] = (),
    progress: Tell | None = None,
) -> int:
    """Writes the rows of these parts (all if none) to one file, JSON Lines or Parquet by its
    ending, and returns how many there are. With several parts, a column `part` says which.

    Turns, tools and labels stand as the standard forms have them; what stood beside a row has
    columns of its own in JSON Lines and is JSON text in the column `meta` of Parquet.
    Raises DataError for another ending, or when the file cannot be written; then it is not there.
    """
    info = load_dataset_info(workspace, dataset_id)
    if path.suffix not in (".jsonl", ".parquet"):
        raise DataError(
            _("{name} is no file for rows.", name=path.name),
            _("Give a name in .jsonl or .parquet."),
        )
    chosen = list(parts or info.parts)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".jsonl":
            count = _export_lines(info, temporary, chosen, progress)
        else:
            count = _export_table(info, temporary, chosen)
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(
            _(
                "{path} could not be written: {reason}.",
                path=str(path),
                reason=error.strerror or str(error),
            ),
            _("Choose another place."),
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _export_lines(
    info: DatasetInfo,
    path: Path,
    parts: Sequence[str],
    progress: Tell | None,
) -> int:
    written = 0
    total = max(sum(getattr(info.counts, part, 0) for part in parts), 1)
    with path.open("wb") as file:
        for part in parts:
            for batch in iter_rows(info.rows_path(part)):
                for row in batch:
                    own = {name: value for name, value in row.items() if name != META}
                    beside = {k: v for k, v in (row.get(META) or {}).items() if k not in own}
                    told = {"part": part} if len(parts) > 1 else {}
                    file.write(orjson.dumps({**own, **beside, **told}) + b"\n")
                written += len(batch)
                if progress:
                    progress(written / total, _("Writing the rows"))
    return written


def _export_table(info: DatasetInfo, path: Path, parts: Sequence[str]) -> int:
    writer = TableWriter(path)
    try:
        for part in parts:
            for table in tables(info.rows_path(part)):
                shown = table.drop_columns([c for c in (DIGEST,) if c in table.column_names])
                if len(parts) > 1:
                    shown = shown.append_column("part", pa.array([part] * len(shown)))
                writer.add(shown)
    finally:
        writer.close()
    return writer.count


_LOCK = ".lock"


def with_fingerprint(info: DatasetInfo, wanted: str) -> DatasetInfo:
    """The record at the version with this fingerprint; the current one where there is none."""
    if not wanted or wanted == info.fingerprint:
        return info
    for one in reversed(info.versions):
        if one.fingerprint == wanted:
            return info.at(one.number)
    return info


@contextmanager
def changing(workspace: Workspace, dataset_id: str) -> Iterator[DatasetInfo]:
    """The record of a data set while nobody else changes it. Raises DataError when somebody
    does, and when something cannot be written; what is not in its record is removed again."""
    from core.data.registry import load_dataset_info

    folder = load_dataset_info(workspace, dataset_id).folder
    with only_changer(folder):
        # It may have changed before the lock was ours.
        info = load_dataset_info(workspace, dataset_id)
        _clear_unfinished(folder, info)
        try:
            yield info
        except OSError as error:
            raise DataError(
                _("The data set could not be written: {reason}.", reason=reason_of(error)),
                _("Look at the free space of the workspace's disk; the data set is as it was."),
            ) from error
        finally:
            with suppress(DataError):  # then somebody has deleted it, and nothing is left
                _clear_unfinished(folder, read_record(folder))


@contextmanager
def only_changer(folder: Path) -> Iterator[None]:
    """While nobody else changes the data set in a folder. Raises DataError when somebody does."""
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise DataError(
            _("The data set {name} is being changed at this moment.", name=folder.name),
            _("Wait until that is done, then try again."),
        ) from None
    try:
        if os.listdir(folder) == [_LOCK]:  # the lock alone: it was deleted a moment ago
            shutil.rmtree(folder, ignore_errors=True)
            raise DataError(
                _("There is no data set {name}.", name=folder.name),
                _("Look at the list of data sets."),
            )
        yield
    finally:
        lock.release()


def _clear_unfinished(folder: Path, info: DatasetInfo) -> None:
    """Removes what is left of work that was killed or failed: its scratch folders, and versions
    that did not get into the record. Only for whoever holds the lock."""
    numbers = {str(one.number) for one in info.versions} | {str(info.version)}
    unknown = [path for path in (folder / VERSIONS).glob("*") if path.name not in numbers]
    for path in (*folder.glob(f"{SCRATCH}*"), *unknown):
        shutil.rmtree(path, ignore_errors=True)
