"""From an empty workspace to a tuned model on disk, as a person does it: in a real browser, on the
starter model, with few steps. If this fails, the product's first promise is broken. What the model
has learned after all of them is measured by tests/benchmarks/quickstart.py. Each test goes on where
the one before it ended."""

from __future__ import annotations

import json
import re
import signal
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Page, expect

from core.jobs.store import Store
from core.workspace import Workspace
from tests.e2e.serving import Served
from tests.waiting import until

STEPS = 6
ROWS = 10  # the fewest
FEW = (
    ("training", "max_steps", STEPS),
    ("training", "per_device_train_batch_size", 2),
    ("evaluation", "eval_steps", STEPS),
    ("evaluation", "sample_prompts", 1),
    ("evaluation", "sample_max_new_tokens", 8),
)


pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@dataclass
class Way:
    """What the tests hand on: the server at work, and the run once there is one."""

    served: Served
    run: Path = Path()


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    way = Way(Served(tmp_path_factory.mktemp("whole") / "workspace", afresh=True))
    yield way
    way.served.end()


@pytest.fixture(autouse=True)
def alone(page: Page) -> Iterator[None]:
    """Nothing is asked for elsewhere."""
    yield
    assert page.foreign == []  # type: ignore[attr-defined]


def test_one_click_starts_a_run(way: Way, page: Page) -> None:
    start_the_quick_start(way.served, page)
    way.run = the_only_run(way.served)
    expect(page).to_have_url(re.compile(way.run.name))
    expect(page.locator("#run .badge-running")).to_be_visible()


def test_it_is_seen_to_learn(way: Way, page: Page) -> None:
    page.goto(f"{way.served.address}/?tab=train&run={way.run.name}")
    see_it_learn(page, way.run)


def test_the_run_goes_on_without_its_server(way: Way, page: Page) -> None:
    way.served = come_back_after_a_killed_server(way.served, page, way.run)
    wait_for_its_end(page, way.run)


def start_the_quick_start(served: Served, page: Page) -> None:
    page.goto(f"{served.address}/?tab=configure")
    for section in dict.fromkeys(section for section, _, _ in FEW):
        page.locator(f"#fold-{section} .label-wrap").click()
    for section, name, value in FEW:
        field = page.locator(f"#field-{section}-{name}")
        field.locator("textarea, input").fill(str(value))
        field.locator("textarea, input").press("Tab")
        expect(field.locator(".field-was")).to_contain_text("Preset: ")
    start = page.get_by_role("button", name="Start training")
    expect(start).to_be_enabled()
    start.click()
    until(lambda: list(served.workspace.glob("runs/*/config.yaml")))


def the_only_run(served: Served) -> Path:
    runs = list(served.workspace.glob("runs/*/"))
    assert len(runs) == 1
    return runs[0]


def events(run: Path, kind: str) -> list[dict]:
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["kind"] == kind]


def losses(run: Path) -> list[float]:
    return [event["loss"] for event in events(run, "metrics") if "loss" in event]


def has_ended(run: Path) -> bool:
    return events(run, "state")[-1]["state"] == "finished"


def drawn_points(page: Page) -> int:
    """How many points of the loss curve the browser has drawn."""
    return page.evaluate(
        "() => Math.max(0, ...[...document.querySelectorAll('.js-plotly-plot')]"
        ".flatMap(plot => plot.data.map(line => (line.x || []).length)))"
    )


def see_it_learn(page: Page, run: Path) -> None:
    """The curve moves by itself, and a reload in the middle shows the same run again."""
    until(lambda: drawn_points(page) >= 2)
    seen = drawn_points(page)
    until(lambda: drawn_points(page) > seen or has_ended(run))
    assert run.name in page.url
    page.reload()
    until(lambda: drawn_points(page) >= seen)
    assert run.name in page.url


@contextmanager
def standing(served: Served, run: Path) -> Iterator[None]:
    """The process of a run, if it has not ended, does nothing for so long."""
    store = Store.open(Workspace.open(served.workspace))
    pid = store.get(run.name).pid
    store.close()
    worker = psutil.Process(pid) if pid else None
    with suppress(psutil.NoSuchProcess):
        if worker:
            worker.suspend()
    yield
    with suppress(psutil.NoSuchProcess):
        if worker:
            worker.resume()


def come_back_after_a_killed_server(served: Served, page: Page, run: Path) -> Served:
    """The run goes on without its server, and the next server shows it: on a quick machine it may
    have come to its end by then. While the page is opened it stands still."""
    with standing(served, run):
        page.goto(f"{served.address}/?tab=train&run={run.name}")
        until(lambda: drawn_points(page) >= 2)
        before = len(losses(run))
        page.loses_server = True  # type: ignore[attr-defined]
        served.end(signal.SIGKILL)
    until(lambda: len(losses(run)) > before or has_ended(run))
    again = Served(served.workspace)
    page.goto(f"{again.address}/?tab=train&run={run.name}")
    until(lambda: drawn_points(page) >= before)
    expect(page.locator("#run .badge-running, #run .badge-finished").first).to_be_visible()
    return again


def wait_for_its_end(page: Page, run: Path) -> None:
    for step in range(1, STEPS + 1):  # each may take its time beside other work
        until(lambda number=step: len(losses(run)) >= number)
    until(lambda: has_ended(run))
    evaluate_now = page.locator("#run").get_by_role("button", name="Evaluate")
    expect(evaluate_now).to_be_visible()
    assert [event["state"] for event in events(run, "state")][-1] == "finished"
    curve = losses(run)
    assert len(curve) == STEPS and sum(curve[-3:]) < 0.8 * sum(curve[:3])
    steps = {event["step"] for event in events(run, "sample")}
    assert steps == {0, STEPS}  # one watched it learn


def test_it_is_measured_against_its_base(way: Way, page: Page) -> None:
    run = way.run
    page.goto(f"{way.served.address}/?tab=train&run={run.name}")
    page.locator("#run").get_by_role("button", name="Evaluate").click()
    page.locator("#evaluate-rows input[type=number]").fill(str(ROWS))
    page.get_by_text("Other rows, other models").click()
    page.locator("#evaluate-general input").uncheck()
    page.locator("#evaluate-start").click()
    expect(page.locator("#evaluate-report .verdict")).to_contain_text("of fields right")
    [path] = run.glob("evaluations/*/result.json")
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["rows"] == ROWS
    assert result["base"]["eval_loss"]["value"] > result["tuned"]["eval_loss"]["value"]
    assert page.locator("#answers-rows .answer-row").count() > 0


def test_both_answer(way: Way, page: Page) -> None:
    page.goto(f"{way.served.address}/?tab=chat&run={way.run.name}")
    page.get_by_text("System prompt and sampling").click()
    page.locator("#chat-max_new_tokens input").fill("24")
    page.locator("#chat-exact").click()
    expect(page.locator("#chat-temperature input[type=number]")).to_have_value("0")
    expect(page.locator("#chat-right input")).not_to_have_value("")
    page.locator("#chat-row").click()
    box = page.locator("#chat-prompt textarea")
    expect(box).not_to_have_value("")
    box.press("Enter")
    answers = page.locator("#chat-view .said-assistant small")
    expect(answers).to_have_count(2)
    expect(page.locator("#chat-send")).to_be_enabled()
    words = page.locator("#chat-view .said-assistant .words").all_inner_texts()
    assert all(words) and words[0] != words[1]
    page.locator("#chat-unload").click()
    expect(page.locator("#chat-memory")).to_contain_text("No model is in memory")


def test_it_is_exported_and_downloaded(way: Way, page: Page, tmp_path: Path) -> None:
    page.goto(f"{way.served.address}/?tab=export&run={way.run.name}")
    page.locator("#export-start").click()
    card = page.locator("#export-list .export").first
    expect(card).to_be_visible()
    assert card.locator(".badge-failed").count() == 0
    assert card.locator(".badge-finished").count() >= 2
    with page.expect_download() as begun:
        card.get_by_role("link", name="Download").click()
    archive = tmp_path / "model.zip"
    begun.value.save_as(archive)
    with zipfile.ZipFile(archive) as content:
        assert content.testzip() is None
        names = {Path(name).name for name in content.namelist()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= names
