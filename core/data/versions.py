"""The states of a data set: made by steps, kept as they are, gone back to; and steps tried before
anybody applies them.

A data set keeps its rows as they were imported, and for each version the files of its parts. A
version never changes, so a run can go on with the rows it began with whatever happens to the set
since; `dataset.json` says which version is the current one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.data.build import SCRATCH, build_version, setting_of
from core.data.pipeline import Files, try_steps
from core.data.record import IMPORTED, PARTS, VERSIONS, DatasetInfo, StepResult, Version
from core.data.registry import changing, load_dataset_info
from core.data.rowfile import RowWriter, iter_rows
from core.data.steps import parse_steps
from core.data.steps.base import Step
from core.errors import DataError
from core.language import _
from core.progress import Tell
from core.workspace import Workspace

if TYPE_CHECKING:
    from core.jobs.store import Store


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
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=info.folder))
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
            progress(1.0, _("Done"))
        return changed


def undo(workspace: Workspace, dataset_id: str) -> DatasetInfo:
    """Goes back to the version that the current one was made from."""
    with changing(workspace, dataset_id) as info:
        current = next((one for one in info.versions if one.number == info.version), None)
        numbers = {one.number for one in info.versions}
        first = current is None or current.parent == current.number
        if current is None or first or current.parent not in numbers:
            raise DataError(
                _("{name} is as it was imported; there is nothing to undo.", name=info.name),
                _("Apply a step first."),
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


TRIED_ROWS = 10_000


def try_in_order(
    workspace: Workspace,
    dataset_id: str,
    steps: Sequence[Step],
    *,
    imported: bool = False,
    rows: int = TRIED_ROWS,
    progress: Tell | None = None,
) -> list[StepResult]:
    """What the steps, one after the other, would do to the first `rows` rows of each part; nothing
    is written.

    The rows are those of the current version, or as they were `imported`, which shows what another
    setting of a step that is recorded already would do. Raises DataError when a step does not fit.
    """
    if progress:
        progress(0.0, _("Trying"))
    info = load_dataset_info(workspace, dataset_id)
    now = {part: info.rows_path(part) for part in info.parts}
    files = imported_files(info) if imported else now
    return try_steps(info.form, steps, setting_of(workspace, info), files, rows, progress)
