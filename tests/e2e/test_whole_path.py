"""From an empty workspace to a tuned model on disk, as a person does it: in a real browser, on the
starter model. If this fails, the product's first promise is broken."""

from __future__ import annotations

import json
import signal
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.serving import Served, wait_until

MINUTE = 60_000  # Playwright counts in milliseconds
# The quick start takes a few minutes on two free cores; a busy machine may be far slower.
LONGEST_RUN = 20 * 60


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(45 * 60)
def test_one_click_to_a_tuned_model(serve, page: Page, tmp_path: Path) -> None:
    served = serve(tmp_path / "workspace")
    start_the_quick_start(served, page)
    run = the_only_run(served)
    see_it_learn(page, run)
    come_back_after_a_killed_server(serve, served, page, run)
    wait_for_its_end(page, run)
    evaluate(page, run)
    chat_with_both(page)
    export_and_download(page, tmp_path)
    assert page.foreign == []  # type: ignore[attr-defined]
    assert page.errors == []  # type: ignore[attr-defined]


def start_the_quick_start(served: Served, page: Page) -> None:
    page.goto(f"{served.address}/?tab=configure")
    start = page.get_by_role("button", name="Start training")
    expect(start).to_be_enabled(timeout=MINUTE)
    start.click()
    wait_until(lambda: list(served.workspace.glob("runs/*/config.yaml")), 300, "a run")


def the_only_run(served: Served) -> Path:
    runs = list(served.workspace.glob("runs/*/"))
    assert len(runs) == 1
    return runs[0]


def events(run: Path, kind: str) -> list[dict]:
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["kind"] == kind]


def losses(run: Path) -> list[float]:
    return [event["loss"] for event in events(run, "metrics") if "loss" in event]


def drawn_points(page: Page) -> int:
    """How many points of the loss curve the browser has drawn."""
    return page.evaluate(
        "() => Math.max(0, ...[...document.querySelectorAll('.js-plotly-plot')]"
        ".flatMap(plot => plot.data.map(line => (line.x || []).length)))"
    )


def see_it_learn(page: Page, run: Path) -> None:
    """The curve moves by itself, and a reload in the middle shows the same run again."""
    wait_until(lambda: len(losses(run)) >= 3, LONGEST_RUN, "three steps")
    wait_until(lambda: drawn_points(page) >= 3, 180, "a curve of three points")
    seen = drawn_points(page)
    wait_until(lambda: drawn_points(page) > seen, LONGEST_RUN, "a growing curve")
    assert run.name in page.url
    page.reload()
    wait_until(lambda: drawn_points(page) > seen, 180, "the curve after a reload")
    assert run.name in page.url


def come_back_after_a_killed_server(serve, served: Served, page: Page, run: Path) -> None:
    """The run goes on without its server, and the next server shows it live."""
    before = len(losses(run))
    served.end(signal.SIGKILL)
    wait_until(lambda: len(losses(run)) > before, LONGEST_RUN, "a step without a server")
    again = serve(served.workspace)
    page.goto(f"{again.address}/?tab=train&run={run.name}")
    wait_until(lambda: drawn_points(page) > before, 180, "the full curve")
    expect(page.locator("#run .badge-running").first).to_be_visible(timeout=MINUTE)


def wait_for_its_end(page: Page, run: Path) -> None:
    evaluate_now = page.locator("#run").get_by_role("button", name="Evaluate")
    expect(evaluate_now).to_be_visible(timeout=LONGEST_RUN * 1000)
    assert [event["state"] for event in events(run, "state")][-1] == "finished"
    curve = losses(run)
    assert sum(curve[-5:]) < 0.5 * sum(curve[:5])
    steps = {event["step"] for event in events(run, "sample")}
    assert 0 in steps and len(steps) >= 3  # one watched it learn


def evaluate(page: Page, run: Path) -> None:
    page.locator("#run").get_by_role("button", name="Evaluate").click()
    page.locator("#evaluate-start").click()
    expect(page.locator("#evaluate-report .verdict")).to_contain_text(
        "of fields right", timeout=LONGEST_RUN * 1000
    )
    [path] = run.glob("evaluations/*/result.json")
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["rows"] == 40
    assert result["base"]["exact_rows"]["value"] <= 0.05
    # The goal is 0.8; another CPU rounds differently, and one field of these 40 rows is 0.006.
    assert result["tuned"]["all_fields"]["value"] >= 0.75
    assert page.locator("#evaluate-report .compared").count() > 0


def chat_with_both(page: Page) -> None:
    page.get_by_role("tab", name="Chat").click()
    page.locator("#chat-row").click()
    box = page.locator("#chat-prompt textarea")
    expect(box).not_to_have_value("", timeout=MINUTE)
    box.press("Enter")
    answers = page.locator("#chat-view .said-assistant small")
    expect(answers).to_have_count(2, timeout=5 * MINUTE)
    expect(page.locator("#chat-send")).to_be_enabled(timeout=5 * MINUTE)
    words = page.locator("#chat-view .said-assistant .words").all_inner_texts()
    tuned = json.loads(words[1])
    assert set(tuned) == {"product", "urgency", "intent", "summary"}
    assert words[0] != words[1]
    page.locator("#chat-unload").click()
    expect(page.locator("#chat-memory")).to_contain_text("No model is in memory", timeout=MINUTE)


def export_and_download(page: Page, tmp_path: Path) -> None:
    page.get_by_role("tab", name="Export").click()
    page.locator("#export-start").click()
    card = page.locator("#export-list .export").first
    expect(card).to_be_visible(timeout=10 * MINUTE)
    assert card.locator(".badge-failed").count() == 0
    assert card.locator(".badge-finished").count() >= 2
    with page.expect_download(timeout=5 * MINUTE) as begun:
        card.get_by_role("link", name="Download").click()
    archive = tmp_path / "model.zip"
    begun.value.save_as(archive)
    with zipfile.ZipFile(archive) as content:
        assert content.testzip() is None
        names = {Path(name).name for name in content.namelist()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= names
