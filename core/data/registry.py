"""The prepared data sets of a workspace: list, open, read, rename, delete."""

from __future__ import annotations

import os
import shutil
import uuid
from typing import Any

from core.data.prepare import ensure_sample
from core.data.record import DELETED, SAMPLE_ID, DatasetInfo, read_record
from core.data.rowfile import read_slice
from core.errors import DataError, WorkspaceError
from core.workspace import Workspace, checked_id

__all__ = [
    "DatasetInfo",
    "damaged_datasets",
    "delete_dataset",
    "list_datasets",
    "load_dataset_info",
    "read_rows",
    "rename_dataset",
]


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


def load_dataset_info(workspace: Workspace, dataset_id: str) -> DatasetInfo:
    """The record of a data set; `sample` is imported on first need. Raises DataError."""
    if dataset_id == SAMPLE_ID:
        return ensure_sample(workspace)
    return read_record(workspace.dataset(dataset_id))


def read_rows(
    workspace: Workspace, dataset_id: str, part: str = "train", offset: int = 0, limit: int = 20
) -> list[dict[str, Any]]:
    """Rows `offset` to `offset + limit` of a part ("train" or "eval") in their standard form."""
    info = load_dataset_info(workspace, dataset_id)
    return read_slice(info.rows_path(part), max(offset, 0), limit)


def rename_dataset(
    workspace: Workspace, dataset_id: str, name: str, description: str | None = None
) -> DatasetInfo:
    """Gives a data set another name (and description). Its id stays, for runs refer to it."""
    info = load_dataset_info(workspace, dataset_id)
    if not name.strip():
        raise DataError("A data set needs a name.", "Type one.")
    info.name = name.strip()
    if description is not None:
        info.description = description.strip()
    info.save()
    return info


def delete_dataset(workspace: Workspace, dataset_id: str) -> None:
    """Deletes a data set, also a damaged one. Who needs it is for the caller to ask."""
    folder = workspace.dataset(dataset_id)
    if not folder.is_dir():
        raise DataError(f"There is no data set {dataset_id}.", "Look at the list of data sets.")
    doomed = workspace.datasets / f"{DELETED}{uuid.uuid4().hex}"
    try:
        # Renamed first: a reader finds all of it or none, whatever the deletion takes.
        os.rename(folder, doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        raise DataError(
            f"The data set {dataset_id} could not be deleted: {error.strerror}.",
            "Look at the rights of the workspace's folder.",
        ) from error
