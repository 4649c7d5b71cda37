"""Jobs on the page without a browser: what is shown of each, to whom, and for how long."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from core.data.jobs import submit_import, submit_steps
from core.jobs.events import EventWriter
from core.jobs.job import Job
from core.jobs.task import Task
from tests.webui.fakes import fake_app
from webui.context import App
from webui.job_progress import JobProgress, bar

HOSTILE = "<b>many</b>"
RESULT = {"dataset": "many", "name": HOSTILE, "train": 1200, "eval": 3, "test": 0, "dropped": 0}


@pytest.fixture
def app(tmp_path: Path) -> App:
    return fake_app(tmp_path / "workspace")


def imports(app: App) -> JobProgress:
    with gr.Blocks():
        return JobProgress(app, ("import",), elem_id="imports")


def steps(app: App) -> JobProgress:
    with gr.Blocks():
        return JobProgress(app, ("prepare",), elem_id="steps", of="dataset", stop_id="stop-it")


class Page:
    """What one browser's session holds of a list."""

    def __init__(self, jobs: JobProgress, place: str = "") -> None:
        self.jobs, self.place = jobs, place
        self.data: dict[Any, Any] = {jobs.shown: None, jobs.told: None, jobs.known: set()}

    def shown(self, without: str = "") -> str:
        self.data |= self.jobs.draw(self.data, self.place, without)
        return self.data[self.jobs.shown] or ""

    def click(self, act: str, job: Job) -> str | None:
        event: Any = SimpleNamespace(act=act, at=job.id)
        return self.jobs.act(self.data[self.jobs.known], event)


def begun(app: App, name: str = HOSTILE) -> Job:
    job = submit_import(app.workspace, app.store, ["rows.jsonl"], name)
    app.store.transition(job.id, {"queued"}, "running")
    return job


def end(app: App, job: Job, state: str = "finished", **why: Any) -> None:
    if state == "finished":
        Task(app.workspace.root / job.folder).finish(RESULT)
    app.store.transition(job.id, {"running"}, state, ended_at=2e9, **why)


def test_an_import_stands_in_every_page_but_in_the_form_that_shows_it(app: App) -> None:
    job, jobs = begun(app), imports(app)
    own, second = Page(jobs), Page(jobs)
    assert own.shown(without=job.id) == ""
    shown = second.shown()
    assert "Importing &lt;b&gt;many" in shown and 'data-act="stop"' in shown and "<b>" not in shown
    end(app, job)
    reloaded = Page(jobs)
    for page in (second, reloaded):
        assert "1,200 rows to learn, 3 held out" in page.shown()
        assert 'data-act="open"' in page.shown()
    assert own.click("open", job) == "many"
    assert own.shown() == "" and reloaded.shown() == "", "its end was seen"
    assert "1,200 rows" in second.shown(), "it saw the beginning, and wants the end"
    second.click("dismiss", job)
    assert second.shown() == ""


def test_nothing_is_sent_while_nothing_is_new(app: App) -> None:
    page = Page(imports(app))
    begun(app)
    page.shown()
    assert page.jobs.draw(page.data) == {}


def test_a_failed_import_waits_until_somebody_has_read_why(app: App) -> None:
    job = begun(app, "many")
    end(app, job, "failed", error="No row is left.", advice="Mend it.")
    first, second = Page(imports(app)), Page(imports(app))
    for page in (first, second):
        assert "many was not imported: No row is left." in page.shown()
        assert "Mend it." in page.shown()
    first.click("dismiss", job)
    assert second.shown() == ""


def test_a_worker_that_died_is_told(app: App) -> None:
    job = begun(app, "many")
    end(app, job, "died", error="The worker was killed (signal 9).", signal=9)
    assert "many was not imported: The worker was killed" in Page(imports(app)).shown()


def test_how_far_a_job_is_and_that_it_stops(app: App) -> None:
    job, page = begun(app, "many"), Page(imports(app))
    assert "Importing many: Starting" in page.shown()
    events = EventWriter(app.workspace.root / job.folder / "events.jsonl")
    events.write("progress", fraction=0.25, message="Reading a", eta_seconds=30.0)
    assert "Importing many: Reading a, 25%, about 30 s left" in page.shown()
    page.click("stop", job)
    assert "Importing many: Stopping" in page.shown()
    app.store.transition(job.id, {"stopping"}, "stopped", ended_at=2e9)
    assert "Stopped. many was not imported." in page.shown()


def test_a_step_is_shown_at_its_own_data_set_until_the_next(app: App) -> None:
    jobs = steps(app)
    here, there = Page(jobs, "towns"), Page(jobs, "topics")
    job = submit_steps(app.workspace, app.store, "towns", [], title="Shuffle")
    assert "Shuffle: waits for its turn" in here.shown() and 'id="stop-it"' in here.shown()
    assert there.shown() == "" and jobs.at_work("towns") and not jobs.at_work("topics")
    app.store.transition(job.id, {"queued"}, "stopped", ended_at=2e9)
    assert "The data set is as it was." in here.shown()
    begun_again = submit_steps(app.workspace, app.store, "towns", [], title="Split")
    assert "Split" in here.shown() and "as it was" not in here.shown()
    assert here.data[jobs.told] == f"{begun_again.id}:working"
    app.store.transition(begun_again.id, {"queued"}, "stopped", ended_at=2e9)
    jobs.clear("towns")
    assert here.shown() == "" and here.data[jobs.told] == f"{begun_again.id}:stopped"


def test_a_button_of_one_list_does_nothing_to_the_jobs_of_another(app: App) -> None:
    job = begun(app)
    assert Page(steps(app)).click("stop", job) is None
    assert app.store.get(job.id).state == "running"


def test_a_bar_says_what_is_done_and_how_far_it_is() -> None:
    assert "Importing a: Reading, 25%, about 30 s left" in bar("Importing a", "Reading", 0.25, 30.0)
    assert "left" not in bar("", "Reading", 1.0, 3.0)
    assert "Starting" in bar("", "")
