"""Train keeps up with the run that it shows."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from tests.webui.fakes import fake_app
from tests.webui.made_runs import make_run
from webui.app import _shared
from webui.train import _Train


def test_the_list_of_runs_says_how_a_run_stands_now(workspace: Path) -> None:
    """A run that has finished would stand there as running until the page is loaded again."""
    app = fake_app(workspace)
    with gr.Blocks():
        shared = _shared()
        shared.building = "train"
        tab = _Train(app, shared)
    make_run(app.workspace, app.store, name="first")
    job = make_run(app.workspace, app.store, name="second", state="running")
    assert tab.open(job.id)[0].choices[0] == ("second: running", job.id)
    app.store.transition(job.id, {"running"}, "finished")
    shown = dict(zip(tab.panes, tab.look(job.id, "{}"), strict=False))
    assert shown[tab.choice].choices[0] == ("second: finished", job.id)
