"""Bringing data in a real browser: recognise, map, import, keep the mapping, take it away again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from core.data.mappings import load_mapping
from core.data.registry import load_dataset_info
from core.workspace import Workspace
from tests.e2e.serving import Served

pytestmark = pytest.mark.e2e
NARROW, WIDE = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
TEMPLATE = "{question}\n\n{options}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One for all: each test brings a file of its own name."""
    server = Served(tmp_path_factory.mktemp("data-page") / "workspace", "--port", "8040")
    yield server
    server.end()


@pytest.fixture
def quiz(tmp_path: Path) -> Path:
    """Questions with options and a subject; nothing to learn from in one of them."""
    path = tmp_path / "quiz.jsonl"
    rows = [
        {"question": f"What is {n}?", "options": ["A", "B"], "answer": "A", "category": subject}
        for n, subject in enumerate(["law", "physics"] * 10)
    ]
    rows.append({"question": "Whose?", "options": ["A"], "answer": "A", "category": None})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def visit(page: Page, served: Served, query: str = "") -> None:
    page.goto(f"{served.address}/{query}")
    expect(page.locator("#rows .row-card").first).to_be_visible()


def bring(page: Page, path: Path) -> Locator:
    page.set_input_files("#drop input[type=file]", path)
    panel = page.locator("#import")
    expect(panel.locator(".recognised")).to_be_visible()
    return panel


def pick(page: Page, panel: Locator, label: str, option: str) -> None:
    panel.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()


def test_what_cannot_be_read_is_named_with_what_to_do(
    served: Served, page: Page, tmp_path: Path
) -> None:
    visit(page, served)
    picture = tmp_path / "holiday.jsonl"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\x00" * 64)
    page.set_input_files("#drop input[type=file]", picture)
    told = page.locator("#tab-data .notice-failed").first
    expect(told).to_contain_text("picture")
    expect(page.locator("#import")).to_be_hidden()
    page.get_by_label("or a file or folder on this machine").fill("/etc/passwd")
    page.get_by_role("button", name="Look", exact=True).click()
    expect(told).to_contain_text("outside the folders that may be read")
    page.get_by_text("From the Hugging Face Hub").click()
    page.get_by_label("Data set", exact=True).first.fill("not a name")
    page.get_by_role("button", name="Look at it").click()
    expect(told).to_contain_text("owner/name")
    expect(page.locator(".toast-body.error")).to_have_count(0)


def test_a_template_makes_labelled_text_and_the_mapping_is_offered_again(
    served: Served, page: Page, quiz: Path
) -> None:
    """The whole way that needs code elsewhere: columns joined, a class chosen, rows held out."""
    visit(page, served)
    panel = bring(page, quiz)
    pick(page, panel, "What the rows are", "Text with labels")
    panel.get_by_label("text", exact=True).select_option("A template of several columns")
    template = panel.get_by_label("Template for text")
    expect(panel.locator(".map-problem")).to_contain_text("Write a template")
    expect(panel.get_by_role("button", name="Import", exact=True)).to_be_disabled()
    template.fill("{question} {optons}")
    template.blur()
    expect(panel.locator(".map-problem")).to_contain_text("did you mean options?")
    template.fill(TEMPLATE)
    template.blur()
    expect(panel.locator(".pair").first).to_contain_text("law")
    expect(panel.locator(".dropped")).to_contain_text("1 row would be dropped")
    page.set_viewport_size(NARROW)  # a phone shows it without scrolling sideways
    assert page.evaluate("() => document.documentElement.scrollWidth") <= NARROW["width"]
    page.set_viewport_size(WIDE)
    panel.get_by_label("Save this mapping as").fill("quizzes")
    panel.locator(".saved-mappings .submit-button").click()
    expect(panel).to_contain_text("Saved as quizzes")
    panel.get_by_role("button", name="Import", exact=True).click()
    expect(panel).to_be_hidden()
    expect(page).to_have_url(re.compile("dataset=quiz"))
    workspace = Workspace.open(served.workspace)
    assert load_mapping(workspace, "quizzes").mapping["text"] == TEMPLATE
    info = load_dataset_info(workspace, "quiz")
    assert (info.form, info.counts.train, info.counts.eval) == ("labelled-text", 18, 2)
    assert info.steps[0].step["stratify"] is True
    page.reload()
    expect(page.locator("#rows")).to_contain_text("physics")
    offer = bring(page, quiz).locator(".offer")
    expect(offer).to_contain_text("quizzes fits these columns")
    offer.get_by_role("button", name="Use it").click()
    expect(page.get_by_label("Template for text")).to_have_value(TEMPLATE)


def test_a_data_set_is_renamed_taken_away_and_deleted_in_the_list(
    served: Served, page: Page, quiz: Path
) -> None:
    visit(page, served)
    panel = bring(page, quiz.rename(quiz.with_name("exam.jsonl")))
    panel.get_by_role("button", name="Import", exact=True).click()
    expect(page).to_have_url(re.compile("dataset=exam"))
    page.locator("#part-manage-button").click()
    detail = page.locator("#library-detail")
    expect(detail.get_by_label("Name", exact=True)).to_have_value("exam")
    detail.get_by_label("Name", exact=True).fill("Questions")
    detail.get_by_role("button", name="Save name and description").click()
    expect(page.locator("#library-table")).to_contain_text("Questions")
    with page.expect_download() as download:
        detail.get_by_role("button", name="JSON Lines").click()
    assert download.value.suggested_filename == "Questions.jsonl"
    rows = [json.loads(line) for line in download.value.path().read_text().splitlines()]
    assert len(rows) == 21 and {row["part"] for row in rows} == {"train", "eval"}
    detail.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.locator("#library-table")).not_to_contain_text("Questions")
    expect(page).to_have_url(re.compile("dataset=sample"))
