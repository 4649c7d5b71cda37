"""`serve RUN` in the shell: in the foreground, in the background, and beside the app."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx2 as httpx
import pytest

from core.jobs.store import Store
from core.workspace import Workspace
from tests.cli_bench import Shell
from tests.e2e.serving import Served
from tests.serve.conftest import taught_world
from tests.waiting import LIMIT, end_of, until


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught_world(tmp_path_factory.mktemp("cli") / "ws").root


@pytest.fixture
def shell(made: Path, workspace: Path) -> Shell:
    """A shell in a workspace with the run `taught`."""
    shutil.copytree(made, workspace, dirs_exist_ok=True)
    return Shell(workspace)


def answers(found: dict[str, str], workspace: Path) -> int:
    """What the server says to whoever has the key."""
    key = (workspace / "endpoint-key").read_text().strip()
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.get(f"{found['address']}/v1/models", headers=headers).status_code


def test_it_answers_until_ctrl_c(shell: Shell, workspace: Path) -> None:
    """What it prints can be copied and works."""
    process = shell.start("serve", "taught", "--json", "--context", "256")
    assert process.stdout
    told = ""
    while (line := process.stdout.readline()) != "}\n":
        assert line, end_of(process)
        told += line
    found = json.loads(told + line)
    assert found["models"] == ["taught", "taught@checkpoint-10", "tiny"]
    key = Path(found["key_file"]).read_text().strip()
    assert key not in told
    environment = {**os.environ, "TUNESMITH_KEY": key}
    done = subprocess.run(
        ["bash", "-c", found["curl"]], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["model"] == "taught"
    program = found["python"].replace("Who are you?", "a red cup")
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and "red" in done.stdout, done.stderr
    process.send_signal(signal.SIGINT)
    rest, err = end_of(process)
    assert process.returncode == 130 and rest == "" and "stopped" in err
    with pytest.raises(httpx.ConnectError):
        answers(found, workspace)


def test_in_the_background_it_goes_on_until_it_is_stopped(shell: Shell, workspace: Path) -> None:
    found = shell.ask("serve", "taught", "--checkpoint", "final", "--background")
    assert found["models"] == ["taught", "tiny"] and answers(found, workspace) == 200
    assert shell.ask("runs", "show", "taught")["servers"][0]["address"] == found["address"]
    code, out, _err = shell.type("runs", "show", "taught")
    assert code == 0 and f"{found['address']}/v1" in out
    code, _out, err = shell.type("runs", "delete", "taught")
    assert code == 1 and "at work" in err
    shell.ask("runs", "stop", found["server"])
    until(lambda: shell.ask("runs", "show", "taught")["tasks"][0]["state"] == "stopped")
    assert shell.ask("runs", "show", "taught")["servers"] == []


def test_it_outlives_the_app(shell: Shell, workspace: Path, serve: Callable[..., Served]) -> None:
    """Programs must not stand still because the page was restarted, or its process killed."""
    app = serve(workspace, "--port", "7975")
    found = shell.ask("serve", "taught", "--checkpoint", "final", "--background")
    app.end(signal.SIGKILL)
    assert answers(found, workspace) == 200
    serve(workspace, "--port", "7975")
    assert answers(found, workspace) == 200
    shell.ask("runs", "stop", found["server"])
    store = Store.open(Workspace.open(workspace))
    until(lambda: store.get(found["server"]).state == "stopped", lambda: LIMIT)
    store.close()
    with pytest.raises(httpx.ConnectError):
        answers(found, workspace)


def test_wrong_use_is_told(shell: Shell) -> None:
    code, _out, err = shell.type("serve", "taught", "--port", "70000")
    assert code == 2 and "port" in err
    code, _out, err = shell.type("serve", "taught", "--quantization", "q2")
    assert code == 2 and "q8_0" in err
    code, _out, err = shell.type("serve", "nobody")
    assert code == 1 and "nobody" in err
