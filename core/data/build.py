"""How a data set and a version of one come to be: made beside their place and renamed into it, so
that each is there as a whole or not at all."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tempfile
import time
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from core.data.pipeline import Pipeline
from core.data.record import DELETED, PARTS, SAMPLE_ID, VERSIONS, DatasetInfo, Part
from core.data.record import Split as SplitRecord
from core.data.rowfile import count_rows, fingerprint, label_counts, release_memory
from core.data.steps.base import Setting, Step
from core.errors import DataError, reason_of
from core.language import _
from core.progress import Tell
from core.workspace import Workspace

_TEMPORARY = ".import-"
_LOCK = ".lock"
_SECONDS_TO_LOCK = 60
_SECONDS_TO_DELETE = 3600


def free_ids(name: str) -> Iterator[str]:
    """Ids from a name: `my-tickets`, `my-tickets-2`, ... The sample keeps its own."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_name).strip("-")[:60].strip("-") or "data"
    if slug != SAMPLE_ID:
        yield slug
    for number in itertools.count(2):
        yield f"{slug}-{number}"


class Said:
    """Progress of parts of the work as progress of the whole, at most a hundred times."""

    def __init__(self, progress: Tell | None) -> None:
        self._progress, self._reported = progress, -1.0

    def say(self, fraction: float, message: str) -> None:
        if self._progress and fraction >= self._reported + 0.01:
            self._reported = fraction
            self._progress(min(fraction, 1.0), message)

    def part(self, begin: float, end: float) -> Tell:
        return lambda fraction, message: self.say(begin + (end - begin) * fraction, message)


@contextmanager
def scratch(workspace: Workspace) -> Iterator[Path]:
    """A folder for one import, gone afterwards whatever happens."""
    _clear_abandoned(workspace)
    try:
        folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=workspace.datasets))
        lock = FileLock(folder / _LOCK)
        lock.acquire()
    except OSError as error:
        raise not_written(error) from error
    try:
        yield folder
    except OSError as error:
        raise not_written(error) from error
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)
        release_memory()


def publish(
    workspace: Workspace, info: DatasetInfo, ready: Path, ids: Iterable[str], said: Said
) -> DatasetInfo:
    """Renames the finished folder to the first free id: a data set is there whole or not at all.

    Raises DataError when no id is left."""
    for candidate in ids:
        place = workspace.dataset(candidate)
        if place.exists():
            continue
        info.id = candidate
        info.save(ready)
        try:
            # Fails where somebody else's full folder came in between.
            os.rename(ready, place)
        except OSError:
            if place.exists():
                continue
            raise
        info.folder = place
        said.say(1.0, _("Done"))
        return info
    raise DataError(_("The id of the data set is taken."), _("Choose another name."))


def _clear_abandoned(workspace: Workspace) -> None:
    """Removes what was left behind when an import or a deletion was killed."""
    for folder in workspace.datasets.glob(".*-*"):
        try:
            age = time.time() - folder.stat().st_mtime
        except FileNotFoundError:  # another import has just finished
            continue
        dead = folder.name.startswith(_TEMPORARY) and age > _SECONDS_TO_LOCK and _is_free(folder)
        if dead or (folder.name.startswith(DELETED) and age > _SECONDS_TO_DELETE):
            shutil.rmtree(folder, ignore_errors=True)


def _is_free(folder: Path) -> bool:
    """Whether nobody works in the folder of an import: its lock ends with the process."""
    try:
        with FileLock(folder / _LOCK, timeout=0):
            return True
    except (Timeout, OSError):
        return False


def not_written(error: OSError) -> DataError:
    return DataError(
        _("The data set could not be written: {reason}.", reason=reason_of(error)),
        _("Look at the free space and the rights of the workspace's folder, then import again."),
    )


SCRATCH = ".scratch-"
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
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=folder))
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
