"""From a raw file to clean, split rows, as a person does it: upload, map, preview, clean, rename,
split, undo, reload. If this fails, people bring data and cannot use it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.serving import Served
from tests.waiting import until

TOPICS = {"law": 40, "computer science": 30, "philosophy": 20}


@pytest.mark.e2e
@pytest.mark.slow
def test_a_raw_file_becomes_clean_split_rows(serve, page: Page, tmp_path: Path) -> None:
    served = serve(tmp_path / "workspace", afresh=True)
    page.goto(f"{served.address}/?tab=data")
    upload_and_map(page, write_questions(tmp_path))
    look_at_the_rows(page)
    drop_the_duplicates(page)
    rename_the_labels(page)
    undo_and_reload(served, page)
    assert page.foreign == []  # type: ignore[attr-defined]


def write_questions(folder: Path) -> Path:
    """Multiple-choice questions of three topics, five of them twice, one row without an answer."""
    rows = [
        {"question": f"{topic.title()} question {n}?", "options": ["yes", "no"], "category": topic}
        for topic, count in TOPICS.items()
        for n in range(count)
    ]
    lines = [json.dumps(row) for row in [*rows, *rows[:5]]] + ['{"question": "lost"', "{}"]
    path = folder / "questions.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def upload_and_map(page: Page, path: Path) -> None:
    page.locator("#drop input[type=file]").set_input_files(path)
    panel = page.locator("#import")
    expect(panel.get_by_role("button", name="Import", exact=True)).to_be_visible()
    expect(page.locator("#form input").first).to_have_value("Text with labels")
    panel.get_by_label("text", exact=True).select_option("A template of several columns")
    box = panel.get_by_label("Template for text")
    box.fill("{question}\n\n{optoins}")
    box.press("Tab")
    expect(panel).to_contain_text("did you mean")
    box.fill("{question}\n\n{options}")
    box.press("Tab")
    panel.get_by_label("label", exact=True).select_option("category")
    preview = page.locator("#import-preview")
    expect(preview).to_contain_text("Law question 0?")
    expect(panel).not_to_contain_text("did you mean")
    panel.get_by_role("button", name="Import", exact=True).click()
    expect(panel).to_be_hidden()


def look_at_the_rows(page: Page) -> None:
    rows = page.locator("#rows")
    expect(rows).to_contain_text("question")
    assert "dataset=questions" in page.url
    expect(page.locator("#rows-where")).to_contain_text("of 86")  # 95 less 9
    numbers = page.locator("#tab-data .figures").first
    expect(numbers).to_contain_text("Dropped\n2", use_inner_text=True)
    page.get_by_role("tab", name="Configure").click()
    expect(page.locator("#field-data-dataset input")).to_have_value("questions")
    page.get_by_role("tab", name="Data", exact=True).click()


def record(served: Served) -> dict:
    path = served.workspace / "datasets" / "questions" / "dataset.json"
    return json.loads(path.read_text(encoding="utf-8"))


def add_step(page: Page, title: str) -> None:
    page.get_by_role("tab", name="Clean and shape").click()
    page.get_by_role("button", name="Add a step").click()
    page.locator("#step-chooser").get_by_text(title, exact=True).click()


def drop_the_duplicates(page: Page) -> None:
    add_step(page, "Drop exact duplicates")
    page.locator("#shape-panel").get_by_role("button", name="Try it").click()
    expect(page.locator("#step-trial")).to_contain_text("5")
    page.locator("#shape-panel").get_by_role("button", name="Apply").click()
    steps = page.locator("#steps")
    expect(steps).to_contain_text("95 → 90 rows")
    expect(steps).to_contain_text("5 dropped")


def rename_the_labels(page: Page) -> None:
    add_step(page, "Rename labels")
    table = page.locator("#label-table")
    table.get_by_label(re.compile("computer science")).fill("code")
    table.get_by_label(re.compile("philosophy")).fill("general")
    page.locator("#shape-panel").get_by_role("button", name="Apply").click()
    expect(page.locator("#steps")).to_contain_text("50 changed")


def undo_and_reload(served: Served, page: Page) -> None:
    assert set(record(served)["labels"]) == {"law", "code", "general"}
    page.get_by_role("button", name="Undo", exact=True).click()
    until(lambda: set(record(served)["labels"]) == set(TOPICS))
    page.reload()
    expect(page.locator("#rows-where")).to_contain_text("of 81")  # 90 less 9
    assert "dataset=questions" in page.url
    told = record(served)
    assert [step["step"]["op"] for step in told["steps"]] == ["drop_duplicates", "split"]
    assert told["counts"]["read"] == 97 and told["counts"]["dropped"] == 2
