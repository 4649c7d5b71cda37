"""The choice of a run and its checkpoint: what was chosen stays until something else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from core.models.checkpoints import checkpoints
from core.runs.records import load_run
from tests.tiny_model import tiny_adapter, tiny_model, tiny_tokenizer
from tests.webui.fakes import fake_app
from tests.webui.made_runs import make_run
from webui.app import _shared
from webui.context import App
from webui.run_choice import run_picker


@pytest.fixture
def app(tmp_path: Path) -> App:
    return fake_app(tmp_path / "workspace")


def trained(app: App, name: str) -> str:
    """A finished run with two checkpoints, as a full fine-tune leaves them."""
    job = make_run(app.workspace, app.store, steps=20, name=name)
    folder = app.workspace.run(job.id)
    for place in ("model", "checkpoints/checkpoint-10", "checkpoints/checkpoint-20"):
        tiny_model().save_pretrained(folder.root / place)
        tiny_tokenizer().save_pretrained(folder.root / place)
    for step in (10, 20):
        state = folder.checkpoints / f"checkpoint-{step}" / "trainer_state.json"
        state.write_text(f'{{"global_step": {step}}}')
    assert checkpoints(load_run(app.workspace, app.store, job.id).folder.root)
    return job.id


def offer(app: App) -> Any:
    """What answers when Evaluate is opened or another run selected."""
    with gr.Blocks():
        shared = _shared()
        run_picker(app, shared, "evaluate")
    return shared.showing["evaluate"][0].fn


def test_a_checkpoint_stays_chosen_while_its_run_is_selected(app: App) -> None:
    first, second = trained(app, "first"), trained(app, "second")
    ask = offer(app)
    _, points, selected, whose = ask(first, ("", None), None)
    names = [name for _, name in points.choices]
    assert whose == (first, names[0])
    assert selected == gr.skip(), "by the time the answer comes, another may be selected"
    assert points.value == names[0]
    assert ask(first, whose, names[-1])[1].value == names[-1]
    assert ask(second, whose, names[-1])[1].value == names[0]


def test_without_a_selection_the_newest_run_is_taken(app: App) -> None:
    trained(app, "first")
    newest = trained(app, "second")
    ask = offer(app)
    assert ask("", ("", None), None)[2:] == (newest, (newest, "final"))


def test_the_newest_checkpoint_is_taken_until_another_is_chosen(app: App) -> None:
    """Evaluate was opened while the run was at work; its finished model is what is meant later."""
    run_id = make_run(app.workspace, app.store, steps=20, name="first").id
    run, adapter = app.workspace.run(run_id), tiny_adapter(tiny_model())
    for step in (10, 20):
        folder = run.checkpoints / f"checkpoint-{step}"
        adapter.save_pretrained(folder)
        (folder / "trainer_state.json").write_text(f'{{"global_step": {step}}}')
    with gr.Blocks():
        shared = _shared()
        shared.building = "evaluate"
        run_picker(app, shared, "evaluate")
    ask, follow = shared.showing["evaluate"][0].fn, shared.ticking["evaluate"][0].fn
    _, points, _, listed = ask(run_id, ("", None), None)
    assert points.value == "checkpoint-20"
    assert follow(run_id, listed, "checkpoint-20") == (gr.skip(), gr.skip())
    adapter.save_pretrained(run.adapter)
    grown, newer = follow(run_id, listed, "checkpoint-20")
    assert (grown.value, newer) == ("final", (run_id, "final"))
    assert follow(run_id, listed, "checkpoint-10")[0].value == "checkpoint-10"
    assert follow("", ("", None), None) == (gr.skip(), gr.skip())
