"""What the servers of a test process are forked from: it has imported the page, which takes longer
than all else that a server does before it serves. Their workers come from another such process,
which has imported torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# A server may reach its Hub. Before the libraries look.
os.environ.pop("HF_HUB_OFFLINE", None)

from core.jobs.process import staying  # noqa: E402

with staying():
    import core.commands.serve  # noqa: F401
    import webui.app  # noqa: F401
from core.cli import main  # noqa: E402
from core.jobs.forkserver import WorkerContext, WorkerProcess, _Server  # noqa: E402
from core.jobs.process import call_named, context, exit_with_parent, leave_server  # noqa: E402
from tests.warm_python import look_again  # noqa: E402


class Elsewhere(_Server):
    """A fork server that the test process has started."""

    def __init__(self, address: str) -> None:
        super().__init__(())
        self._forkserver_address = address
        self._forkserver_alive_fd = os.open(os.devnull, os.O_RDONLY)

    def ensure_running(self) -> None:
        pass


def serve(words: list[str], environment: dict[str, str], output: Path, workers: str) -> None:
    """In a process of its own: as `python -m core.cli` with these words, until the test process
    ends at the latest."""
    leave_server()
    exit_with_parent()
    os.environ.clear()
    os.environ.update(environment)
    with output.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    look_again()
    sys.argv = ["-m", *words]
    adopt(workers)
    sys.exit(main(words))


def adopt(workers: str) -> None:
    """This process's workers are forked there."""
    mine = context()
    mine.server = Elsewhere(workers)
    mine.Process = process  # type: ignore[method-assign]


def process(*, target: Callable[..., Any], args: tuple[Any, ...] = (), **how: Any) -> WorkerProcess:
    """A worker, in the environment of its server."""
    given = ("tests.e2e.workers:work", dict(os.environ), target, args)
    return WorkerContext.Process(context(), target=call_named, args=given, **how)
