"""Stands in for what needs a machine: the scheduler, the pool and the hardware probe.

Workspace, store, files and the page itself are real. `python -m tests.webui.fakes FOLDER PORT`
serves the page over these, for looking at it.
"""

from __future__ import annotations

import sys
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.jobs.store import Store
from core.workspace import Workspace
from webui.context import App


@dataclass
class FakeScheduler:
    """Takes no job; notes what it was asked."""

    asked: list[str] = field(default_factory=list)

    def start(self) -> None:
        self.asked.append("start")

    def warm(self) -> None:
        self.asked.append("warm")

    def close(self, stop_runs: bool = False) -> None:
        self.asked.append("close")


class FakePool:
    """Runs the work at once, in this process."""

    def submit(self, function: Any, *args: Any) -> Future:
        future: Future = Future()
        try:
            future.set_result(function(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Nothing to end."""


class FakeHardware:
    def describe(self) -> str:
        return "CPU, 2 cores"


def fake_app(root: Path) -> App:
    workspace = Workspace.open(root)
    return App(
        workspace=workspace,
        store=Store.open(workspace),
        scheduler=FakeScheduler(),
        pool=FakePool(),
        hardware=FakeHardware(),
    )


if __name__ == "__main__":
    from webui.app import build
    from webui.server import launch, wait

    app = fake_app(Path(sys.argv[1]))
    print(
        launch(
            build(app), app.workspace, host="127.0.0.1", port=int(sys.argv[2]), auth=None,
            root_path=None,
        ),
        flush=True,
    )
    wait(lambda: 0, lambda: None)
