"""Configure says before the start what a start would be refused for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from core.errors import ConfigError, Problem, TunesmithError
from tests.webui.fakes import fake_app
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
    held = {component: component.value for component in tab.inputs}
    held |= {tab.form.fields[path.replace("__", ".")]: value for path, value in changed.items()}
    return tab.follow(held)


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
    field = tab.form.fields["data.dataset"]
    assert (
        "value" not in tab.open("sample", "sample", "Answers", "quickstart")[field].constructor_args
    )
    other = tab.open("sample", "another", "Answers", "quickstart")[field]
    assert other.value == "sample"


def test_a_preset_is_handed_to_the_browser_in_the_order_of_the_fields(tab: _Configure) -> None:
    """The browser would put a learning rate where the rows at once belong."""
    held = {component: component.value for component in tab.inputs}
    answered = tab.choose({**held, tab.preset: "classify-minilm"})
    values = json.loads(answered[tab.filling.wanted])
    shown = dict(zip(tab.form.fields, values, strict=True))
    assert shown["method"] == "classification" and shown["training.learning_rate"] == "1e-4"


def test_many_changes_at_once_are_answered_once(workspace: Path) -> None:
    """A preset changes dozens of fields: on a slow machine the plan would lag behind for a minute.
    Only an event that has no other handler can be answered so (webui.app._lose_no_choice)."""
    page = build(fake_app(workspace))
    edited = [one for one in page.fns.values() if getattr(one.fn, "__name__", "") == "edited"]
    assert [one.trigger_mode for one in edited] == ["always_last"]
    assert len(edited[0].targets) > 50
