"""Configure says before the start what a start would be refused for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from core.errors import ConfigError, Problem, TunesmithError
from tests.webui.fakes import fake_app
from webui import plan
from webui.app import _shared
from webui.tabs.configure import _Configure


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
