"""Starting a run when its model may still have to be fetched.

The work is done in a thread of the server, so that it goes on when the browser is closed: it
fetches the base model if that is needed, then submits the run. The page looks at the `Start`, and
may stop it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from core.config import RunConfig
from core.errors import TunesmithError
from core.jobs.submit import submit_run
from core.models.starter import ensure_model

if TYPE_CHECKING:
    from core.jobs.store import Job, Store
    from core.workspace import Workspace


class Cancelled(TunesmithError):
    """The person stopped the start before there was a run."""


@dataclass
class Start:
    """One press of the button: how far it is, and what came of it."""

    fraction: float | None = None
    message: str = "Looking for the model"
    job: Job | None = None
    error: TunesmithError | None = None
    done: threading.Event = field(default_factory=threading.Event)
    _stop: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        """Ends the fetch at its next sign of progress; a run that was submitted is not touched."""
        self._stop.set()

    def tell(self, fraction: float, message: str) -> None:
        if self._stop.is_set():
            raise Cancelled("The start was stopped.", "What was downloaded is kept.")
        self.fraction, self.message = fraction, message


def begin(workspace: Workspace, store: Store, config: RunConfig) -> Start:
    """Fetches the base model of `config` if it is not here, then puts the run in the queue."""

    def work(start: Start) -> None:
        ensure_model(config.model.model_name_or_path, workspace, start.tell)
        start.tell(1.0, "Putting the run in the queue")
        start.job = submit_run(workspace, store, config)

    return _in_background(work)


def fetch(workspace: Workspace, name: str) -> Start:
    """Only fetches the model called `name`; `Start.job` stays None."""

    def work(start: Start) -> None:
        ensure_model(name, workspace, start.tell)

    return _in_background(work)


def _in_background(work: Callable[[Start], None]) -> Start:
    start = Start()

    def run() -> None:
        try:
            work(start)
        except TunesmithError as error:
            start.error = error
        except Exception as error:
            start.error = TunesmithError(
                f"{type(error).__name__}: {error}", "The server's terminal shows where."
            )
            raise
        finally:
            start.done.set()

    threading.Thread(target=run, daemon=True).start()
    return start
