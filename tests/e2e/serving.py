"""The program that serves the page, in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from core.jobs.process import WorkerContext, call_named, detach, start_time
from tests.waiting import LIMIT, until
from webui.gate import Key

ROOT = Path(__file__).resolve().parents[2]
# The token of every server here, so that the `page` of a test has the key of each.
TOKEN = "the-token-of-the-tests"
AS_PROGRAM = {"Authorization": f"Bearer {TOKEN}"}


def cookie() -> dict[str, str]:
    """What a browser keeps once it has opened the printed address, as Playwright takes it."""
    name, value = Key(TOKEN).cookie
    return {"name": name, "value": value, "domain": "127.0.0.1", "path": "/"}


# Where most of them are forked from, and their workers.
PROGRAM = WorkerContext(("tests.e2e.program",))
WORKERS = WorkerContext(("tests.e2e.workers",))


class Served:
    """The page on one workspace, in a process of its own; its output is kept for a failing test.

    It is forked from one that has imported the page, and its workers from one that has imported
    torch; with `afresh` it is `python -m core.cli`.
    """

    def __init__(self, workspace: Path, *arguments: str, afresh: bool = False) -> None:
        self.workspace = workspace
        self.begun = time.monotonic()
        self._folder = tempfile.TemporaryDirectory(prefix="tunesmith-served-")  # until it is let go
        self._log = Path(self._folder.name) / "output"
        self._log.touch()
        words = ["--no-browser", "--workspace", str(workspace), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TUNESMITH_TOKEN": TOKEN}
        environment.pop("HF_HUB_OFFLINE", None)
        start = self._afresh if afresh else self._forked
        self.process = start(words, environment)
        try:
            self.address: str = until(self._said, lambda: self.output)
        except AssertionError:
            self.end(signal.SIGKILL)
            raise
        self.seconds_to_page = time.monotonic() - self.begun

    def _afresh(self, words: list[str], environment: dict[str, str]) -> psutil.Process:
        with self._log.open("ab") as output:
            return psutil.Popen(
                [sys.executable, "-m", "core.cli", *words],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=output,
            )

    def _forked(self, words: list[str], environment: dict[str, str]) -> psutil.Process:
        WORKERS.warm()
        workers = WORKERS.server._forkserver_address
        self._started = PROGRAM.Process(
            target=call_named,
            args=("tests.e2e.program:serve", words, environment, self._log, workers),
        )
        self._started.start()
        detach(self._started)
        return psutil.Process(self._started.pid)

    def _said(self) -> str:
        """The page's address, once it is printed."""
        gone = start_time(self.process.pid) is None
        found = re.search(r"(http://[\w.:\[\]-]+)/", self.output)
        assert found or not gone, f"the server did not say its address:\n{self.output}"
        return found[1] if found else ""

    @property
    def output(self) -> str:
        return self._log.read_text("utf-8", errors="replace")

    def workers(self) -> set[psutil.Process]:
        """The processes that work for it, and for the others of this test process."""
        forks = [WORKERS.server._process, *self.process.children()]
        return {
            one
            for fork in forks
            if fork
            for one in psutil.Process(fork.pid).children(recursive=True)
        }

    def resident_bytes(self) -> int:
        return self.process.memory_info().rss

    def end(self, how: int = signal.SIGTERM) -> None:
        with suppress(psutil.NoSuchProcess):
            self.process.send_signal(how)
            self.process.wait(LIMIT)
