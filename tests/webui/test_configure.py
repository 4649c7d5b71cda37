"""Configure says before the start what a start would be refused for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from core.errors import ConfigError, Problem, TunesmithError
from tests.webui.fakes import fake_app, filled, held
from webui.app import _shared, build
from webui.configure import plan
from webui.configure.tab import _Configure


@pytest.fixture
def tab(workspace: Path) -> _Configure:
    with gr.Blocks():
        shared = _shared()
        shared.tabs.render()
        return _Configure(fake_app(workspace), shared)


def answer(tab: _Configure, **changed: Any) -> dict[Any, Any]:
    """What the page shows for the first settings with some of them changed."""
    return tab.follow(given(tab) | held(tab.form, changed))


def given(tab: _Configure) -> dict[Any, Any]:
    return {component: component.value for component in tab.inputs}


def test_a_data_set_in_the_wrong_form_is_refused_at_its_field_before_the_start(
    tab: _Configure,
) -> None:
    """Somebody would wait for a model to be fetched and be refused only then."""
    shown = answer(tab, method="dpo")
    assert not shown[tab.start].interactive
    assert "learns from preference" in shown[tab.form.marks]["errors"]["data.dataset"]
    assert "One setting needs mending" in shown[tab.summary]
    assert shown[tab.summary].count("learns from preference") == 1  # not once more as a warning
    assert answer(tab)[tab.start].interactive


def test_a_refused_start_names_the_settings_as_the_form_does() -> None:
    told = plan.not_started(ConfigError([Problem("data.dataset", "holds <other> rows")]))
    assert "<b>Data set</b> holds &lt;other&gt; rows" in told
    assert "Try again." in plan.not_started(TunesmithError("The disk is full.", "Try again."))


def test_a_selection_that_the_form_made_does_not_come_back_to_it(tab: _Configure) -> None:
    """Whoever chooses a data set and then another would find the first one chosen again."""
    asked = given(tab) | {tab.shared.dataset: "sample", tab.presets.purpose: "Answers"}
    answer = tab.open(asked)
    said = json.loads(answer[tab.form.filled])
    assert said["values"] == {"data.dataset": "sample"}
    assert said["at"] == 0, "what was chosen after the question would be undone"


def test_a_preset_fills_the_form_and_leaves_name_and_data_set(tab: _Configure) -> None:
    shown = filled(tab.form, tab.choose({**given(tab), tab.preset: "classify-minilm"}))
    assert shown["method"] == "classification" and shown["training.learning_rate"] == "1e-4"
    assert "name" not in shown and "data.dataset" not in shown


def test_what_was_saved_as_a_preset_is_no_draft_any_more(tab: _Configure) -> None:
    """After a reload the page would stand on the old preset with everything changed."""
    said = json.loads(tab.save_as({**given(tab), tab.name_to_save: "Mine"})[tab.form.filled])
    assert said["preset"] == "mine" and said["kept"] == ["name"] and said["values"] == {}


def test_many_changes_at_once_are_answered_once(workspace: Path) -> None:
    """A preset changes dozens of fields: on a slow machine the plan would lag behind for a minute.
    Only an event that has no other handler can be answered so."""
    page = build(fake_app(workspace))
    edited = [one for one in page.fns.values() if getattr(one.fn, "__name__", "") == "edited"]
    assert [one.trigger_mode for one in edited] == ["always_last"]
    assert len(edited[0].targets) == 3, "the parts of the form"
