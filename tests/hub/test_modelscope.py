"""A base model from ModelScope: found, looked at, fetched, opened without a network, trained on,
and taken out of its cache; and what is said where that cannot be."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from core.cli import main
from core.errors import ModelError, SetupError
from core.export.format import base_of_run
from core.export.formats import formats
from core.hub.search import search_modelscope
from core.models import modelscope
from core.models.location import check_model, ensure_model, fetch_model, local_model
from core.models.trained import find_trained
from core.progress import Stopped
from core.rules import load_config, parse_config
from core.rules.machine import need_problems
from core.setup.extras import EXTRAS, Extra
from core.worker.export.script import write
from core.worker.training.run import run_training
from core.workspace import Workspace
from tests.hub.modelscope_stand_in import CHAT, TOKEN, Scope, serving
from tests.tiny_model import tiny_tokenizer, tiny_world
from tests.training.conftest import SETTINGS, losses

NAME = "modelscope:lab/tiny"
MODEL = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": b"w" * 50_000,
    "tokenizer.json": b"t" * 300,
    "README.md": b"---\nlicense: Apache-2.0\n---\n",
    "pytorch_model.bin": b"p" * 5000,
    "original/model.safetensors": b"o" * 5000,
    "../outside.json": b"{}",
}
KEPT = {"config.json", "model.safetensors", "tokenizer.json", "README.md"}


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scope]:
    home = tmp_path_factory.mktemp("modelscope")
    with pytest.MonkeyPatch.context() as patch, serving(home, patch) as scope:
        yield scope


@pytest.fixture
def scope(standing: Scope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scope:
    """With nothing on it and an empty cache, which is `tmp_path`'s `cache`."""
    standing.clear()
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
    return standing


@pytest.fixture
def opened(workspace: Path) -> Workspace:
    return Workspace.open(workspace)


def command(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main([*words, "--json"]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def downloaded(scope: Scope) -> list[str]:
    """The files that were asked for, in order."""
    return [one.rpartition(" ")[2] for one in scope.asked if "/repo " in one]


def test_what_can_be_trained_is_found(scope: Scope, capsys: Any) -> None:
    scope.holds("Qwen/tiny-chat", {}, **CHAT, downloads=7)
    scope.holds("Qwen/tiny-closed", {}, **CHAT, downloads=70, gated=True)
    scope.holds("Qwen/tiny-chat-GGUF", {}, **CHAT)
    scope.holds("Qwen/tiny-four-bits", {}, **{**CHAT, "tags": ["quantization:awq"]})
    scope.holds("Qwen/tiny-pictures", {}, **{**CHAT, "tasks": ["text-to-image"]})
    scope.holds("Qwen/tiny-unsaid", {})
    closed, chat, unsaid = search_modelscope(" tiny ")
    assert closed.repo_id == "modelscope:Qwen/tiny-closed" and closed.gated
    assert (chat.size_bytes, chat.parameters, chat.licence) == (988, 494, "apache-2.0")
    assert chat.url == f"{scope.endpoint}/models/Qwen/tiny-chat"
    assert (unsaid.size_bytes, unsaid.licence) == (None, "")
    told = command(capsys, "hub", "search", "--modelscope", "tiny", "chat")["found"]
    assert [one["repo_id"] for one in told] == ["modelscope:Qwen/tiny-chat"]


def test_a_model_is_fetched_and_opened_without_a_network(
    scope: Scope, opened: Workspace, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scope.holds("lab/tiny", MODEL)
    assert local_model(opened, NAME) is None and not scope.asked
    assert ensure_model(NAME, opened, fetch=False) == NAME, "the worker fetches it"
    assert not downloaded(scope)
    told = command(capsys, "hub", "pull", NAME)
    assert told["pulled"]["files"] == 4 and told["pulled"]["size_bytes"] == 50_351
    folder = Path(told["folder"])
    assert {one.name for one in folder.iterdir()} == KEPT
    assert downloaded(scope)[-1] == "config.json"
    assert not (folder.parent / "outside.json").exists()
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    assert ensure_model(f" {NAME} ", opened) == local_model(opened, NAME) == folder


def test_a_revision_is_a_model_of_its_own(scope: Scope, opened: Workspace) -> None:
    scope.holds("lab/tiny", MODEL)
    scope.holds("lab/tiny", {**MODEL, "config.json": b"{}"}, "v1.0")
    old = fetch_model(f"{NAME}@v1.0", opened, lambda *_: None)
    assert (old / "config.json").read_bytes() == b"{}" and local_model(opened, NAME) is None
    assert fetch_model(NAME, opened, lambda *_: None) != old
    problem = parse_problem({"model.model_name_or_path": NAME, "model.model_revision": "v1.0"})
    assert problem.startswith("model.model_revision") and f"{NAME}@v1.0" in problem
    with pytest.raises(ModelError, match="no modelscope:lab/tiny@v2 on ModelScope"):
        modelscope.look(f"{NAME}@v2")


def parse_problem(values: dict[str, Any]) -> str:
    with pytest.raises(Exception, match=r"\w") as caught:
        parse_config(values)
    return str(caught.value.problems[0])  # type: ignore[attr-defined]


def test_a_stopped_download_goes_on_where_it_was(
    scope: Scope, opened: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tqdm.std.time", itertools.count().__next__)  # tell of every byte
    scope.holds("lab/tiny", MODEL)
    scope.fails("model.safetensors", cut=True)
    held = scope.fails("model.safetensors", hold=True)  # what is asked for after the cut

    def stop(share: float, message: str) -> None:
        if held.release.is_set():
            raise Stopped

    def release() -> None:
        held.reached.wait()
        held.release.set()

    threading.Thread(target=release, daemon=True).start()
    with pytest.raises(Stopped):
        fetch_model(NAME, opened, stop)
    assert scope.ranges == ["25000"], "after a cut the rest is asked for"
    assert local_model(opened, NAME) is None, "half a model is none"
    told: list[tuple[float, str]] = []
    assert fetch_model(NAME, opened, lambda *one: told.append(one)) == local_model(opened, NAME)
    assert told == sorted(told) and told[-1] == (1.0, "Downloading tiny: 0 of 0 MB")


def test_refusals_say_what_to_do(scope: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    scope.holds("lab/tiny", MODEL)

    def refused(name: str = NAME) -> str:
        with pytest.raises(ModelError) as caught:
            modelscope.download(name, lambda *_: None)
        assert TOKEN not in str(caught.value)
        return str(caught.value)

    monkeypatch.setenv("MODELSCOPE_API_TOKEN", TOKEN)
    assert "There is no modelscope:lab/none on ModelScope" in refused("modelscope:lab/none")
    for name in ("modelscope:tiny", "modelscope:lab/../../x", "modelscope:lab/tiny@../x"):
        assert "looks like modelscope:OWNER/NAME" in refused(name)
    scope.fails("/openapi/v1/models/lab", status=401, message="{}")
    assert "ms-hub login" in refused()
    scope.fails("model.safetensors", status=403, message='{"message": "no"}')
    gated = refused()
    assert "is gated" in gated and f"{scope.endpoint}/models/lab/tiny" in gated
    for status, said in ((429, "too many requests"), (503, "gives no answer")):
        scope.fails("/openapi/", status=status, headers={"Retry-After": "0"}, message="{}")
        assert said in refused()
    for page in ("<html>", "[]"):
        scope.fails("/openapi/v1/models", status=200, message=page)
        with pytest.raises(ModelError, match="is not ModelScope"):
            modelscope.search("tiny", 9)
    scope.holds("lab/tiny", {"adapter_config.json": b"{}", "a.safetensors": b"a"})
    assert "holds an adapter" in refused()
    scope.holds("lab/tiny", {"config.json": b"{}", "pytorch_model.bin": b"p"})
    assert "holds no model" in refused()
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    assert "gives no answer at http://127.0.0.1:9" in refused()
    with pytest.raises(ModelError, match="MODELSCOPE_ENDPOINT"):
        modelscope.search("tiny", 9)
    monkeypatch.delenv("MODELSCOPE_ENDPOINT")
    monkeypatch.setenv("MODELSCOPE_DOMAIN", scope.endpoint.removeprefix("http://"))
    with pytest.warns(FutureWarning):
        assert modelscope.page_of(NAME).startswith("https://127.0.0.1")


def test_without_its_package_it_is_offered(
    opened: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = EXTRAS["modelscope"]
    absent = Extra(extra.name, extra.packages, "modelscope_not_here", extra.sentence)
    monkeypatch.setitem(EXTRAS, "modelscope", absent)
    assert local_model(opened, NAME) is None and modelscope.cached_models() == []
    for ask in (ensure_model, check_model):
        with pytest.raises(SetupError, match="setup --with modelscope"):
            ask(NAME, opened)
    with pytest.raises(SetupError, match="modelscope-hub is not installed"):
        search_modelscope("tiny")
    config = parse_config({"model.model_name_or_path": NAME})
    (problem,) = need_problems(config)
    assert problem.field == "model.model_name_or_path" and extra.command in problem.message


def test_its_cache_is_listed_and_cleared(
    scope: Scope, opened: Workspace, tmp_path: Path, capsys: Any
) -> None:
    for name in ("lab/tiny", "lab/other"):
        scope.holds(name, MODEL)
        fetch_model(f"modelscope:{name}", opened, lambda *_: None)
    (tmp_path / "cache" / "models" / "..--outside").mkdir()
    listed = command(capsys, "hub", "cache", "list")["cached"]
    ours = {one["repo_id"]: one for one in listed if one["repo_id"].startswith("modelscope:")}
    assert ours.keys() == {NAME, "modelscope:lab/other"}
    assert ours[NAME]["size_bytes"] == 50_351 and ours[NAME]["revisions"] == 1
    where = ("--workspace", str(opened.root))
    gone = command(capsys, "hub", "cache", "delete", NAME, *where)["deleted"]
    assert gone["repo_id"] == NAME and not Path(gone["path"]).exists()
    assert local_model(opened, NAME) is None
    assert local_model(opened, "modelscope:lab/other") is not None
    assert main(["hub", "cache", "delete", NAME, *where]) == 1


def test_a_run_trains_on_it_and_says_where_it_came_from(
    scope: Scope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker fetches it; the run goes on, and its adapter and script find the base again."""
    torch.set_num_threads(1)
    world = tiny_world(tmp_path / "ws")
    files = {path.name: path.read_bytes() for path in world.base.iterdir()}
    scope.holds("lab/tiny", {**files, "README.md": MODEL["README.md"]})
    saving = {"tracking.save_strategy": "steps", "tracking.save_steps": 3}
    run = world.run("a-run", {**SETTINGS, **saving, "model.model_name_or_path": NAME})
    assert run_training(run.root, world.root, None) == "finished"
    assert load_config(run.config).model.model_name_or_path == NAME
    settings = json.loads((run.adapter / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == NAME
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    first = losses(run)
    assert run_training(run.root, world.root, run.checkpoints / "checkpoint-3") == "finished"
    assert losses(run)[len(first) :] == first[3:]

    trained = find_trained(run)
    base = base_of_run(trained, str(ensure_model(trained.base, world.workspace)))
    assert (base.name, base.is_public, base.license) == (NAME, False, "apache-2.0")
    card = formats()["adapter"].loading(base, "writer")
    assert 'from_pretrained("path/to/tiny"' in card and "'lab/tiny'" in card
    write(tmp_path, trained, base, tiny_tokenizer(), world.dataset)
    code = (tmp_path / "train.py").read_text()
    compile(code, "train.py", "exec")
    fetch = code[code.index("given.model = Hub") :].splitlines()[0]
    given: Any = type("Given", (), {})()
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", scope.endpoint)
    exec(f"from modelscope_hub import *\nset_default_config(None)\n{fetch}", {"given": given})
    assert Path(given.model) == local_model(world.workspace, NAME)
