"""The program as a person starts it, in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

from tests.waiting import LIMIT
from webui.gate import Key

ROOT = Path(__file__).resolve().parents[2]
# The token of every server here, so that the `page` of a test has the key of each.
TOKEN = "the-token-of-the-tests"
AS_PROGRAM = {"Authorization": f"Bearer {TOKEN}"}


def cookie() -> dict[str, str]:
    """What a browser keeps once it has opened the printed address, as Playwright takes it."""
    name, value = Key(TOKEN).cookie
    return {"name": name, "value": value, "domain": "127.0.0.1", "path": "/"}


class Served:
    """`python -m core.cli` on one workspace; its output is kept for a failing test."""

    def __init__(self, workspace: Path, *arguments: str) -> None:
        self.workspace, self.output = workspace, ""
        self.begun = time.monotonic()
        command = [sys.executable, "-m", "core.cli", "--no-browser", "--workspace", str(workspace)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TUNESMITH_TOKEN": TOKEN}
        environment.pop("HF_HUB_OFFLINE", None)
        self.process = subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.address = ""
        self._known = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        self._known.wait(LIMIT)
        if not self.address:
            self.process.kill()
            raise AssertionError(f"the server did not say its address:\n{self.output}")
        self.seconds_to_page = time.monotonic() - self.begun

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.output += line
            found = re.search(r"http://[\w.:\[\]-]+", line)
            if found and not self.address:
                self.address = found[0].rstrip("/")
                self._known.set()
        self._known.set()

    def resident_bytes(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss

    def end(self, how: int = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(LIMIT)
