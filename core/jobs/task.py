"""What an evaluation or export sees of its own folder: parameters, progress, the stop request."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.jobs.events import EventWriter
from core.jobs.job import read_record
from core.workspace import RunFolder, write_atomic

# Told with a share from 0 to 1 and what is being done. Raises Stopped when a stop was asked for.
Tell = Callable[[float, str], None]

RESULT = "result.json"
_SECONDS_BETWEEN = 0.5


class Stopped(Exception):
    """Somebody asked the task to stop."""


class Task:
    """An evaluation or export in `runs/<run id>/<evaluations|exports>/<id>/`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = RunFolder(folder.parent.parent)
        self.params: dict[str, Any] = read_record(folder).get("params") or {}
        self._events = EventWriter(folder / "events.jsonl")
        self._begun = time.monotonic()
        self._told = (-1.0, "", 0.0)  # share, message, when

    def check_stop(self) -> None:
        """Raises Stopped when a stop was asked for."""
        if (self.folder / "STOP").exists():
            raise Stopped

    def tell(self, fraction: float, message: str) -> None:
        """A progress event, at most two a second; the time left follows from the share done."""
        self.check_stop()
        share, said, when = self._told
        now = time.monotonic()
        fraction = min(max(fraction, share), 1.0)
        if fraction < 1 and message == said and now - when < _SECONDS_BETWEEN:
            return
        self._told = (fraction, message, now)
        elapsed = now - self._begun
        left = round(elapsed * (1 - fraction) / fraction, 1) if fraction > 0.02 else None
        self._events.write(
            "progress", fraction=round(fraction, 4), message=message, eta_seconds=left
        )

    def part(self, begin: float, end: float) -> Tell:
        """A `tell` for a part of the work that takes the shares from `begin` to `end`."""
        return lambda share, message: self.tell(begin + (end - begin) * share, message)

    def log(self, message: str, level: str = "info") -> None:
        self._events.write("log", message=message, level=level)

    def finish(self, result: dict[str, Any]) -> None:
        """Writes result.json, whole or not at all, and then the event that tells of it."""
        text = json.dumps(result, ensure_ascii=False, indent=1, allow_nan=False)
        write_atomic(self.folder / RESULT, text + "\n")
        self.tell(1.0, "Done")
        self._events.write("result", **result)


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result that a task left, None while there is none."""
    try:
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return result if isinstance(result, dict) else None
