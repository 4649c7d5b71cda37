"""The fields of an evaluation by tasks, beside the rows of the usual one."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import pytest

from core.errors import WorkspaceError
from tests.webui.fakes import fake_app
from webui.evaluate_tasks import TasksView


def test_a_folder_counts_only_where_tasks_are_named(tmp_path: Path) -> None:
    """The field is hidden then: what was left in it must not refuse an evaluation of rows."""
    with gr.Blocks():
        view = TasksView(fake_app(tmp_path / "workspace"))
    left = {view.names: "", view.shots: "", view.include: "/", view.chat: False}
    assert view.params(left)["include"] is None
    with pytest.raises(WorkspaceError):
        view.params({**left, view.names: "arc_easy"})
