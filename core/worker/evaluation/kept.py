"""Answers that were written so far: an evaluation that was stopped, or whose process or machine
died, is gone on with by the next one of its run, at the rows that had none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAME = "answered.jsonl"


@dataclass(frozen=True)
class Answers:
    """Of one model: `known` by the place of what is asked, and what to call with each new one."""

    known: dict[int, str] = field(default_factory=dict)
    wrote: Callable[[int, str], None] = lambda place, text: None


class Kept:
    """In the folder of an evaluation, until one has come to its end."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        before = sorted(folder.parent.glob(f"*/{NAME}"))
        self._known = {key: (text, path) for path in before for key, text in _read(path)}
        self._used = {self._path}
        self.taken = 0

    def answers(self, who: Iterable[object], asked: Sequence[Any], most: int) -> Answers:
        """Those of the model that is known by `who`, to prompts of JSON, of at most `most`
        tokens."""
        about = [*map(str, who), most]
        keys = [
            hashlib.sha256(json.dumps([*about, one], ensure_ascii=False).encode()).hexdigest()
            for one in asked
        ]
        found = {place: self._known[key] for place, key in enumerate(keys) if key in self._known}
        self.taken += len(found)
        self._used |= {path for _text, path in found.values()}

        def wrote(place: int, text: str) -> None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([keys[place], text], ensure_ascii=False) + "\n")

        return Answers({place: text for place, (text, _path) in found.items()}, wrote)

    def forget(self) -> None:
        """What was kept stands in a report now."""
        for path in self._used:
            path.unlink(missing_ok=True)


def stamp(path: str | Path) -> str:
    """Another text when a file, or a file of a folder, is another one."""
    place = Path(path)
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    found = [(file.name, file.stat()) for file in files if file.is_file()]
    return f"{place} {[(name, one.st_size, one.st_mtime_ns) for name, one in found]}"


def _read(path: Path) -> Iterator[tuple[str, str]]:
    """(key, answer) of each whole line: the last one may be torn."""
    with suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            with suppress(ValueError, TypeError):
                key, text = json.loads(line)
                yield key, text
