"""Stands in for what needs a machine: the scheduler, the pool and the hardware probe.

Workspace, store, files and the page itself are real. `python -m tests.webui.fakes FOLDER PORT`
serves the page over these, for looking at it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from inspect import unwrap
from pathlib import Path
from typing import Any

from core.jobs.process import named
from core.jobs.store import Store
from core.models.hardware import probe
from core.workspace import Workspace
from webui.context import App
from webui.forms import Form


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
    """One thread of this process instead of a worker process."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1)

    def submit(self, function: Any, *args: Any, within: Any = None) -> Future:
        return self._threads.submit(named(function), *args)

    def close(self) -> None:
        self._threads.shutdown()


def fake_app(root: Path) -> App:
    workspace = Workspace.open(root)
    return App(
        workspace=workspace,
        store=Store.open(workspace),
        scheduler=FakeScheduler(),
        pool=FakePool(),
        hardware=probe(),
    )


if __name__ == "__main__":
    from core.jobs.pool import Pool
    from webui.app import build
    from webui.gate import Hosts
    from webui.server import launch, wait

    app = fake_app(Path(sys.argv[1]))
    app.pool = Pool(app.workspace.root)
    print(
        launch(
            partial(build, app),
            host="127.0.0.1",
            first_port=int(sys.argv[2]),
            hosts=Hosts("127.0.0.1"),
            key=None,
        ),
        flush=True,
    )
    wait(lambda: 0, lambda: None)


def owner_of(event: Any) -> Any:
    """The object whose method answers an event of a page, behind what makes errors plain."""
    return getattr(unwrap(event.fn), "__self__", None) if event.fn else None


def held(form: Form, changed: Mapping[str, Any] | None = None) -> dict[Any, Any]:
    """What a handler gets for the form as it opens, with some of its fields changed."""
    changed = changed or {}
    return {
        part: {
            "values": {p: changed.get(p, value) for p, value in part.value["values"].items()},
            "at": 0,
        }
        for part in form.parts
    }


def filled(form: Form, answer: Mapping[Any, Any]) -> dict[str, Any]:
    """What a handler's answer fills in, by path."""
    values: dict[str, Any] = json.loads(answer[form.filled])["values"]
    return values
