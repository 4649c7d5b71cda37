"""Where a new data set is made and how it comes to its place."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tempfile
import time
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from core.data.record import DELETED, SAMPLE_ID, DatasetInfo
from core.data.rowfile import release_memory
from core.errors import DataError
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
        said.say(1.0, "Done")
        return info
    raise DataError("The id of the data set is taken.", "Choose another name.")


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
    # Parquet's own errors carry the number, and their text twice.
    reason = os.strerror(error.errno) if error.errno else str(error)
    return DataError(
        f"The data set could not be written: {reason}.",
        "Look at the free space and the rights of the workspace's folder, then import again.",
    )
