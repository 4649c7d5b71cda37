"""Short work that still takes longer than a click: a look, a trial, a download.

It runs in a thread of the server and tells how far it is. The handler that began it looks at the
`Task` and yields what the page shows; whoever wants it to end calls `stop`. Of several answers to
the same part of the page, only the one that was asked for last counts (`Newest`). What must outlive
the server is a job (`webui.job_progress`).
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.config import RunConfig
from core.errors import ConfigError, TunesmithError
from core.language import _
from core.models.location import ensure_model, local_model
from core.progress import Stopped
from core.runs.check import start_problems
from core.runs.cluster import cluster_problems
from core.runs.submit import submit_run

if TYPE_CHECKING:
    from core.jobs.job import Job
    from core.jobs.store import Store
    from core.workspace import Workspace


# How often a task is looked at, in seconds.
GLANCE = 0.25
# Before that, the pace says nothing of the time left: seconds, and share done.
_SOON = 2.0
_LITTLE = 0.03
# How long what was left behind may take to say its last word, in seconds.
_PATIENCE = 10.0


@dataclass
class Task:
    """How far some work is, and what came of it: `result`, or `error`, which it has as well when
    it was `stopped`."""

    fraction: float | None = None
    message: str = ""
    result: Any = None
    error: TunesmithError | None = None
    stopped: bool = False
    begun: float = field(default_factory=time.monotonic)
    done: threading.Event = field(default_factory=threading.Event)
    _stop: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        """Ends the work at its next sign of progress."""
        self._stop.set()

    def tell(self, fraction: float, message: str) -> None:
        """What the work calls to say how far it is; raises when it was stopped."""
        if self._stop.is_set():
            raise Stopped
        self.fraction, self.message = fraction, message

    def left(self) -> float | None:
        """The seconds that are left by the pace so far; None while that cannot be told."""
        passed = time.monotonic() - self.begun
        telling = self.fraction is not None and _LITTLE <= self.fraction < 1
        if not self.fraction or not telling or passed < _SOON:
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


@dataclass
class Watch:
    """A task as one page watches it."""

    task: Task
    _over: threading.Event = field(default_factory=threading.Event)
    _left: threading.Event = field(default_factory=threading.Event)

    @property
    def wanted(self) -> bool:
        """Whether the page still waits for what comes of it."""
        return not self._over.is_set()

    def glances(self) -> Iterator[Task]:
        """The task, a few times a second, until it is done or the page has turned away."""
        while self.wanted and not self.task.done.is_set():
            yield self.task
            self.task.done.wait(GLANCE)

    def end(self) -> None:
        """Comes back when whoever yields to the page has yielded for the last time."""
        self._over.set()
        self._left.wait(_PATIENCE)

    def leave(self) -> None:
        self._left.set()


class Watches:
    """What each page watches: one task at a time.

    A task that a page has turned away from says no more to it: nothing late is written over what
    came after it. A handler that watches yields the end last, or `gr.skip()` when the page has
    turned away: Gradio sends what came last once more when a generator ends. Nothing may follow
    the end: the browser is told what differs and mends the answer before in place, which a slow
    one has perhaps not drawn yet (`gr.skip()` then takes the end away).
    """

    def __init__(self) -> None:
        self._watches: dict[str, Watch] = {}
        self._lock = threading.Lock()

    @contextmanager
    def watch(self, page: str, task: Task) -> Iterator[Watch]:
        """The watch of a page, in the stead of the one before."""
        self.leave(page)
        watch = Watch(task)
        with self._lock:
            self._watches[page] = watch
        try:
            yield watch
        finally:
            watch.leave()
            with self._lock:
                if self._watches.get(page) is watch:
                    del self._watches[page]

    def watched(self, page: str) -> Task | None:
        """What the page watches now."""
        watch = self._watches.get(page)
        return watch.task if watch else None

    def leave(self, page: str) -> Task | None:
        """Ends the watch of a page and gives its task; afterwards that says no more."""
        with self._lock:
            watch = self._watches.pop(page, None)
        if watch is None:
            return None
        watch.end()
        return watch.task


def begin(work: Callable[[Task], Any], message: str = "") -> Task:
    """Starts `work(task)`; what it returns becomes the result."""
    task = Task(message=message)

    def run() -> None:
        try:
            task.result = work(task)
        except Stopped:
            task.stopped = True
            hint = _("Nothing was changed; what was downloaded is kept.")
            task.error = TunesmithError(_("Stopped."), hint)
        except TunesmithError as error:
            task.error = error
        except Exception as error:
            task.error = TunesmithError(
                f"{type(error).__name__}: {error}", _("The server's terminal shows where.")
            )
            raise
        finally:
            task.done.set()

    here = contextvars.copy_context()  # with the language of who asks
    threading.Thread(target=here.run, args=(run,), daemon=True).start()
    return task


def start_run(
    workspace: Workspace,
    store: Store,
    config: RunConfig,
    submit: Callable[[Workspace, Store, RunConfig], Job] = submit_run,
) -> Task:
    """Fetches the base model of `config` if it is not here, then puts the run in the queue, or
    whatever else `submit` does.

    The result is the Job. What keeps the run from being started is found before the model is
    fetched for nothing; where it is here already, `submit_run` finds it.
    """

    def work(task: Task) -> Any:
        fetching = local_model(workspace, config.model.model_name_or_path) is None
        problems = start_problems(workspace, config) or cluster_problems(config) if fetching else []
        if problems:
            raise ConfigError(problems)
        ensure_model(config.model.model_name_or_path, workspace, task.tell, fetch=False)
        task.tell(1.0, _("Putting the run in the queue"))
        return submit(workspace, store, config)

    return begin(work, _("Looking for the model"))


@dataclass
class Newest:
    """The value of a `gr.State`, which each browser's session has a copy of.

    Gradio answers two choices at the same time, and the answer to the first may come last: the page
    would show what is no longer chosen. A handler asks when it begins and is silent when another
    has asked since.
    """

    asked: object = None

    def ask(self) -> object:
        """A token of its own for the handler that begins."""
        mine = self.asked = object()
        return mine

    def is_newest(self, mine: object) -> bool:
        return self.asked is mine
