"""Work on a data set that takes a while: one at a time, seen by every browser that looks at it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from core.data.registry import load_dataset_info
from core.errors import JobError, TunesmithError
from webui import background, messages
from webui.context import App, stamp

# Before this, a guess of the time left is worth nothing.
_TELLING_SHARE, _TELLING_SECONDS = 0.03, 2.0


@dataclass
class Work:
    """A task with its title and the time it began, as `time.monotonic` tells it."""

    title: str
    task: background.Task
    began: float = field(default_factory=time.monotonic)

    def seconds_left(self) -> float | None:
        """By how far it has come since it began; None while that says nothing."""
        share, passed = self.task.fraction or 0.0, time.monotonic() - self.began
        if share < _TELLING_SHARE or passed < _TELLING_SECONDS or share >= 1:
            return None
        return passed * (1 - share) / share

    def bar(self) -> str:
        """How far it is, as HTML."""
        left = self.seconds_left()
        words = [self.title, self.task.message if self.task.message != self.title else ""]
        text = ": ".join(word for word in words if word)
        share = self.task.fraction
        if share:
            text += f", {share:.0%}"
        if left is not None:
            text += f", about {messages.duration(left)} left"
        return messages.progress(share or None, text)


class Works:
    """What is being done to which data set. It goes on when the browser is closed."""

    def __init__(self) -> None:
        self._works: dict[str, Work] = {}
        self._lock = threading.Lock()

    def begin(self, key: str, title: str, work: Callable[[background.Task], Any]) -> Work:
        """Starts `work(task)`. Raises JobError while something else is being done to `key`."""
        with self._lock:
            self.check_free(key)
            self._works[key] = Work(title, background.begin(work, title))
            return self._works[key]

    def check_free(self, key: str) -> None:
        """Raises JobError while something is being done to `key`."""
        running = self._works.get(key)
        if running is not None and not running.task.done.is_set():
            raise JobError(f"{running.title} is still going on.", "Wait for it, or stop it.")

    def watch(self, key: str) -> Iterator[Work]:
        """The work on `key` a few times a second, and once more when it is done; nothing if there
        is none. What has been seen done is forgotten."""
        work = self._works.get(key)
        if work is None:
            return
        if not work.task.done.is_set():
            yield work
        for _ in work.task.glances():
            yield work
        with self._lock:
            if self._works.get(key) is work:
                del self._works[key]
        yield work

    def stop(self, key: str) -> None:
        work = self._works.get(key)
        if work is not None:
            work.task.stop()


def version_of(app: App, dataset: str) -> Any:
    """The value of `shared.version`, which tells the other parts of the page which rows there are
    now."""
    try:
        return stamp(load_dataset_info(app.workspace, dataset))
    except TunesmithError:
        return gr.skip()
