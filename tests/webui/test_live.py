"""What a browser draws must be the run's curve, however it came: all at once, point by point, after
a reload, or after the run went back to a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.errors import WorkspaceError
from core.jobs.events import EventWriter
from core.jobs.store import Store
from core.workspace import Workspace
from tests.webui.made_runs import make_run, write_sample, write_steps
from webui.charts import MOST_POINTS, columns
from webui.live import LiveRun, LiveRuns


class Browser:
    """Does with the server's news what assets/charts.js does."""

    def __init__(self) -> None:
        self.cursor: dict[str, Any] = {}
        self.curves: dict[str, dict[str, list]] = {}
        self.titles: list[str] = []
        self.received = 0

    def look(self, run: LiveRun) -> bool:
        news = run.news(self.cursor)
        if news is None:
            return False
        if news["whole"]:
            self.curves = {}
        if news["panels"] is not None:
            self.titles = [panel["title"] for panel in news["panels"]]
            lines = {line["metric"] for panel in news["panels"] for line in panel["lines"]}
            kept = {"loss", "loss_smooth", "eval_loss", *lines}
            self.curves = {name: curve for name, curve in self.curves.items() if name in kept}
        for name, points in news["curves"].items():
            known = self.curves.setdefault(name, {"x": [], "y": []})
            known["x"] += points["x"]
            known["y"] += points["y"]
            self.received += len(points["x"])
        drawn = max((len(curve["x"]) for curve in self.curves.values()), default=0)
        for key in ("run", "generation", "counts", "digest"):
            self.cursor[key] = news[key]
        self.cursor["drawn"] = drawn
        return True


@pytest.fixture
def run(workspace: Path) -> LiveRun:
    place = Workspace.open(workspace)
    job = make_run(place, Store.open(place), state="running", steps=40)
    live = LiveRuns(place).get(job.id)
    return live


def events(run: LiveRun) -> EventWriter:
    return EventWriter(run.folder.events)


def test_a_new_browser_gets_the_whole_curve(run: LiveRun) -> None:
    browser = Browser()
    assert browser.look(run)
    assert browser.curves["loss"] == columns(run.curve("loss"))
    assert browser.curves["loss"]["x"] == list(range(1, 41))
    assert browser.curves["memory_bytes"]["y"] == [2.0] * 40


def test_nothing_is_sent_when_nothing_is_new(run: LiveRun) -> None:
    browser = Browser()
    browser.look(run)
    assert not browser.look(run)


def test_only_new_points_are_sent(run: LiveRun) -> None:
    browser = Browser()
    browser.look(run)
    browser.received = 0
    write_steps(events(run), 41, 42, 90)
    run.update()
    assert browser.look(run)
    assert browser.received == 12  # two steps of five curves and the smoothed loss
    assert browser.curves["loss"] == columns(run.curve("loss"))


def test_a_chart_comes_with_its_first_number_and_all_of_them_when_asked_for(run: LiveRun) -> None:
    """Who asks for all metrics and changes their mind must see each curve once."""
    browser = Browser()
    browser.look(run)
    assert "Perplexity" not in browser.titles and "Memory (GiB)" in browser.titles
    events(run).write("metrics", step=41, perplexity=3.0, odd=7.0)
    run.update()
    browser.look(run)
    assert browser.titles[0] == "Perplexity" and "odd" not in browser.titles
    for wanted in (True, False, True):
        browser.cursor["all"] = wanted
        browser.look(run)
        assert ("odd" in browser.titles) is wanted
        assert not browser.look(run)
    assert browser.curves["odd"] == {"x": [41], "y": [7.0]}
    assert browser.curves["loss"] == columns(run.curve("loss"))


def test_a_browser_that_missed_an_answer_still_ends_with_the_true_curve(run: LiveRun) -> None:
    """The sleeping laptop: points are sent from where the browser is, not where it should be."""
    browser = Browser()
    browser.look(run)
    write_steps(events(run), 41, 50, 90)
    run.update()
    Browser().look(run)  # another browser's answer, lost to this one
    write_steps(events(run), 51, 60, 90)
    run.update()
    browser.look(run)
    assert browser.curves["loss"] == columns(run.curve("loss"))


def test_a_resumed_run_takes_its_points_back(run: LiveRun) -> None:
    browser = Browser()
    browser.look(run)
    events(run).write("state", state="queued", resumed_from_step=20)
    write_steps(events(run), 21, 25, 90)
    run.update()
    browser.look(run)
    assert browser.curves["loss"]["x"] == list(range(1, 26))


def test_a_resumed_run_takes_later_answers_back(run: LiveRun) -> None:
    assert [step for step, _ in run.samples[0].answers] == [40]
    events(run).write("state", state="queued", resumed_from_step=20)
    write_sample(events(run), 40, "another answer")
    run.update()
    assert run.samples[0].answers == [(40, "another answer")]


def test_never_more_than_a_thousand_points_are_drawn(run: LiveRun) -> None:
    browser = Browser()
    for last in range(500, 4000, 180):
        write_steps(events(run), last - 179 if last > 500 else 41, last, 4000)
        run.update()
        browser.look(run)
        assert max(len(curve["x"]) for curve in browser.curves.values()) <= MOST_POINTS
    assert browser.curves["loss"]["x"][0] == 1
    assert browser.curves["loss"]["x"][-1] == run.curve("loss")[-1][0]


def test_a_cursor_that_makes_no_sense_gets_the_whole_curve(run: LiveRun) -> None:
    broken = {"run": run.folder.root.name, "counts": "many", "drawn": None}
    news = run.news(broken)
    assert news is not None and news["whole"]


def test_choices_and_progress_are_kept(run: LiveRun) -> None:
    choice = {"field": "training.precision", "value": "bf16", "reason": "this CPU has AMX"}
    events(run).write("log", level="info", message="precision: bf16", choice=choice)
    events(run).write("progress", message="Evaluating")
    run.update()
    assert run.choices["training.precision"]["value"] == "bf16"
    assert run.progress["message"] == "Evaluating"
    assert run.progress["step"] == 40  # a message alone does not take the step away


def test_a_path_is_not_a_run(workspace: Path) -> None:
    with pytest.raises(WorkspaceError):
        LiveRuns(Workspace.open(workspace)).get("../../etc")
