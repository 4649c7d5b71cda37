"""A search over settings, begun in Configure and watched in Runs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from playwright.sync_api import Page, expect

from core.config import RunConfig
from core.jobs.events import EventWriter
from core.jobs.job import Job
from core.runs.space import sweep_settings
from core.runs.sweep import submit_sweep, trials
from core.workspace import Workspace
from tests.e2e.serving import Served
from tests.tiny_model import tiny_model, tiny_tokenizer
from tests.webui.fakes import fake_app
from tests.webui.made_runs import make_run
from webui.app import _shared
from webui.configure.tab import _Configure
from webui.sweeps import Sweeps, figure_of

RATE = "training.learning_rate"


@pytest.fixture
def view(workspace: Path) -> Sweeps:
    with gr.Blocks():
        return Sweeps(fake_app(workspace))


def begun(view: Sweeps, *over: str) -> Job:
    settings = sweep_settings(over=list(over or (f"{RATE}=1e-4,1e-2", "adapter.r=4,8")))
    return submit_sweep(view.app.workspace, view.app.store, RunConfig(), settings)


def tried(view: Sweeps, job: Job, number: int, score: float, **changes: Any) -> Job:
    """A run of the search that has ended with such a loss."""
    store = view.app.store
    run = make_run(view.app.workspace, store, steps=2, name=f"run {number}")
    place = {"number": number, "changes": {k.replace("__", "."): v for k, v in changes.items()}}
    store.update(run.id, params={"put_by": job.id, "sweep": place})
    events = EventWriter(view.app.workspace.run(run.id).events)
    events.write("metrics", step=9, eval_loss=score)
    return store.get(run.id)


def test_nothing_is_shown_before_the_first_search(view: Sweeps) -> None:
    box, *_rest = view.draw("", "", "")
    assert box.visible is False


def test_the_best_run_stands_first_and_each_is_a_line_of_the_chart(view: Sweeps) -> None:
    job = begun(view)
    one = tried(view, job, 0, 0.4, training__learning_rate=1e-4, adapter__r=4)
    best = tried(view, job, 1, 0.02, training__learning_rate=1e-2, adapter__r=4)
    box, choice, words, drawn, newest = view.draw("", "", "")
    assert box.visible and choice.value == newest == job.id
    assert words.index(best.id) < words.index(one.id)
    assert "waits for its turn" in words and 'data-act="stop"' in words
    rate, rank, score = drawn["parallel"]
    assert rate["values"] == [-4.0, -2.0] and rate["ticktext"] == ["0.0001", "0.01"]
    assert rank["values"] == [4, 4]
    assert score["values"] == [0.4, 0.02] == drawn["scores"]
    # Seen once, it is not sent again.
    assert view.draw(job.id, words, newest)[2] == gr.skip()


def test_words_have_places_on_their_axis(view: Sweeps) -> None:
    job = begun(view, "training.lr_scheduler_type=linear,cosine")
    assert figure_of(trials(view.app.workspace, view.app.store, job), job) is None
    for number, word in enumerate(("linear", "cosine")):
        tried(view, job, number, 0.5 + number, training__lr_scheduler_type=word)
    axis = figure_of(trials(view.app.workspace, view.app.store, job), job)["parallel"][0]
    assert axis["values"] == [0, 1] and axis["ticktext"] == ["linear", "cosine"]


def test_a_search_is_stopped_gone_on_with_and_put_away(view: Sweeps) -> None:
    store, job = view.app.store, begun(view)

    def click(act: str, chosen: str) -> Any:
        return view.act(chosen, SimpleNamespace(act=act, at=chosen))

    click("dismiss", job.id)  # not while it is at work
    assert not store.get(job.id).params.get("seen")
    click("stop", job.id)
    assert store.get(job.id).state == "stopped"
    again = click("go_on", job.id)[2]
    assert view.draw("", "", "")[1].value == again != job.id
    click("stop", again)
    click("dismiss", again)
    assert view.draw(again, "", again)[0].visible is False
    assert click("open", "a-run")[0] == "a-run"


def test_a_wrong_value_is_said_before_a_model_is_fetched(workspace: Path) -> None:
    """No model is here: who mistyped a value would wait for its download first."""
    app = fake_app(workspace)
    with gr.Blocks():
        shared = _shared()
        shared.tabs.render()
        tab = _Configure(app, shared)
    form = tab.sweep.form
    data = {part: copy.deepcopy(part.value) for part in (*tab.form.parts, *form.parts)}
    data[form.parts[0]]["values"]["sweep.over"] = f"{RATE}=1e-4,abc"
    [answer] = tab.sweep.begin(tab.form, shared, data)
    assert "abc" in answer[form.marks]["errors"]["sweep.over"]
    assert not list(app.workspace.models.glob("*")) and not app.store.list()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    workspace = Workspace.open(tmp_path_factory.mktemp("sweeps") / "workspace")
    folder = workspace.models / "SmolLM2-135M-Instruct"
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    server = Served(workspace.root, "--port", "8400")
    yield server
    server.end()


@pytest.mark.e2e
@pytest.mark.slow
def test_two_values_are_tried_on_the_page(page: Page, served: Served) -> None:
    page.goto(f"{served.address}/?tab=configure")
    for fold, field, value in (
        ("training", "training-max_steps", "3"),
        ("evaluation", "evaluation-sample_max_new_tokens", "0"),
    ):
        page.locator(f"#fold-{fold} .label-wrap").click()
        page.locator(f"#field-{field} textarea").fill(value)
        expect(page.locator(f"#field-{field} .field-was")).to_be_visible()
    page.locator("#sweep .label-wrap").click()
    box = page.locator("#field-sweep-over textarea")
    box.fill("adapter.rank=4,8\ntraining.learning_rate=1e-5..1e-3")
    page.locator("#sweep-start").click()
    wrong = page.locator("#field-sweep-over .field-error")
    expect(wrong).to_contain_text("adapter.rank: is not a setting")
    expect(wrong).to_contain_text("a grid takes values, not a range")
    box.fill("adapter.r=4,-8")
    page.locator("#sweep-start").click()
    expect(wrong).to_contain_text("adapter.r: must be")

    box.fill("training.learning_rate=1e-6,1e-2")
    page.locator("#sweep-start").click()
    rows = page.locator("#sweep-shown tbody tr")
    expect(page.locator("#sweep-shown .notice-finished")).to_contain_text("the best of 2 runs")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("0.01")
    expect(page.locator("#sweep-chart .parcoords").first).to_be_visible()
    rows.first.locator("button").click()
    expect(page.locator("#run .headline")).to_be_visible()
