"""Work on a data set that takes a while: one at a time, seen by every browser that looks at it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from core.data.registry import load_dataset_info
from core.errors import JobError, TunesmithError
from webui import background, messages
from webui.context import App, stamp


@dataclass
class Work:
    """A task with its title."""

    title: str
    task: background.Task

    def bar(self) -> str:
        """How far it is, as HTML."""
        return bar(self.task, self.title)


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

    def get(self, key: str) -> Work | None:
        """The work on `key`, also when it is done and nobody has seen that yet."""
        return self._works.get(key)

    def forget(self, key: str, work: Work) -> None:
        """Its end was shown."""
        with self._lock:
            if self._works.get(key) is work:
                del self._works[key]

    def stop(self, key: str) -> None:
        work = self._works.get(key)
        if work is not None:
            work.task.stop()


def bar(task: background.Task, title: str = "") -> str:
    """How far a task is and how long it still takes, as HTML."""
    words = [title, task.message if task.message != title else ""]
    text = ": ".join(word for word in words if word) or "Starting"
    if task.fraction:
        text += f", {task.fraction:.0%}"
    left = task.left()
    if left is not None:
        text += f", about {messages.duration(left)} left"
    return messages.progress(task.fraction or None, text)


def version_of(app: App, dataset: str) -> Any:
    """The value of `shared.version`, which tells the other parts of the page which rows there are
    now."""
    try:
        return stamp(load_dataset_info(app.workspace, dataset))
    except TunesmithError:
        return gr.skip()
