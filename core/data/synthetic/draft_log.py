"""The drafts of a task in one file that only grows, so that a crash loses at most its last line.

Each line is a JSON object: a reply with its rows and what it took; a person's decision on drafts;
a row as a person changed it; or which drafts went into a file of accepted rows. The drafts are
numbered from 1 in the order in which they stand. A torn line counts as not written.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import orjson
from filelock import FileLock

from core.data.read.row import Row

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
            self.unusable.update(line.get("problems") or {})
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
