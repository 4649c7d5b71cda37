"""What stopped and killed exports left: parts that the next export of the same settings goes on
from, until somebody deletes them."""

from __future__ import annotations

import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from core.export.package import folder_bytes
from core.jobs.job import ENDED, read_record
from core.workspace import RunFolder

UNFINISHED = ".unfinished"


def unfinished_bytes(run_folder: Path) -> int:
    """How much the exports of a run that ended before they were finished take."""
    return sum(map(folder_bytes, _left(run_folder)))


def delete_unfinished(run_folder: Path) -> int:
    """Deletes it, but for what a worker is busy with; how many bytes went."""
    gone = 0
    for folder in _left(run_folder):
        try:
            with FileLock(folder.parent / ".worker.lock", timeout=0):
                size = folder_bytes(folder)
                shutil.rmtree(folder)
                gone += size
        except (Timeout, FileNotFoundError):  # an export has taken it
            continue
    return gone


def _left(run_folder: Path) -> list[Path]:
    found = sorted(RunFolder(run_folder).exports.glob(f"*/{UNFINISHED}"))
    return [folder for folder in found if read_record(folder.parent).get("state") in ENDED]
