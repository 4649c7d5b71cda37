"""Serving: the next free port, no file but the page's own, and a considerate Ctrl-C."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import webbrowser
from pathlib import Path

import gradio as gr
import pytest
from fastapi import FastAPI
from gradio.state_holder import SessionState
from starlette.applications import Starlette
from starlette.testclient import TestClient

from core.errors import SetupError
from core.workspace import Workspace
from tests.waiting import LIMIT
from webui import server

ROOT = Path(__file__).resolve().parents[2]


def test_the_next_free_port_is_taken_also_when_two_servers_start_at_once() -> None:
    with server.listening("127.0.0.1", 7860) as one:
        first = one.getsockname()[1]
        with server.listening("127.0.0.1", first) as other:
            assert first < other.getsockname()[1]


def test_an_address_of_another_machine_is_refused_with_the_reason() -> None:
    with pytest.raises(SetupError, match=r"--host"):
        server.listening("192.0.2.1", 7860)


@pytest.mark.parametrize("below", ["", "/tunesmith", "/apps/ts"])
def test_only_the_page_s_own_files_are_served(below: str) -> None:
    """Behind a proxy, too, whether it takes the path that it shows the page under off or not."""
    client = TestClient(Starlette(routes=server.own_routes(below, pulse=lambda: "as before")))
    for place in ("/tunesmith", f"{below}/tunesmith"):
        assert client.get(f"{place}/alive").text == "as before"
        for name in ("page.js", "page.css"):
            kept = client.get(f"{place}/{name}?v=1")
            assert "tunesmith" in kept.text or ".gradio-container" in kept.text
            assert "immutable" in kept.headers["cache-control"]
            assert client.get(f"{place}/{name}").headers["cache-control"] == "no-cache"
        assert client.get(f"{place}/logo.svg").headers["content-type"].startswith("image/svg")
        assert len(client.get(f"{place}/plotly.js").content) > 1_000_000
        for name in ("style.css", "..%2Fpyproject.toml", "%2Fetc%2Fpasswd", "server.json"):
            assert client.get(f"{place}/{name}").status_code == 404


def test_a_session_begins_without_a_copy_of_all_components() -> None:
    """Gradio's own has one, which takes time and memory; where it has none, ours can go."""
    with gr.Blocks(analytics_enabled=False) as page:
        gr.State("kept")
        gr.Textbox("said")
    server._mount(FastAPI(), page, lambda query: "")
    assert len(SessionState(page).config_values) > 1
    session = page.state_holder["a session"]
    assert session.config_values == {}
    assert set(session.blocks_config.blocks) == set(page.blocks)
    assert session[min(page.blocks)] is not None and "another" not in page.state_holder


def test_the_token_is_not_among_the_words_a_browser_is_started_with(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody on the machine sees them: the browser reads the address from the owner's file."""
    opened: queue.Queue[str] = queue.Queue()
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "open", opened.put)
    place = Workspace.open(workspace)
    server.announce(place, "http://127.0.0.1:7860/", "a-token", open_browser=True)
    assert opened.get(timeout=LIMIT) == place.opening.as_uri()
    assert "http://127.0.0.1:7860/?token=a-token" in place.opening.read_text()
    assert place.opening.stat().st_mode & 0o077 == 0


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
    """Who ends the server must know that the machine goes on working, and how to end it."""
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
