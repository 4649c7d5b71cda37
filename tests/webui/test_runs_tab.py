"""Runs: what differs between them, and their settings once more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from core.rules import parse_config
from core.runs.records import list_runs
from tests.webui.fakes import fake_app, filled
from tests.webui.made_runs import make_run
from webui.app import _shared
from webui.configure.tab import _Configure
from webui.runs import _Runs, differing


@pytest.fixture
def tab(workspace: Path) -> _Runs:
    app = fake_app(workspace)
    with gr.Blocks():
        shared = _shared()
        shared.tabs.render()
        _Configure(app, shared)
        return _Runs(app, shared)


def made(tab: _Runs, called: str, **settings: Any) -> str:
    workspace, store = tab.app.workspace, tab.app.store
    job = make_run(workspace, store, name=called, steps=2)
    changed = {path.replace("__", "."): value for path, value in settings.items()}
    parse_config(changed).save(workspace.run(job.id).config)
    return job.id


def test_the_settings_in_which_ticked_runs_differ_stand_side_by_side(tab: _Runs) -> None:
    ticked = [
        made(tab, "<b>low</b>", training__learning_rate=1e-5),
        made(tab, "high", training__learning_rate=1e-3),
    ]
    _, told = tab.compare(ticked, "loss", False)
    assert "Learning rate" in told and "1e-5" in told and "0.001" in told
    assert "<b>low" not in told and "&lt;b&gt;low" in told
    assert tab.compare(ticked[:1], "loss", False)[1] == ""


def test_a_run_whose_settings_are_torn_keeps_nobody_from_comparing(tab: _Runs) -> None:
    for name in ("one", "two"):
        made(tab, name)
    torn = made(tab, "torn")
    tab.app.workspace.run(torn).config.write_text("a: [")
    runs = list_runs(tab.app.workspace, tab.app.store)
    assert "Their settings are the same." in differing(runs)


def test_the_settings_of_a_run_are_used_again_without_its_name(tab: _Runs) -> None:
    """The next run would stand under the name of the last."""
    run = made(tab, "mine", **{"name": "mine", "training.seed": 7})
    answer = tab.use_again(run)
    values = filled(tab.shared.form, answer)
    assert values["training.seed"] == "7" and values["name"] == ""
    assert json.loads(answer[tab.shared.form.filled])["preset"] == ""
    assert answer[tab.shared.dataset] == "sample"
    tab.app.workspace.run(run).config.unlink()
    assert "cannot be read" in tab.use_again(run)[tab.told]
