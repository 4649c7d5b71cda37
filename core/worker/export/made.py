"""What an export has finished, so that one that was stopped or killed goes on from there.

An export is written in `.unfinished` in its job's folder; a file there names the parts that are
whole. The next export of the same run, format and settings takes that folder over. One that was
made of something else, such as a base that has changed since, goes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from core.export.unfinished import UNFINISHED
from core.jobs.job import read_record
from core.jobs.task import Task
from core.language import _
from core.workspace import write_atomic

MADE = ".made.json"
_MAKERS = ("torch", "transformers", "peft")


@dataclass
class Made:
    """The parts that are whole, by their paths in `folder`; `stamp` is of what they are made of."""

    folder: Path
    stamp: str
    parts: list[str]

    def make(self, place: Path, write: Callable[[], None]) -> None:
        """Calls `write` unless the file or folder is whole; what is half there goes before."""
        name = place.relative_to(self.folder).as_posix()
        if name in self.parts and place.exists():
            return
        if place.is_file():
            place.unlink()
        elif place != self.folder:
            shutil.rmtree(place, ignore_errors=True)
        write()
        self.parts.append(name)
        text = json.dumps({"stamp": self.stamp, "parts": self.parts})
        write_atomic(self.folder / MADE, text)


def stamp_of(asked: dict[str, Any], folders: Iterable[Path]) -> str:
    """Changes with what was asked for, the files in `folders` and the packages that make it."""
    known = sha256(json.dumps(asked, sort_keys=True, default=str).encode())
    known.update(" ".join(map(version, _MAKERS)).encode())
    for folder in folders:
        for path in sorted(folder.glob("*.*")):
            found = path.stat()
            known.update(f"{path.resolve()} {found.st_size} {found.st_mtime_ns}\n".encode())
    return known.hexdigest()


def take_over(task: Task, stamp: str) -> Made:
    """The folder to write in, with what an earlier export of this stamp had finished."""
    folder = task.folder / UNFINISHED
    for left in sorted(task.run.exports.glob(f"*/{UNFINISHED}")):
        lock = FileLock(left.parent / ".worker.lock", timeout=0)
        try:
            if left != folder:  # its own lock this worker holds already
                lock.acquire()
        except Timeout:  # another worker is busy there
            continue
        try:
            _take(left, folder, stamp, task)
        finally:
            lock.release()
    folder.mkdir(exist_ok=True)
    made = Made(folder, stamp, _finished(folder, stamp) or [])
    if made.parts:
        task.log(
            _(
                "Goes on from an export of the same settings that did not end: {names} are there.",
                names=", ".join(name.lstrip(".") or task.params["format"] for name in made.parts),
            )
        )
    return made


def _take(left: Path, folder: Path, stamp: str, task: Task) -> None:
    """Takes what was left over, or away if it is of no use to any export."""
    if _finished(left, stamp) is None:
        before = read_record(left.parent).get("params") or {}
        names = ("format", "checkpoint")
        if left == folder or all(before.get(name) == task.params.get(name) for name in names):
            shutil.rmtree(left, ignore_errors=True)
    elif not folder.exists():
        left.rename(folder)


def _finished(folder: Path, stamp: str) -> list[str] | None:
    """The whole parts in a folder; None where it is of another stamp or cannot be read."""
    try:
        found = json.loads((folder / MADE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return list(found["parts"]) if found.get("stamp") == stamp else None
