"""What the model sees, in a real browser over the real server: any row, any words, any template,
and the numbers of it all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from core.data.prepare import import_dataset
from core.workspace import Workspace
from tests.e2e.serving import Served
from tests.tiny_model import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.e2e
STARTER = "SmolLM2-135M-Instruct"
ROWS = 60


def turns(*said: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[place % 2], "content": text} for place, text in enumerate(said)]


def chat_rows() -> list[dict[str, Any]]:
    rows = [{"messages": turns(f"question {n}", f"answer {n}")} for n in range(ROWS)]
    rows[41] = {"messages": turns("where is the needle", "in the " + "hay " * 300)}
    return rows


def stock(root: Path) -> Workspace:
    workspace = Workspace.open(root)
    workspace.uploads.mkdir(exist_ok=True)
    pair = {"prompt": turns("which"), "chosen": turns("", "this one")[1:]}
    sets = {
        "chats": chat_rows(),
        "pairs": [
            {**pair, "rejected": [{"role": "assistant", "content": f"no {n}"}]} for n in range(6)
        ],
    }
    for name, rows in sets.items():
        path = workspace.uploads / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        import_dataset(workspace, [path], name=name, eval_fraction=0.0)
    return workspace


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Without a model, until `served` brings it."""
    workspace = stock(tmp_path_factory.mktemp("model-view") / "workspace")
    server = Served(workspace.root, "--port", "7940")
    yield server
    server.end()


@pytest.fixture(scope="module")
def served(server: Served) -> Served:
    models = Workspace.open(server.workspace).models
    tiny_model().save_pretrained(models / STARTER)
    tiny_tokenizer().save_pretrained(models / STARTER)
    return server


def visit(page: Page, served: Served, dataset: str) -> None:
    page.goto(f"{served.address}/?tab=data&dataset={dataset}")
    expect(page.locator("#rows .row-card").first).to_be_visible()


def as_tokens(page: Page) -> None:
    page.get_by_text("As the model sees them").click()
    expect(page.locator("#rows .tokens .t").first).to_be_visible()


def open_part(page: Page, name: str) -> None:
    page.locator(f"#part-{name}-button").click()


def test_without_a_model_the_rest_is_shown_and_fetching_is_offered(
    server: Served, page: Page
) -> None:
    """The first here: the others bring the model."""
    visit(page, server, "chats")
    page.get_by_text("As the model sees them").click()
    fetch = page.get_by_role("button", name="Fetch the model")
    expect(fetch).to_be_visible()
    expect(page.locator("#rows")).to_contain_text("not on this machine yet")
    open_part(page, "numbers")
    expect(page.locator("#numbers-state")).to_contain_text("not on this machine")
    expect(page.locator("#numbers")).to_contain_text("Duplicates")
    expect(page.locator("#numbers-shares")).to_contain_text("Languages")
    expect(fetch).to_be_visible()


def test_any_row_is_reached_by_its_number_and_by_its_words(served: Served, page: Page) -> None:
    visit(page, served, "chats")
    expect(page.locator("#rows-where")).to_have_text(f"Rows 1 to 3 of {ROWS}")
    page.get_by_role("button", name="Next", exact=True).click()
    expect(page.locator("#rows [data-row='3']")).to_be_visible()
    number = page.locator("#go-to-row input")
    number.fill("60")
    number.press("Enter")
    expect(page.locator("#rows")).to_contain_text("answer 59")
    expect(page.get_by_role("button", name="Next", exact=True)).to_be_disabled()
    words = page.locator("#find-rows").get_by_role("textbox")
    words.fill("NEEDLE")
    words.press("Enter")
    expect(page.locator("#rows-where")).to_have_text("1 row contains 'NEEDLE'")
    expect(page.locator("#rows mark")).to_have_text("needle")
    expect(page.locator("#rows .row-card header").first).to_contain_text("Row 42")
    words.fill("no such words")
    words.press("Enter")
    expect(page.locator("#rows")).to_contain_text("Nothing found")
    page.get_by_role("button", name="Show all rows").click()
    expect(page.locator("#rows-where")).to_have_text(f"Rows 1 to 3 of {ROWS}")


def test_tokens_show_the_loss_the_marks_and_what_the_cut_takes(served: Served, page: Page) -> None:
    visit(page, served, "chats")
    as_tokens(page)
    first = page.locator("#rows .row-card").first
    expect(first.locator(".t.special").first).to_have_text("<|im_start|>")
    expect(first.locator(".t.loss.special")).to_have_text("<|im_end|>")
    page.locator("#go-to-row input").fill("42")
    page.locator("#go-to-row input").press("Enter")
    cut = page.locator("#rows [data-row='41']")
    expect(cut.locator(".cut")).to_contain_text("cut at 192")
    expect(cut.locator(".tokens.behind .t").first).to_be_visible()
    page.get_by_label("Data set", exact=True).last.click()
    page.get_by_role("option", name="pairs", exact=True).click()
    expect(page.locator("#rows .row-card").first.locator(".side")).to_have_count(2)


def test_what_is_chosen_beside_the_rows_is_the_runs(served: Served, page: Page) -> None:
    visit(page, served, "chats")
    as_tokens(page)
    page.locator("#template input").click()
    page.get_by_role("option", name=re.compile("Llama 3")).click()
    expect(page.locator("#rows .tokens").first).to_contain_text("start_header_id")
    expect(page.locator("#rows .notice").first).to_contain_text(
        "marks that the model does not know"
    )
    read = page.locator("#rows .row-card").first.locator(".t:not(.loss)")
    page.locator("#rows-learn input").click()
    page.get_by_role("option", name="everything").click()
    expect(read).to_have_count(1)  # nothing comes before the first token that could predict it
    page.locator("#tab-configure-button").click()
    page.get_by_text("Keep or reuse these settings").click()
    page.get_by_role("button", name="Copy as command").click()
    expect(page.locator("#copied")).to_contain_text("--data.chat_template llama3")
    expect(page.locator("#copied")).to_contain_text("--data.learn everything")


def test_a_template_is_edited_with_its_errors_at_their_line(served: Served, page: Page) -> None:
    visit(page, served, "chats")
    as_tokens(page)
    page.locator(".template-bar").get_by_role("button", name="Edit").click()
    text = page.locator("#template-text .cm-content")
    expect(text).to_contain_text("im_start")
    text.click()
    page.keyboard.press("Control+End")
    page.keyboard.type("\n{% endfor %}")
    expect(page.locator("#template-problem")).to_contain_text("Line 5")
    expect(page.locator("#template-problem .wrong")).to_contain_text("endfor")
    for _ in "{% endfor %}":
        page.keyboard.press("Backspace")
    page.keyboard.type("Over and out.")
    expect(page.locator("#template-problem")).to_contain_text("It can be used")
    expect(page.locator("#rows .tokens").first).to_contain_text("Over and out.")
    name = page.locator("#template-name").get_by_role("textbox")
    name.fill("radio")
    page.get_by_role("button", name="Save and use").click()
    expect(page.locator("#template-editor")).to_be_hidden()
    expect(page.locator("#template input")).to_have_value("radio (yours)")
    expect(page.locator("#rows .legend")).to_contain_text("the template radio")
    expect(page.locator("#rows .tokens").first).to_contain_text("Over and out.")
    assert (served.workspace / "templates" / "radio.jinja").is_file()


def test_the_suggested_length_goes_into_the_settings_and_ends_the_cut(
    served: Served, page: Page
) -> None:
    visit(page, served, "chats")
    open_part(page, "numbers")
    expect(page.locator("#numbers")).to_contain_text("Rows cut")
    expect(page.locator("#numbers-state")).to_contain_text(f"All {ROWS} rows")
    expect(page.locator(".charts .js-plotly-plot").first).to_be_visible()
    expect(page.locator(".charts").first).to_contain_text("cut at 192")
    page.locator(".advice").get_by_role("button", name=re.compile("Use ")).click()
    expect(page.locator("#suggested")).to_contain_text("fits this data")
    expect(page.locator("#numbers")).to_contain_text(re.compile(r"Rows cut\s*(0|1\.7) %"))
    chosen = page.locator("#suggested strong").inner_text().split()[1].replace(",", "")
    page.locator("#tab-configure-button").click()
    field = page.locator("#field-training-max_length").get_by_role("textbox")
    expect(field).to_have_value(chosen)
