"""Words that would be worth a token of their own, found by the shell and by the page."""

from __future__ import annotations

import json
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from core.cli import main
from core.config import RunConfig
from core.data.prepare import import_dataset
from core.jobs.process import named
from core.worker.tokenizers import fragmented_words
from core.workspace import Workspace
from tests.tiny_model import tiny_tokenizer
from tests.webui.fakes import filled, held
from webui.configure.words import DATASET, FIELD, MODEL, WordFinder
from webui.forms import Form, basics, in_folds


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace.open(tmp_path_factory.mktemp("words"))
    texts = ["a red zorblaxian cup and a hat", "the zorblaxian, and Quuxify it"] * 6
    workspace.uploads.mkdir(exist_ok=True)
    file = workspace.uploads / "texts.jsonl"
    texts.append("hapaxlegomenon")
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    import_dataset(workspace, [file], name="texts", eval_fraction=0.0)
    model = workspace.models / "tiny"
    tiny_tokenizer().save_pretrained(model)
    (model / "config.json").write_text('{"model_type": "llama"}')
    (model / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")
    return workspace


def test_frequent_words_of_many_pieces_come_first(world: Workspace) -> None:
    """A person would add tokens that save nothing, and miss those that matter."""
    found = fragmented_words(world, "texts", "tiny")
    words = {one["word"]: one for one in found["words"]}
    assert next(iter(words)) == "zorblaxian" and "Quuxify" in words
    assert "hapaxlegomenon" not in words and "red" not in words and "cup" not in words
    told = words["zorblaxian"]
    assert told["count"] == 12 and "".join(told["split"]) == "zorblaxian"
    tokenizer = tiny_tokenizer()
    now = len(tokenizer("red zorblaxian")["input_ids"]) - len(tokenizer("red")["input_ids"])
    assert told["pieces"] == now
    assert told["saved"] == 12 * (now - 2)  # the space before it stays a token
    assert found["rows"] == found["rows_total"] == 13


def test_the_shell_lists_them(world: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    """What a button does a command must do."""
    place = ["--workspace", str(world.root), "--json"]
    assert main(["data", "words", "texts", "--model", "tiny", "--most", "1", *place]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["word"] for one in told["words"]] == ["zorblaxian"]
    assert main(["data", "words", "texts", "--most", "0", *place]) == 2


def test_ticked_words_become_new_tokens_and_others_stay(world: Workspace) -> None:
    """A tick would take away what was typed."""

    def submit(work: Any, *given: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(named(work)(*given))
        return done

    app: Any = SimpleNamespace(workspace=world, pool=SimpleNamespace(submit=submit))
    with gr.Blocks():
        finder = WordFinder(app)
        form = Form("run", RunConfig().values())
        form.part([*in_folds(), basics()])

    def given(model: str) -> dict[Any, Any]:
        chosen = {DATASET: "texts", MODEL: model, FIELD: ["Quuxify", "<mine>"]}
        return held(form, chosen)

    shown = finder.search(form, given("tiny"))
    known = shown[finder.known]
    assert {"zorblaxian", "Quuxify"} <= set(known.words)
    assert shown[finder.words].value == ["Quuxify"]
    assert any("12 times" in label for label, _ in shown[finder.words].choices)
    ticks = {finder.words: ["zorblaxian"], finder.known: known}
    taken = filled(form, finder.take(form, given("tiny") | ticks))
    assert taken == {FIELD: ["<mine>", "zorblaxian"]}
    missing = finder.search(form, given("not-here"))
    assert "not on this machine" in missing[finder.told]
    assert finder.follow("texts", "tiny", known) == {finder.known: gr.skip()}
    assert finder.follow("other", "tiny", known)[finder.words].visible is False


def test_its_rows_must_be_there(world: Workspace) -> None:
    """A misspelt name would be a list of nothing."""
    place = ["--workspace", str(world.root)]
    assert main(["data", "words", "no-such", "--model", "tiny", *place]) == 1
