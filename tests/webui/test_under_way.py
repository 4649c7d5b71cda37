"""Long work on data, in a browser: a reload, a second page or another choice loses none of it."""

from __future__ import annotations

import json
import os
import random
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from core.data.prepare import import_dataset
from core.data.registry import list_datasets, load_dataset_info
from core.jobs.job import read_record
from core.workspace import Workspace, write_atomic
from tests.e2e.serving import Served
from tests.e2e.workers import HOLD
from tests.waiting import until

pytestmark = pytest.mark.e2e
PAIR = json.dumps({"prompt": "What is it?", "completion": "It is that."}) + "\n"
ROWS = 2_000


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """With a data set on which the search for near duplicates takes a while."""
    workspace = Workspace.open(tmp_path_factory.mktemp("under-way") / "workspace")
    chance = random.Random(7)
    words = [f"word{n}" for n in range(3000)]
    pieces = [" ".join(chance.choices(words, k=200)) for _ in range(200)]
    path = workspace.root / "texts.jsonl"
    lines = (json.dumps({"text": " ".join(chance.choices(pieces, k=4))}) for _ in range(2_000))
    path.write_text("\n".join(lines), encoding="utf-8")
    import_dataset(workspace, [path], name="texts", eval_fraction=0.0)
    import_dataset(workspace, [write(workspace.root, 20, "few")])
    path.unlink()
    return workspace


@pytest.fixture(scope="module")
def served(workspace: Workspace) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOLD, str(workspace.root.parent / "hold"))
        server = Served(workspace.root, "--port", "8100")
        yield server
        server.end()


def visit(page: Page, served: Served, query: str = "") -> None:
    page.goto(f"{served.address}/{query}")
    expect(page.locator("#rows .row-card").first).to_be_visible()


def write(folder: Path, rows: int, name: str) -> Path:
    path = folder / f"{name}.jsonl"
    path.write_text(PAIR * rows, encoding="utf-8")
    return path


def bring(page: Page, path: Path) -> Locator:
    page.set_input_files("#drop input[type=file]", path)
    panel = page.locator("#import")
    expect(panel.locator(".recognised")).to_be_visible()
    return panel


def button(place: Page | Locator, name: str) -> Locator:
    return place.get_by_role("button", name=name, exact=True)


@contextmanager
def held(bar: Locator, begin: Callable[[], None], what: str = "job") -> Iterator[None]:
    """What `begin` sets to work stands still from where it first tells how far it is: however slow
    the browser is beside it, it is not done before it may go on."""
    hold = Path(os.environ[HOLD])
    write_atomic(hold, what)
    begin()
    try:
        expect(bar).to_be_visible()
        yield
    finally:
        hold.unlink()


def is_at_work(workspace: Workspace, name: str) -> bool:
    """Whether an import has its worker."""
    records = [read_record(folder) for folder in (workspace.root / "jobs").iterdir()]
    return any(one.get("name") == name and one.get("state") == "running" for one in records)


def card(page: Page, text: str) -> Locator:
    return page.locator("#imports li", has_text=text)


def test_an_import_is_there_after_a_reload_and_in_a_second_page_where_it_can_be_stopped(
    served: Served, page: Page, workspace: Workspace, tmp_path: Path
) -> None:
    """It goes on in its process: who reloads must not lose sight of it, nor the way to end it."""
    visit(page, served)
    panel = bring(page, write(tmp_path, ROWS, "endless"))
    with held(panel.locator(".progress"), button(panel, "Import").click):
        expect(page.locator("#imports li")).to_have_count(0)
        page.reload()
        expect(card(page, "Importing endless")).to_be_visible()
        second = page.context.new_page()
        visit(second, served)
        expect(card(second, "Importing endless")).to_be_visible()
        second.get_by_role("button", name="Stop: endless").click()
        for one in (page, second):
            expect(card(one, "Stopped. endless was not imported")).to_be_visible()
    for one in (page, second):
        one.get_by_role("button", name="Dismiss: endless").click()
        expect(one.locator("#imports li")).to_have_count(0)
    assert "endless" not in [info.id for info in list_datasets(workspace)]
    second.close()


def test_an_import_that_fails_after_a_reload_says_why(
    served: Served, page: Page, tmp_path: Path
) -> None:
    """The held-out rows are read last."""
    held_out = tmp_path / "other.jsonl"
    held_out.write_text(json.dumps({"prompt": "Why?", "completion": ""}) + "\n", encoding="utf-8")
    visit(page, served)
    panel = bring(page, write(tmp_path, ROWS, "wrong"))
    panel.get_by_text("a second file").click()
    panel.locator("#second input[type=file]").set_input_files(held_out)
    expect(panel.locator("#second-told")).to_contain_text("cannot be used")
    with held(panel.locator(".progress"), button(panel, "Import").click):
        page.reload()
        expect(card(page, "Importing wrong")).to_be_visible()
    told = card(page, "wrong was not imported: No row of other.jsonl")
    expect(told).to_be_visible()
    page.get_by_role("button", name="Dismiss: wrong").click()
    expect(told).to_have_count(0)


def test_what_was_chosen_while_an_import_went_on_stays_chosen(
    served: Served, page: Page, tmp_path: Path
) -> None:
    """And a file that was brought meanwhile is not put away with the import's end."""
    visit(page, served, "?dataset=sample")
    panel = bring(page, write(tmp_path, ROWS, "late"))
    name = page.get_by_label("Name of the data set")
    with held(panel.locator(".progress"), button(panel, "Import").click):
        select(page, "few")
        expect(page).to_have_url(re.compile("dataset=few"))
        bring(page, write(tmp_path, 30, "next"))
        expect(name).to_have_value("next")
        expect(card(page, "Importing late")).to_be_visible()
    expect(card(page, "late is imported")).to_be_visible()
    expect(page).to_have_url(re.compile("dataset=few"))
    expect(name).to_have_value("next")
    button(panel, "Import").click()
    expect(page).to_have_url(re.compile("dataset=next"))
    expect(card(page, "next")).to_have_count(0)
    page.get_by_role("button", name="Dismiss: late").click()


def select(page: Page, name: str) -> None:
    page.get_by_label("Data set", exact=True).last.click()
    page.get_by_role("option", name=name, exact=True).click()


def open_step(page: Page, op: str) -> None:
    page.locator("#part-shape-button").click()
    button(page, "Add a step").click()
    page.locator(f"#step-chooser [data-at={op}]").click()
    expect(button(page, "Try it")).to_be_visible()


def test_a_step_at_work_is_there_after_a_reload_and_only_at_its_own_data_set(
    served: Served, page: Page, workspace: Workspace
) -> None:
    visit(page, served, "?dataset=texts")
    open_step(page, "drop_near_duplicates")
    bar, stop = page.locator("#shape-progress .progress"), page.locator("#shape-stop")
    with held(bar, button(page, "Apply").click):
        page.reload()
        page.locator("#part-shape-button").click()
        expect(bar).to_contain_text("near duplicates")
        select(page, "few")
        expect(bar).to_have_count(0)
        expect(stop).to_be_hidden()
        select(page, "texts")
        expect(bar).to_contain_text("near duplicates")
        stop.click()
        told = page.locator("#shape-progress")
        expect(told).to_contain_text("Stopped. The data set is as it was.")
    assert load_dataset_info(workspace, "texts").version == 1


def test_a_trial_tells_how_far_it_is_and_can_be_stopped_or_left(
    served: Served, page: Page, workspace: Workspace
) -> None:
    """What a trial that was left finds must not stand under another step."""
    visit(page, served, "?dataset=texts")
    open_step(page, "drop_near_duplicates")
    trial, again = page.locator("#step-trial"), button(page, "Try it")
    with held(trial.locator(".progress"), again.click, "try_in_order"):
        expect(again).to_be_disabled()
        button(page, "Stop the trial").click()
        expect(trial).to_contain_text("Stopped. A trial changes nothing.")
        expect(button(page, "Stop the trial")).to_be_hidden()
    with held(trial.locator(".progress"), again.click, "try_in_order"):
        button(page, "Another step").click()
    page.locator("#step-chooser [data-at=drop_duplicates]").click()
    expect(page.locator("#field-drop_duplicates-compare")).to_be_visible()
    again.click()
    expect(trial.locator(".trial")).to_contain_text("Drop exact duplicates")
    expect(trial.locator(".step")).to_have_count(1)


def test_an_import_is_found_again_when_the_server_was_killed_and_started_again(
    served: Served,
    page: Page,
    workspace: Workspace,
    tmp_path: Path,
    serve: Callable[..., Served],
) -> None:
    """Whoever brought a large file must not bring it again because the server was restarted. The
    last one here: it kills the server of them all."""
    page.loses_server = True  # type: ignore[attr-defined]
    visit(page, served)
    panel = bring(page, write(tmp_path, ROWS, "kept"))
    with held(panel.locator(".progress"), button(panel, "Import").click):
        page.goto("about:blank")
        # One that is killed while it asks for the worker takes what they are all forked from along.
        until(lambda: is_at_work(workspace, "kept"))
        served.end(signal.SIGKILL)
        again = serve(workspace.root, "--port", "8110")
        visit(page, again)
        expect(card(page, "Importing kept")).to_be_visible()
    expect(card(page, "kept is imported: 1,800 rows to learn")).to_be_visible()
    page.get_by_role("button", name="Open it: kept").click()
    expect(page).to_have_url(re.compile("dataset=kept"))
    expect(card(page, "kept")).to_have_count(0)
    assert load_dataset_info(workspace, "kept").counts.eval == 200
