"""The states of a data set: made by steps, kept as they are, gone back to.

A data set keeps its rows as they were imported, and for each version the files of its parts. A
version never changes, so a run can go on with the rows it began with whatever happens to the set
since; `dataset.json` says which version is the current one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from core.data.pipeline import Files, Pipeline
from core.data.record import (
    IMPORTED,
    PARTS,
    VERSIONS,
    DatasetInfo,
    Part,
    Version,
    read_record,
)
from core.data.record import Split as SplitRecord
from core.data.rowfile import (
    RowWriter,
    count_rows,
    fingerprint,
    iter_rows,
    label_counts,
    release_memory,
)
from core.data.steps import parse_steps
from core.data.steps.base import Setting, Step
from core.errors import DataError
from core.progress import Tell
from core.workspace import Workspace

if TYPE_CHECKING:
    from core.jobs.store import Store


_SCRATCH = ".scratch-"
_LOCK = ".lock"
_PLAIN_COLUMNS = {
    "text": ("text",),
    "prompt-completion": ("prompt", "completion"),
    "messages": ("messages",),
    "preference": ("prompt", "chosen", "rejected"),
    "unpaired-preference": ("prompt", "completion", "label"),
    "prompt-only": ("prompt", "answer"),
    "labelled-text": ("text", "label"),
}


def named_columns(info: DatasetInfo) -> tuple[str, ...]:
    """The names that conditions, templates and groups may use for the rows of a data set."""
    return (*_PLAIN_COLUMNS[info.form], *(n for n in info.columns if n not in ("text", "label")))


def setting_of(workspace: Workspace, info: DatasetInfo, folder: Path | None = None) -> Setting:
    return Setting(
        workspace, info.form, folder or info.folder, columns=(*named_columns(info), "part")
    )


def recorded_steps(info: DatasetInfo) -> list[Step]:
    """The steps of the current version, as they can be run again."""
    return parse_steps([result.step for result in info.steps])


def imported_files(info: DatasetInfo) -> Files:
    """The rows before any step, by part."""
    folder = info.folder / IMPORTED
    if not folder.is_dir():  # from before there were versions: what is there is the beginning
        return {part: info.rows_path(part) for part in info.parts}
    paths: Files = {part: folder / f"{part}.parquet" for part in PARTS}
    return {part: path for part, path in paths.items() if path.is_file()}


def _keep_as_imported(info: DatasetInfo) -> None:
    """Writes the rows of a set from before there were versions as rows are written now."""
    if (info.folder / IMPORTED).is_dir():
        return
    scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=info.folder))
    making = scratch / IMPORTED
    try:
        making.mkdir()
        for part in info.parts:
            with RowWriter(making / f"{part}.parquet", info.form) as writer:
                for rows in iter_rows(info.rows_path(part)):
                    for row in rows:
                        writer.add(row)
        making.rename(info.folder / IMPORTED)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def build_version(
    workspace: Workspace,
    info: DatasetInfo,
    files: Mapping[Part, Path],
    steps: Sequence[Step],
    folder: Path,
    progress: Tell | None = None,
) -> None:
    """Runs the steps over `files` and puts the result where version `info.version` of the data
    set in `folder` lies; fills in what `info` says of it. Raises DataError; then nothing new is
    in the folder but an empty `versions`."""
    scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=folder))
    try:
        pipeline = Pipeline(
            info.form, steps, setting_of(workspace, info, folder), scratch, progress
        )
        result = pipeline.run(files)
        place = folder / VERSIONS / str(info.version)
        made = scratch / "version"
        made.mkdir()
        given = set(files.values())
        for part, path in result.items():
            target = made / f"{part}.parquet"
            if path in given:
                _linked(path, target)
            else:
                path.rename(target)
        place.parent.mkdir(exist_ok=True)
        shutil.rmtree(place, ignore_errors=True)  # of an attempt that was killed
        made.rename(place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        release_memory()
    parts = [(part, place / f"{part}.parquet") for part in PARTS if part in result]
    counted = {part: count_rows(path) for part, path in parts}
    counts = info.counts.model_copy(update={part: counted.get(part, 0) for part in PARTS})
    info.counts = counts
    info.steps = pipeline.results
    info.labels = label_counts(parts[0][1]) if info.form == "labelled-text" else {}
    info.fingerprint = fingerprint(info.form, parts)
    info.created_at = now()
    info.split = _split_record(info.split, steps)


def now() -> str:
    return datetime.now(UTC).astimezone().isoformat(timespec="milliseconds")


def _linked(path: Path, target: Path) -> None:
    """The same file under another name, so that it takes no room twice; a copy where the disk
    knows no links."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


def _split_record(before: SplitRecord, steps: Sequence[Step]) -> SplitRecord:
    for step in steps:
        if step.op == "split":
            values = step.model_dump(include={"eval_fraction", "test_fraction", "seed"})
            return before.model_copy(update=values)
    return before.model_copy(update={"eval_fraction": 0.0, "test_fraction": 0.0})


def apply_steps(
    workspace: Workspace,
    dataset_id: str,
    steps: Sequence[Step],
    *,
    note: str = "",
    progress: Tell | None = None,
) -> DatasetInfo:
    """Makes a new version: the imported rows after `steps`, which replace the current ones.

    Raises DataError (ConfigError from a step's own check) and changes nothing then.
    """
    with changing(workspace, dataset_id) as info:
        _keep_as_imported(info)
        files = imported_files(info)
        if not info.versions:
            info.remember()
        parent = info.version
        changed = info.model_copy(deep=True)
        changed.version = max(one.number for one in info.versions) + 1
        build_version(workspace, changed, files, steps, info.folder, progress)
        changed.remember(note, parent)
        changed.save()
        if progress:
            progress(1.0, "Done")
        return changed


def undo(workspace: Workspace, dataset_id: str) -> DatasetInfo:
    """Goes back to the version that the current one was made from."""
    with changing(workspace, dataset_id) as info:
        current = next((one for one in info.versions if one.number == info.version), None)
        numbers = {one.number for one in info.versions}
        first = current is None or current.parent == current.number
        if current is None or first or current.parent not in numbers:
            raise DataError(
                f"{info.name} is as it was imported; there is nothing to undo.",
                "Apply a step first.",
            )
        return _switched(info, current.parent)


def use_version(workspace: Workspace, dataset_id: str, number: int) -> DatasetInfo:
    """Makes a version the current one. Raises DataError when it is gone."""
    with changing(workspace, dataset_id) as info:
        return _switched(info, number)


def _switched(info: DatasetInfo, number: int) -> DatasetInfo:
    switched = info.at(number)
    switched.save()
    return switched


def with_fingerprint(info: DatasetInfo, wanted: str) -> DatasetInfo:
    """The record at the version with this fingerprint; the current one where there is none."""
    if not wanted or wanted == info.fingerprint:
        return info
    for one in reversed(info.versions):
        if one.fingerprint == wanted:
            return info.at(one.number)
    return info


def prune_versions(workspace: Workspace, dataset_id: str, store: Store) -> list[int]:
    """Deletes all versions but the current one, its parent, and those that a run which has not
    ended needs; gives the numbers of the deleted ones."""
    from core.config import read_config

    needed = set()
    for job in store.list(kind="train"):
        if not job.ended and job.dataset == dataset_id:
            config = read_config(workspace.run(job.id).config)
            needed.add(config.data.dataset_fingerprint)
    with changing(workspace, dataset_id) as info:
        current = next((one for one in info.versions if one.number == info.version), None)
        kept_numbers = {info.version, current.parent if current else info.version}

        def stays(one: Version) -> bool:
            return one.number in kept_numbers or one.fingerprint in needed

        gone = [one.number for one in info.versions if not stays(one)]
        info.versions = [one for one in info.versions if stays(one)]
        info.save()
        for number in gone:
            if number:
                shutil.rmtree(info.folder / VERSIONS / str(number), ignore_errors=True)
        return gone


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
                # Parquet's own errors carry the number, and their text twice.
                "The data set could not be written: "
                f"{os.strerror(error.errno) if error.errno else error}.",
                "Look at the free space of the workspace's disk; the data set is as it was.",
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
            f"The data set {folder.name} is being changed at this moment.",
            "Wait until that is done, then try again.",
        ) from None
    try:
        if os.listdir(folder) == [_LOCK]:  # the lock alone: it was deleted a moment ago
            shutil.rmtree(folder, ignore_errors=True)
            raise DataError(
                f"There is no data set {folder.name}.", "Look at the list of data sets."
            )
        yield
    finally:
        lock.release()


def _clear_unfinished(folder: Path, info: DatasetInfo) -> None:
    """Removes what is left of work that was killed or failed: its scratch folders, and versions
    that did not get into the record. Only for whoever holds the lock."""
    numbers = {str(one.number) for one in info.versions} | {str(info.version)}
    unknown = [path for path in (folder / VERSIONS).glob("*") if path.name not in numbers]
    for path in (*folder.glob(f"{_SCRATCH}*"), *unknown):
        shutil.rmtree(path, ignore_errors=True)


def recipe_of(info: DatasetInfo) -> dict[str, Any]:
    """What makes the same kind of set of another file: form, mapping, system prompt, steps.

    Steps that add rows of this set alone are left out.
    """
    recipe: dict[str, Any] = {}
    if info.source_form:
        recipe["form"] = info.source_form
    if info.mapping:
        recipe["mapping"] = dict(info.mapping)
    if info.system_prompt:
        recipe["system_prompt"] = info.system_prompt
    recipe["steps"] = [one.step for one in info.steps if one.step.get("op") != "add_rows"]
    return recipe
