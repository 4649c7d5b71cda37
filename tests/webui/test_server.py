"""Serving: the next free port, no file but the page's own, and a considerate Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from core.errors import SetupError
from tests.waiting import LIMIT
from webui import server

ROOT = Path(__file__).resolve().parents[2]


class Page:
    """Stands for Gradio's, whose port another program takes at the last moment."""

    def __init__(self) -> None:
        self.tried: list[int] = []

    def launch(self, *, server_port: int, **_: object) -> tuple[None, str, None]:
        self.tried.append(server_port)
        if len(self.tried) == 1:
            raise OSError("Cannot find empty port")
        return None, f"http://127.0.0.1:{server_port}/", None


def test_the_next_free_port_is_taken_also_when_two_servers_start_at_once() -> None:
    page = Page()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        how = {"host": "127.0.0.1", "auth": None, "root_path": None}
        address = server.launch(page, first_port=port, **how)  # type: ignore[arg-type]
    assert port < page.tried[0] < page.tried[1]
    assert address == f"http://127.0.0.1:{page.tried[1]}/"


def test_an_address_of_another_machine_is_refused_with_the_reason() -> None:
    with pytest.raises(SetupError, match=r"--host"):
        next(server.free_ports("192.0.2.1", 7860))


def test_only_the_page_s_own_files_are_served() -> None:
    client = TestClient(Starlette(routes=server.OWN_ROUTES))
    assert client.get("/tunesmith/alive").status_code == 204
    assert "tunesmith" in client.get("/tunesmith/page.js").text
    assert client.get("/tunesmith/logo.svg").headers["content-type"].startswith("image/svg")
    assert len(client.get("/tunesmith/plotly.js").content) > 1_000_000
    for name in ("style.css", "..%2Fpyproject.toml", "%2Fetc%2Fpasswd", "server.json"):
        assert client.get(f"/tunesmith/{name}").status_code == 404


# Says that it is ready when `wait` has taken the signals over.
WAIT = """
import signal, threading
from webui import server
from tests.waiting import LIMIT

def tell():
    while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        threading.Event().wait(0.01)
    print("ready", flush=True)

server.PATIENCE = 20
threading.Thread(target=tell, daemon=True).start()
server.wait(lambda: {runs}, lambda: print("runs stopped", flush=True))
print("that was all", flush=True)
"""


class Waiting:
    """A process that waits as the server does, with `runs` at work."""

    def __init__(self, runs: int) -> None:
        code = WAIT.format(runs=runs)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.read_until("ready")

    def read_until(self, text: str) -> str:
        """What is written until a line has `text` in it; fails when the process ends first."""
        assert self.process.stdout
        seen = ""
        guard = threading.Timer(LIMIT, self.process.kill)
        guard.start()
        for line in self.process.stdout:
            seen += line
            if text in line:
                guard.cancel()
                return seen
        raise AssertionError(f"{text!r} was never written: {seen}")


def test_ctrl_c_without_runs_ends_the_server() -> None:
    waiting = Waiting(0)
    waiting.process.send_signal(signal.SIGINT)
    assert "No run was at work" in waiting.read_until("that was all")


def test_ctrl_c_says_that_runs_go_on_and_a_second_one_stops_them() -> None:
    """Somebody who ends the server must know that the machine goes on working, and how to end it.
    """
    waiting = Waiting(2)
    waiting.process.send_signal(signal.SIGINT)
    said = waiting.read_until("runs stop ID")
    assert "2 runs go on" in said and "runs stopped" not in said
    waiting.process.send_signal(signal.SIGINT)
    assert "runs stopped" in waiting.read_until("that was all")


def test_a_termination_signal_leaves_the_runs_alone() -> None:
    """A restart of the machine's service must not stop a training."""
    waiting = Waiting(1)
    waiting.process.send_signal(signal.SIGTERM)
    assert "runs stopped" not in waiting.read_until("that was all")
