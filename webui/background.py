"""Long work that outlives a click: it runs in a thread of the server and tells how far it is.

A closed browser does not end it. The handler that began it looks at the `Task` and yields what the
page shows; whoever wants it to end calls `stop`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.config import RunConfig
from core.errors import TunesmithError
from core.jobs.submit import submit_run
from core.models.starter import ensure_model

if TYPE_CHECKING:
    from core.jobs.store import Store
    from core.workspace import Workspace

# How often a task is looked at, in seconds.
GLANCE = 0.25
# Before that, the pace says nothing of the time left: seconds, and share done.
_SOON = 2.0
_LITTLE = 0.03


class Stopped(TunesmithError):
    """The person stopped the work."""


@dataclass
class Task:
    """How far some work is, and what came of it: `result`, or `error`."""

    fraction: float | None = None
    message: str = ""
    result: Any = None
    error: TunesmithError | None = None
    begun: float = field(default_factory=time.monotonic)
    done: threading.Event = field(default_factory=threading.Event)
    _stop: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        """Ends the work at its next sign of progress."""
        self._stop.set()

    def tell(self, fraction: float, message: str) -> None:
        """What the work calls to say how far it is; raises when it was stopped."""
        if self._stop.is_set():
            raise Stopped("Stopped.", "Nothing was changed; what was downloaded is kept.")
        self.fraction, self.message = fraction, message

    def left(self) -> float | None:
        """The seconds that are left by the pace so far; None while that cannot be told."""
        passed = time.monotonic() - self.begun
        if not self.fraction or self.fraction < _LITTLE or passed < _SOON:
            return None
        return passed * (1 - self.fraction) / self.fraction

    def glances(self) -> Iterator[Task]:
        """The task, a few times a second, until it is done."""
        while not self.done.wait(GLANCE):
            yield self


class Tasks:
    """The work that browsers have begun and may stop: one for each session."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}

    def watch(self, session: str, task: Task) -> Iterator[Task]:
        """The task, a few times a second, until it is done; meanwhile `stop` reaches it."""
        self._tasks[session] = task
        try:
            yield from task.glances()
        finally:
            self._tasks.pop(session, None)

    def stop(self, session: str) -> bool:
        """Whether there was something to stop."""
        task = self._tasks.get(session)
        if task is not None:
            task.stop()
        return task is not None


def begin(work: Callable[[Task], Any], message: str = "") -> Task:
    """Starts `work(task)`; what it returns becomes the result."""
    task = Task(message=message)

    def run() -> None:
        try:
            task.result = work(task)
        except TunesmithError as error:
            task.error = error
        except Exception as error:
            task.error = TunesmithError(
                f"{type(error).__name__}: {error}", "The server's terminal shows where."
            )
            raise
        finally:
            task.done.set()

    threading.Thread(target=run, daemon=True).start()
    return task


def start_run(workspace: Workspace, store: Store, config: RunConfig) -> Task:
    """Fetches the base model of `config` if it is not here, then puts the run in the queue.

    The result is the Job.
    """

    def work(task: Task) -> Any:
        ensure_model(config.model.model_name_or_path, workspace, task.tell)
        task.tell(1.0, "Putting the run in the queue")
        return submit_run(workspace, store, config)

    return begin(work, "Looking for the model")


def fetch_model(workspace: Workspace, name: str) -> Task:
    """Brings a model to this machine; the result is where it lies."""
    return begin(lambda task: ensure_model(name, workspace, task.tell), "Looking for the model")
