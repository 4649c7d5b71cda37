"""What a job other than a training sees of its folder: parameters, progress, the stop request."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from core.jobs.events import EventWriter
from core.jobs.job import read_record
from core.language import _, pack, unpack
from core.progress import Stopped, Tell
from core.workspace import RunFolder, Workspace, write_atomic

RESULT = "result.json"
_SECONDS_BETWEEN, _SECONDS_OF_SILENCE = 0.5, 5.0
_LOOK_SECONDS = 0.2


class Task:
    """A job at work in its folder; `run` is that of an evaluation or export."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = RunFolder(folder.parent.parent)
        self.params: dict[str, Any] = read_record(folder).get("params") or {}
        self._events = EventWriter(folder / "events.jsonl")
        self._begun = time.monotonic()
        self._told = (-1.0, "", 0.0)  # share, message, when
        self._interrupted = False  # a stop reaches the work by itself
        self._done = threading.Event()  # nothing stops it any more

    def check_stop(self) -> None:
        """Raises Stopped when a stop was asked for."""
        if (self.folder / "STOP").exists():
            raise Stopped

    def tell(self, fraction: float, message: str) -> None:
        """A progress event, at most two a second; the time left follows from the share done."""
        if not self._interrupted:
            self.check_stop()
        elif fraction >= 1:
            self._done.set()
        share, said, when = self._told
        now = time.monotonic()
        fraction = min(max(fraction, share), 1.0)
        wait = _SECONDS_OF_SILENCE if fraction == share else _SECONDS_BETWEEN
        if fraction < 1 and message == said and now - when < wait:
            return
        self._told = (fraction, message, now)
        elapsed = now - self._begun
        left = round(elapsed * (1 - fraction) / fraction, 1) if fraction > 0.02 else None
        self._events.write(
            "progress", fraction=round(fraction, 4), message=message, eta_seconds=left
        )

    @contextmanager
    def interrupted_by_stop(self) -> Iterator[None]:
        """While it lasts, a stop raises Stopped wherever the work is, silent or not; once, so that
        what is half written can be taken away, and no more when the work has told that it is done.
        """
        before = signal.signal(signal.SIGTERM, self._stop)
        self._interrupted = True
        threading.Thread(target=self._wait_for_stop, daemon=True).start()
        try:
            yield
        finally:
            self._done.set()
            signal.signal(signal.SIGTERM, before)

    def _stop(self, *_: Any) -> None:
        if not self._done.is_set():
            self._done.set()
            raise Stopped

    def _wait_for_stop(self) -> None:
        while not self._done.wait(_LOOK_SECONDS):
            if (self.folder / "STOP").exists():
                if sys.platform == "win32":
                    signal.raise_signal(signal.SIGTERM)
                else:  # ends what the main thread waits for, too
                    ident = threading.main_thread().ident or 0
                    signal.pthread_kill(ident, signal.SIGTERM)
                return

    def part(self, begin: float, end: float) -> Tell:
        """A `tell` for a part of the work that takes the shares from `begin` to `end`."""
        return lambda share, message: self.tell(begin + (end - begin) * share, message)

    def log(self, message: str, level: str = "info") -> None:
        self._events.write("log", message=message, level=level)

    def finish(self, result: dict[str, Any]) -> None:
        """Writes result.json, whole or not at all, and then the event that tells of it."""
        text = json.dumps(pack(result), ensure_ascii=False, indent=1, allow_nan=False)
        write_atomic(self.folder / RESULT, text + "\n")
        self._events.write("progress", fraction=1.0, message=_("Done"), eta_seconds=0.0)
        self._events.write("result", **result)


Work = Callable[[Workspace, Mapping[str, Any], Tell], dict[str, Any]]


def stoppable(work: Work) -> Callable[[Path, Path], str]:
    """What a kind of job does (`Kind.target`), of a function that gives a result; a stop reaches
    it wherever it is."""

    @wraps(work)
    def run(folder: Path, workspace_root: Path) -> str:
        task = Task(Path(folder))
        try:
            with task.interrupted_by_stop():
                result = work(Workspace.open(workspace_root), task.params, task.tell)
        except Stopped:
            return "stopped"
        task.finish(result)
        return "finished"

    return run


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result that a task left, None while there is none."""
    try:
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return unpack(result) if isinstance(result, dict) else None
