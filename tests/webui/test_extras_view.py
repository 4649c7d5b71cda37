"""The offer to install what a choice needs, and the sentence about the choice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from core.config import SPEC_BY_PATH
from core.errors import SetupError
from core.setup import environment
from core.setup.extras import EXTRAS
from tests.webui.fakes import fake_app
from webui.configure.tab import _extras
from webui.context import Shared
from webui.export import _Export
from webui.extras import ExtrasView
from webui.forms import choice_notes, options


class Renewed:
    """An app whose workers are counted, not started."""

    def __init__(self) -> None:
        self.times = 0

    def renew_workers(self) -> None:
        self.times += 1


class Request:
    session_hash = "here"


@pytest.fixture
def view(monkeypatch) -> ExtrasView:
    absent = replace(EXTRAS["lomo"], import_name="lomo_not_here")
    monkeypatch.setitem(EXTRAS, "lomo", absent)
    with gr.Blocks():
        return ExtrasView(Renewed(), "extras", lambda data: _extras(*data.values()))


def asks(optimizer: str) -> dict[Any, Any]:
    """What a handler gets of a form with this optimizer."""
    return {"form": {"training.optim": optimizer}}


def test_it_is_offered_only_where_something_is_lacking(view: ExtrasView) -> None:
    shown = view.follow(_extras({"training.optim": "lomo"}))
    assert shown[view.box].visible and shown[view.button].value == "Install lomo-optim"
    assert "keeps no gradients" in shown[view.told]
    assert not view.follow(_extras({"training.optim": "adamw_torch_fused"}))[view.box].visible


def test_a_click_installs_and_new_workers_have_it(view: ExtrasView, monkeypatch) -> None:
    asked = []

    def install(name: str, tell) -> None:
        tell(0.5, "Fetching lomo-optim 0.1.1")
        asked.append(name)

    monkeypatch.setattr(environment, "install", install)
    last = list(view.install(asks("lomo"), Request()))[-1]
    assert asked == ["lomo"] and view.app.times == 1
    assert "lomo-optim: installed" in last[view.said]
    assert last[view.button].interactive


def test_an_installation_that_fails_says_why(view: ExtrasView, monkeypatch) -> None:
    def install(name: str, tell) -> None:
        raise SetupError("The package index cannot be reached.", "Check the network.")

    monkeypatch.setattr(environment, "install", install)
    last = list(view.install(asks("lomo"), Request()))[-1]
    assert "The package index cannot be reached." in last[view.said]
    assert "Check the network." in last[view.said]
    assert view.app.times == 0, "nothing has changed for the workers"


def test_each_choice_has_its_sentence_and_its_arguments() -> None:
    notes = choice_notes({"training.optim": "sgd", "training.lr_scheduler_type": "cosine"})
    assert notes["training.optim"].startswith("A step along the gradient.")
    assert "momentum (a number of at least 0 and below 1)" in notes["training.optim_args"]
    assert notes["training.lr_scheduler_kwargs"] == "cosine takes num_cycles (a number above 0)."
    assert "training.optim_args" not in choice_notes({"training.optim": "adafactor"})
    offered = options(SPEC_BY_PATH["training.optim"])
    assert ("AdamW in few bits: adamw_8bit", "adamw_8bit") in offered


def test_a_form_of_export_without_its_packages_offers_them(tmp_path: Path, monkeypatch) -> None:
    """The export would wait its turn and fail, or the button do nothing."""
    monkeypatch.setitem(EXTRAS, "gguf", replace(EXTRAS["gguf"], import_name="not_here"))
    with gr.Blocks():
        boxes = [gr.Textbox() for _name in range(4)]
        run, dataset, version, lens = boxes
        shown = {"export": gr.Textbox()}
        shared = Shared(gr.Tabs(), {}, run, dataset, version, {}, lens, shown, building="export")
        tab = _Export(fake_app(tmp_path / "workspace"), shared)
    lacking, there = tab.explain("gguf"), tab.explain("merged")
    assert not lacking[tab.start].interactive and there[tab.start].interactive
    assert lacking[tab.extras.box].visible and not there[tab.extras.box].visible
    assert lacking[tab.extras.button].value.startswith("Install xllamacpp, ")
