"""Clean and shape, and more rows, in a real browser over the real server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from core.data.prepare import import_dataset
from core.data.registry import load_dataset_info
from core.workspace import Workspace
from tests.data.drafts.conftest import KEY, StandIn, new_rows, serve
from tests.e2e.serving import Served

pytestmark = pytest.mark.e2e
CLASSES = {"computer science": "code", "history": "general", "other": "general"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Labelled text of four classes, and questions with answers."""
    workspace = Workspace.open(tmp_path_factory.mktemp("shaped") / "workspace")
    labels = ["math", "computer science", "history", "other"]
    texts = [{"text": f"Question {n}?", "label": labels[n % 4]} for n in range(80)]
    pairs = [{"prompt": f"Where is town {n}?", "completion": f"By sea {n}."} for n in range(12)]
    alike = [{"text": f"Ticket {n}?", "label": ("Refund", "refund")[n % 2]} for n in range(20)]
    brought = ("topics", texts, "labelled-text"), ("towns", pairs, None), ("tickets", alike, None)
    for name, rows, form in brought:
        path = workspace.root / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        import_dataset(workspace, [path], name=name, form=form, eval_fraction=0.1)
    return workspace


@pytest.fixture(scope="module")
def served(workspace: Workspace) -> Iterator[Served]:
    """The server, with a stand-in for the endpoint in its environment."""
    stand_in = StandIn(new_rows)
    endpoint = serve(stand_in)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNESMITH_OPENAI_BASE_URL", stand_in.url)
        patch.setenv("TUNESMITH_OPENAI_API_KEY", KEY)
        server = Served(workspace.root, "--port", "7970")
        yield server
        server.end()
    endpoint.shutdown()
    endpoint.server_close()


def visit(page: Page, served: Served, dataset: str, part: str) -> None:
    page.goto(f"{served.address}/?tab=data&dataset={dataset}")
    tab = page.locator(f"#part-{part}-button")
    expect(page.locator("#selected-dataset textarea")).to_have_value(dataset)
    tab.click()
    expect(page.locator(f"#part-{part}")).to_be_visible()


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def test_labels_become_fewer_classes_by_clicks_and_undo_brings_them_back(
    served: Served, page: Page, workspace: Workspace
) -> None:
    """Rename, cap, try, apply, edit at its field, undo, reload: without code."""
    visit(page, served, "topics", "shape")
    button(page, "Add a step").click()
    page.locator("#step-chooser [data-at=rename_labels]").click()
    for label, name in CLASSES.items():
        page.locator(f'#label-table input[data-label="{label}"]').fill(name)
    expect(page.locator("#label-table .classes")).to_contain_text("3 classes: general")
    cap = page.locator("#field-rename_labels-cap")
    cap.locator("textarea").fill("none")
    button(page, "Try it").click()
    expect(cap.locator(".field-error")).to_contain_text("a whole number")
    cap.locator("textarea").fill("20")
    button(page, "Try it").click()
    trial = page.locator("#step-trial .trial")
    expect(trial).to_contain_text("20 dropped")
    assert load_dataset_info(workspace, "topics").version == 1
    button(page, "Apply").click()
    expect(page.locator("#shape-progress")).to_contain_text("version 2 is in use")
    expect(page.locator("#steps .step")).to_have_count(3)
    expect(page.locator("#steps")).to_contain_text("80 → 60 rows")
    info = load_dataset_info(workspace, "topics")
    assert set(info.labels) == {"math", "code", "general"}
    button(page, "Undo").click()
    expect(page.locator("#steps .step")).to_have_count(1)
    page.reload()
    page.locator("#part-shape-button").click()
    expect(page.locator("#steps .step")).to_have_count(1)
    assert load_dataset_info(workspace, "topics").version == 1


def test_labels_that_are_as_good_as_the_same_are_merged_by_a_click(
    page: Page, served: Served, workspace: Workspace
) -> None:
    visit(page, served, "tickets", "shape")
    expect(page.locator("#steps")).to_contain_text("differ only in case")
    button(page, "Merge them").click()
    expect(page.locator("#steps")).to_contain_text("Rename labels")
    expect(button(page, "Merge them")).to_have_count(0)
    assert len(load_dataset_info(workspace, "tickets").labels) == 1


def test_drafts_are_written_decided_and_added(
    served: Served, page: Page, workspace: Workspace
) -> None:
    """Nothing gets into the data set before it was accepted, and what was gets in."""
    visit(page, served, "towns", "drafts")
    button(page, "Write more rows").click()
    button(page, "Start writing").click()
    model = page.locator("#field-drafts-model")
    expect(model.locator(".field-error")).to_contain_text("Must not be empty")
    model.locator("input").fill("stand-in")
    model.locator("input").press("Enter")
    page.locator("#field-drafts-rows textarea").fill("5")
    button(page, "Start writing").click()
    expect(page.locator("#drafts .draft")).to_have_count(5)
    button(page, "Edit draft 1").click()
    first = page.locator('#drafts [data-draft="1"]')
    first.locator("textarea").first.fill("")
    first.get_by_role("button", name="Save").click()
    expect(first.locator(".field-error")).to_contain_text("is empty")
    first.locator("textarea").first.fill("How much is that?")
    first.get_by_role("button", name="Save").click()
    expect(first).to_contain_text("edited")
    button(page, "Reject draft 2").click()
    expect(page.locator("#drafts .draft")).to_have_count(4)
    assert load_dataset_info(workspace, "towns").counts.train == 11
    button(page, "Accept all shown").click()
    expect(page.locator("#drafts-add")).to_contain_text("Add the 4 accepted rows")
    page.locator("#drafts-add").click()
    expect(page.locator("#drafts-progress")).to_contain_text("Version 2 is in use")
    assert load_dataset_info(workspace, "towns").counts.train == 15
    assert KEY not in page.content()
