"""The stand-in for the Hub, a process that talks to it, and a run with an export."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.language import N_, pack
from core.workspace import RunFolder, Workspace
from tests.hub.stand_in import WRITES, Hub, serving
from tests.waiting import end_of
from tests.warm_python import with_commands

ROOT = Path(__file__).parents[2]
FILES = {
    "README.md": b"---\nlibrary_name: peft\n---\n# A run\n",
    "adapter_config.json": b'{"r": 4}',
    "adapter_model.safetensors": bytes(range(256)) * 400,
    "tokenizer/tokenizer.json": b"{}",
}


class Client:
    """A process with the token store in a folder of its own, logged in."""

    def __init__(self, hub: Hub, home: Path) -> None:
        self.hub, self.home = hub, home
        self.process = subprocess.Popen(
            [with_commands(), "-m", "tests.hub.child"],
            env=environment(hub, home),
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def begin(self, **case: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(case) + "\n")
        self.process.stdin.flush()

    def line(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, end_of(self.process)
        found: dict[str, Any] = json.loads(line)
        return found

    def end(self) -> dict[str, Any]:
        """What came of the case that was begun."""
        while "came" not in (line := self.line()):
            pass
        came: dict[str, Any] = line["came"]
        return came

    def __call__(self, **case: Any) -> dict[str, Any]:
        self.begin(**case)
        return self.end()


def environment(hub: Hub, home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HOME": str(home),
        **more,
    }


@pytest.fixture(scope="module")
def standing() -> Iterator[Hub]:
    with serving(Hub()) as hub:
        yield hub


@pytest.fixture(scope="module")
def talking(standing: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = Client(standing, tmp_path_factory.mktemp("home"))
    yield client
    out, err = end_of(client.process, "")
    for secret in (WRITES, "signature=secret"):
        assert secret not in out + err


@pytest.fixture
def hub(standing: Hub) -> Hub:
    """With nothing on it."""
    standing.repositories.clear()
    standing.large.clear()
    standing.asked.clear()
    standing.faults.clear()
    standing.revoked.clear()
    return standing


@pytest.fixture
def client(hub: Hub, talking: Client) -> Client:
    talking(do="login", token=WRITES)
    hub.asked.clear()
    return talking


def exported(run: RunFolder, name: str, ok: bool = True, **files: bytes) -> Path:
    """A finished export, as its job leaves it; the folder with the model's files."""
    folder = run.exports / name
    place = folder / f"{run.root.name}-adapter"
    for path, content in (FILES | files).items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(content)
    check = {"name": N_("Answers as the trained model"), "ok": ok, "detail": ""}
    result = {"format": "adapter", "checkpoint": "final", "path": place.name, "checks": [check]}
    (folder / "result.json").write_text(json.dumps(pack(result)))
    return place


@pytest.fixture
def run(workspace: Path) -> RunFolder:
    """A run with one export."""
    folder = Workspace.open(workspace).run("a-run")
    exported(folder, "first")
    return folder


@pytest.fixture
def push(client: Client, workspace: Path, run: RunFolder) -> Callable[..., dict[str, Any]]:
    """Pushes the run's export (`do="plan"` only plans); other names are settings."""

    def push(repo_id: str, *, do: str = "push", **more: Any) -> dict[str, Any]:
        case = {name: more.pop(name) for name in ("export", "format", "force") if name in more}
        settings = {"repo_id": repo_id, **more}
        return client(do=do, workspace=str(workspace), run="a-run", settings=settings, **case)

    return push
