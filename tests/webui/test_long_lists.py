"""A workspace that has been used for a year: no page of it is longer than four screens unasked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from markupsafe import Markup
from playwright.sync_api import Page, expect

from core.data.prepare import import_dataset
from core.jobs.events import EventWriter
from core.jobs.job import Job
from core.jobs.store import Store
from core.workspace import Workspace, new_id
from tests.e2e.serving import Served
from tests.tiny_model import tiny_adapter, tiny_model
from tests.webui.made_runs import evaluated, exported, make_run, write_sample
from webui import messages, tables
from webui.data.library import render

RUNS, FOUR_SCREENS = 80, 4 * 900


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Job]:
    """Many runs, and the newest with many answers, exports and rows where it is wrong."""
    workspace = Workspace.open(tmp_path_factory.mktemp("full") / "workspace")
    store = Store.open(workspace)
    for place in range(RUNS - 1):
        # Ids of one minute would meet.
        run_id = new_id(datetime(2026, 1, 1) + timedelta(minutes=place))
        make_run(workspace, store, steps=2, name=f"run {place:03}", run_id=run_id)
    job = make_run(workspace, store, steps=2, name="the newest")
    run = workspace.run(job.id)
    tiny_adapter(tiny_model()).save_pretrained(run.adapter)
    events = EventWriter(run.events)
    for step in range(10, 700, 10):
        write_sample(events, step, "an answer\nof\nsome\nlines")
    evaluated(run, "answers")
    report = next(run.evaluations.glob("*/result.json"))
    found = json.loads(report.read_text())
    found["differences"] = found["differences"] * 40
    report.write_text(json.dumps(found))
    for place in range(30):
        exported(run, new_id(datetime(2026, 1, 1) + timedelta(minutes=place)))
    store.close()
    return workspace, job


@pytest.fixture(scope="module")
def served(full: tuple[Workspace, Job]) -> Iterator[Served]:
    server = Served(full[0].root, "--port", "7966")
    yield server
    server.end()


@pytest.mark.e2e
def test_no_page_is_longer_than_four_screens(
    page: Page, served: Served, full: tuple[Workspace, Job]
) -> None:
    """What stands below eighty lines is found by nobody."""
    page.set_viewport_size({"width": 1280, "height": 900})
    shown = {
        "runs": "1 to 25 of 80",
        "train": "answer",
        "evaluate": "14 more",
        "export": "22 more",
        "chat": "No model is in memory",
    }
    page.goto(f"{served.address}/?tab=runs&run={full[1].id}")
    for tab, text in shown.items():
        page.locator(f"#tab-{tab}-button").click()
        expect(page.locator(f"#tab-{tab}")).to_contain_text(text)
        height = page.evaluate("() => document.documentElement.scrollHeight")
        assert height <= FOUR_SCREENS, f"{tab} is {height} px high"


@pytest.mark.e2e
def test_the_table_of_runs_is_turned_and_keeps_what_was_ticked(page: Page, served: Served) -> None:
    """Two runs could be compared only when they stand on one page."""
    page.goto(f"{served.address}/?tab=runs")
    table = page.locator("#runs-table")
    rows = table.locator("tbody tr")
    expect(rows).to_have_count(tables.PAGE)
    expect(table.get_by_role("button", name="Previous")).to_be_disabled()
    rows.first.locator("label").click()
    expect(page.locator("#runs-overlay")).to_be_visible()
    table.get_by_role("button", name="Next").click()
    expect(table).to_contain_text("26 to 50 of 80")
    expect(rows.first.locator("input")).not_to_be_checked()
    rows.first.locator("label").click()
    table.get_by_role("button", name="Previous").click()
    expect(rows.first.locator("input")).to_be_checked()
    expect(page.locator("#runs-differing")).to_contain_text("Their settings are the same.")
    rows.nth(3).locator(".run-name").click()
    expect(page.locator("#runs-detail")).to_be_visible()


def clicked(**sent: Any) -> Any:
    return SimpleNamespace(**sent)


def test_another_order_begins_at_its_first_page() -> None:
    turned = tables.reorder(tables.NEWEST, clicked(first=50))
    assert turned == {**tables.NEWEST, "first": 50}
    assert tables.reorder(turned, gr.EventData(None, {"sort": "name"}))["first"] == 0
    assert not tables.reorder(turned, gr.EventData(None, {"sort": "created"}))["descending"]


def test_the_last_page_is_shown_when_those_after_it_were_deleted() -> None:
    shown, pager = tables.page(range(60), 75)
    assert list(shown) == list(range(50, 60)) and "51 to 60 of 60" in pager
    assert tables.page(range(tables.PAGE), 0)[1] == ""


def test_ticks_of_other_pages_stay() -> None:
    assert tables.tick(["a", "b"], clicked(ticked=["c"], shown=["b", "c"])) == ["a", "c"]


def test_the_table_of_data_sets_has_pages(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "workspace")
    source = workspace.root / "rows.jsonl"
    source.write_text('{"prompt": "a", "completion": "b"}\n' * 4)
    info = import_dataset(workspace, [source], name="rows", eval_fraction=0.0)
    sets = [info.model_copy(update={"name": f"set {n:03}"}) for n in range(60)]
    order = {"by": "name", "descending": False, "first": 25}
    shown = render(sets, [], **order, ticked=[], selected="")
    assert "set 025" in shown and "set 049" in shown and "26 to 50 of 60" in shown
    assert "set 024" not in shown and "set 050" not in shown


def test_a_long_list_is_folded_between_its_ends_and_a_short_one_is_not() -> None:
    pieces = [Markup(f"<p>{n}</p>") for n in range(10)]
    shown = messages.folded(pieces, 2, 3)
    assert shown.startswith("<p>0</p><p>1</p><details") and shown.endswith("<p>8</p><p>9</p>")
    assert "5 more" in shown and "<p>4</p><p>5</p>" in shown
    assert messages.folded(pieces[:6], 2, 3) == "".join(pieces[:6])
