"""Where a model's name leads: the order in which places are asked, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from core.errors import ModelError, WorkspaceError
from core.models.location import ensure_model, local_model
from core.models.starter import STARTER_MODELS
from core.workspace import Workspace
from tests.models import tiny
from tests.models.hub_stand_in import StandIn, serving

PROJECT = Path(__file__).parents[2]
SMOLLM = STARTER_MODELS["SmolLM2-135M-Instruct"]
ON_HUB = tiny.MODEL_FILES | {"onnx/model.onnx": b"not wanted"}
# Asks in a process of its own: huggingface_hub reads its environment once.
ASK = """
import json, sys
from pathlib import Path
from core.errors import TunesmithError
from core.models.location import ensure_model
from core.workspace import Workspace

name, root, seconds = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
told = []
try:
    found = {"found": str(ensure_model(
        name, Workspace.open(root), lambda share, message: told.append([share, message]),
        pip_arguments=["--no-index"], hub_answer_seconds=seconds,
    ))}
except TunesmithError as error:
    found = {"error": str(error)}
print(json.dumps(found | {
    "told": told, "torch": "torch" in sys.modules,
}))
"""


def ask(name: str, workspace: Path, *, seconds: float = 20, **variables: str) -> dict[str, Any]:
    """What ensure_model says in a fresh process, where pip finds nothing."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(PROJECT),
        "PIP_FIND_LINKS": "",
        "HF_HOME": str(workspace.parent / "hub"),
        "HF_HUB_OFFLINE": "0",
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK, name, str(workspace), str(seconds)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_workspace_comes_first(workspace) -> None:
    """A model that is here is used without a network, at once."""
    folder = tiny.make_model_folder(workspace / "models" / SMOLLM.name)
    assert local_model(Workspace(workspace), SMOLLM.name) == folder
    assert ensure_model(SMOLLM.name, Workspace.open(workspace)) == folder
    assert ensure_model(SMOLLM.hub_id, Workspace.open(workspace)) == folder


def test_half_a_model_is_none(workspace) -> None:
    folder = tiny.make_model_folder(workspace / "models" / SMOLLM.name)
    (folder / "model.safetensors").unlink()
    assert local_model(Workspace(workspace), SMOLLM.name) is None


def test_then_the_hub_and_later_its_cache(workspace) -> None:
    """Fetched from the Hub once; offline ever after, and only the files that are needed."""
    with serving(StandIn(SMOLLM.hub_id, ON_HUB)) as hub:
        first = ask(SMOLLM.name, workspace, HF_ENDPOINT=hub.endpoint)
    assert "found" in first, first
    files = {path.name for path in Path(first["found"]).iterdir()}
    assert files == set(tiny.MODEL_FILES)
    assert first["told"][-1][0] == 1.0
    assert not first["torch"]
    second = ask(SMOLLM.name, workspace, HF_HUB_OFFLINE="1")
    assert second["found"] == first["found"]


def test_a_hub_that_breaks_off_is_gone_on_with_later(workspace) -> None:
    """A broken line falls back to PyPI, and says why."""
    broken = StandIn(SMOLLM.hub_id, ON_HUB, break_off_after=3)
    with serving(broken) as hub:
        answer = ask(SMOLLM.name, workspace, HF_ENDPOINT=hub.endpoint)
    assert any("taking the copy on PyPI" in message for _, message in answer["told"]), answer
    assert f"has no {SMOLLM.source.requirement}" in answer["error"]


def test_a_silent_hub_is_given_up_on_and_pypi_asked(workspace) -> None:
    """A firewall that swallows packets must not hold a first start for minutes."""
    silent = StandIn(SMOLLM.hub_id, ON_HUB, slow=threading.Event())
    with serving(silent) as hub:
        answer = ask(SMOLLM.name, workspace, seconds=0.5, HF_ENDPOINT=hub.endpoint)
    assert hub.asked
    assert f"the package index in use has no {SMOLLM.source.requirement}" in answer["error"]


def test_a_login_page_is_not_the_hub(workspace) -> None:
    """A hotel's network answers everything with a page of its own."""
    portal = StandIn(SMOLLM.hub_id, ON_HUB, portal=b"<html>Log in</html>")
    with serving(portal) as hub:
        answer = ask(SMOLLM.name, workspace, HF_ENDPOINT=hub.endpoint)
    assert f"the package index in use has no {SMOLLM.source.requirement}" in answer["error"]


def test_offline_the_hub_is_not_asked(workspace) -> None:
    """HF_HUB_OFFLINE is a promise that nothing leaves the machine for the Hub."""
    with serving(StandIn(SMOLLM.hub_id, ON_HUB)) as hub:
        answer = ask(SMOLLM.name, workspace, HF_ENDPOINT=hub.endpoint, HF_HUB_OFFLINE="1")
    assert "error" in answer
    assert hub.asked == []


def test_a_hub_id_is_handed_on_once_the_hub_has_it(workspace) -> None:
    with serving(StandIn("org/model", ON_HUB)) as hub:
        found = ask("org/model", workspace, HF_ENDPOINT=hub.endpoint)
        missing = ask("org/nothing", workspace, HF_ENDPOINT=hub.endpoint)
    assert found["found"] == "org/model"
    assert "no model org/nothing on the Hub" in missing["error"]
    assert SMOLLM.name in missing["error"]


def test_a_hub_id_without_a_hub_is_told(workspace) -> None:
    with pytest.raises(ModelError, match="not on this machine.*HF_HUB_OFFLINE"):
        ensure_model("org/model", Workspace.open(workspace))


def test_nonsense_is_no_model(workspace) -> None:
    with pytest.raises(ModelError, match="neither a folder nor a model's id"):
        ensure_model("no such model!", Workspace.open(workspace))
    with pytest.raises(ModelError, match="No model is named"):
        ensure_model(" ", Workspace.open(workspace))


def test_a_folder_in_the_workspace_is_found_by_name_and_path(workspace) -> None:
    folder = tiny.make_model_folder(workspace / "models" / "mine")
    assert ensure_model("mine", Workspace.open(workspace)) == folder
    assert ensure_model("models/mine", Workspace.open(workspace)) == folder
    assert ensure_model(str(folder), Workspace.open(workspace)) == folder


def test_a_folder_elsewhere_has_to_be_allowed(tmp_path, workspace) -> None:
    """A page open to others must not read models from all over the disk."""
    folder = tiny.make_model_folder(tmp_path / "elsewhere")
    with pytest.raises(WorkspaceError, match="outside"):
        ensure_model(str(folder), Workspace.open(workspace))
    with pytest.raises(WorkspaceError, match="outside"):
        ensure_model("../elsewhere", Workspace.open(workspace))
    allowed = Workspace.open(workspace, allowed=[folder.parent])
    assert ensure_model(str(folder), allowed) == folder


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("adapter_config.json", "an adapter, not a model"),
        ("pytorch_model.bin", "as a pickle"),
        ("readme.txt", "holds no model"),
    ],
)
def test_a_folder_that_is_no_model_is_told_apart(workspace, file, says) -> None:
    """Refused before a run is queued, not an hour later in it."""
    folder = workspace / "models" / "odd"
    folder.mkdir(parents=True)
    (folder / file).write_text("{}")
    with pytest.raises(ModelError, match=says):
        ensure_model("models/odd", Workspace.open(workspace))


def test_each_starter_model_says_where_it_comes_from() -> None:
    for name, model in STARTER_MODELS.items():
        assert model.name == name == model.hub_id.partition("/")[2]
        requirement, _, version = model.source.requirement.partition("==")
        assert model.source.wheel.startswith(f"{requirement.replace('-', '_')}-{version}-")
        assert len(model.source.sha256) == 64


@pytest.mark.parametrize("name", ["a\0b", "/tmp/a\0b", "org/a\0b"])
def test_a_name_with_a_nul_byte_is_refused_in_words(tmp_path: Path, name: str) -> None:
    """Python's own `embedded null byte` tells nobody what to do."""
    with pytest.raises(WorkspaceError, match="NUL byte"):
        local_model(Workspace.open(tmp_path), name)
