"""The Hugging Face Hub in Export, in a real browser and with a stand-in for the Hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from core.jobs.job import Job
from core.jobs.store import Store
from core.rules import parse_config
from core.workspace import Workspace
from tests.e2e.serving import Served
from tests.hub.conftest import FILES, exported
from tests.hub.stand_in import READS, WRITES, Hub
from tests.hub.test_cloud import exported as scripted
from tests.tiny_model import tiny_adapter, tiny_model, tiny_tokenizer
from tests.waiting import LIMIT
from tests.webui.made_runs import make_run

pytestmark = pytest.mark.e2e


@pytest.fixture
def run(workspace: Path) -> Job:
    opened = Workspace.open(workspace)
    store = Store.open(opened)
    job = make_run(opened, store, steps=2, name="colours")
    store.close()
    folder = opened.run(job.id)
    parse_config({}).save(folder.config)
    tiny_adapter(tiny_model()).save_pretrained(folder.adapter)
    exported(folder, "20260101-1000-first-export")
    return job


@pytest.fixture
def opened(hub: Hub, page: Page, serve: Callable[..., Served], workspace: Path, run: Job) -> Page:
    """The Hub's part of Export, open."""
    served = serve(workspace, "--port", "7975")
    page.goto(f"{served.address}/?tab=export&run={run.id}")
    page.locator("#push").get_by_role("button", name="Hugging Face Hub").click()
    expect(page.locator("#push-who")).to_contain_text("Nobody is logged in")
    return page


def log_in(page: Page, token: str) -> None:
    page.locator("#push-token input").fill(token)
    page.locator("#push-token").get_by_role("button", name="Log in").click()


def repository(page: Page, name: str) -> None:
    page.get_by_label("Repository", exact=True).fill(name)


def test_an_export_is_pushed(hub: Hub, opened: Page, workspace: Path, run: Job) -> None:
    page = opened
    log_in(page, "hf_nobodyHasThis")
    expect(page.locator("#push-who")).to_contain_text("does not accept your token")
    expect(page.locator("#push-token input")).to_have_value("")
    log_in(page, READS)
    expect(page.locator("#push-who")).to_contain_text("Logged in as ada. The token may read.")
    expect(page.locator("#push-token")).to_be_hidden()
    repository(page, "ada/colours")
    page.locator("#push-look").click()
    plan = page.locator("#push-said")
    expect(plan).to_contain_text("may only read")
    expect(plan).to_contain_text("Log in with one that may write")
    page.locator("#push-logout").click()
    log_in(page, WRITES)
    expect(page.locator("#push-who")).to_contain_text("read and write")

    repository(page, "colours")
    page.locator("#push-look").click()
    wrong = page.locator("#push .field.is-wrong")
    expect(wrong).to_contain_text("Write it as OWNER/NAME")
    assert hub.repositories == {}

    repository(page, "ada/colours")
    page.locator("#push-look").click()
    expect(plan).to_contain_text("ada/colours (is made, private)")
    expect(plan.locator("tbody tr")).to_have_count(len(FILES))
    expect(plan).to_contain_text("adapter_model.safetensors")
    expect(wrong).to_have_count(0)
    assert hub.repositories == {}

    page.locator("#push-start").click()
    link = page.locator("#push-there a")
    expect(link).to_have_text("ada/colours")
    assert link.get_attribute("href") == f"{hub.endpoint}/ada/colours"
    expect(page.locator("#push-status")).to_contain_text("4 files were pushed to")
    there = hub.repository("ada/colours")
    assert there.private and there.files().items() >= FILES.items()
    page.locator("#push-look").click()
    expect(plan).to_contain_text("There already")

    edited = edit_the_card(page, workspace, run)
    page.locator("#push-start").click()
    expect(page.locator("#push-status")).to_contain_text("1 file was pushed to")
    assert there.files()["README.md"].decode() == edited

    page.locator("#push-logout").click()
    expect(page.locator("#push-who")).to_contain_text("Nobody is logged in")
    page.locator("#push-start").click()
    expect(plan).to_contain_text("You are not logged in")
    for path in workspace.rglob("*"):
        assert not path.is_file() or WRITES.encode() not in path.read_bytes(), path
    assert WRITES not in page.content()


def test_the_page_goes_on_while_a_push_is_planned(hub: Hub, opened: Page) -> None:
    """The Hub, or a large file, may take its time."""
    page = opened
    log_in(page, WRITES)
    expect(page.locator("#push-who")).to_contain_text("read and write")
    held = hub.fails("GET /api/models/ada/colours", hold=True, times=9)
    repository(page, "ada/colours")
    page.locator("#push-look").click()
    plan = page.locator("#push-said")
    expect(plan.locator(".progress")).to_have_text("Looking at what is there")
    assert held.reached.wait(LIMIT)
    repository(page, "ada/others")
    page.locator("#push-look").click()
    expect(plan).to_contain_text("ada/others (is made, private)")
    held.release.set()
    page.locator("#push-logout").click()
    expect(page.locator("#push-who")).to_contain_text("Nobody is logged in")
    expect(plan).to_contain_text("ada/others (is made, private)")


def edit_the_card(page: Page, workspace: Path, run: Job) -> str:
    """What it is after it was edited, and once wrongly."""
    page.locator("#fold-push-card summary").click()
    card = page.get_by_label("README.md", exact=True)
    before = FILES["README.md"].decode()
    expect(card).to_have_value(before)
    card.fill(before.replace("peft", "[peft"))
    page.locator("#push-look").click()
    wrong = page.locator("#push .field.is-wrong")
    expect(wrong).to_contain_text("Its YAML cannot be read at line")
    place = Workspace.open(workspace).run(run.id).exports / "20260101-1000-first-export"
    file = next(place.glob("*-adapter")) / "README.md"
    assert file.read_text() == before
    card.fill(before + "\nFor hats alone: 帽子.")
    page.locator("#push-look").click()
    changed = page.locator("#push-said tbody tr", has_text="README.md")
    expect(changed).to_contain_text("changed")
    expect(wrong).to_have_count(0)
    page.reload()
    page.locator("#push").get_by_role("button", name="Hugging Face Hub").click()
    page.locator("#fold-push-card summary").click()
    expect(card).to_have_value(f"{before}\nFor hats alone: 帽子.\n")
    repository(page, "ada/colours")
    return file.read_text()


def test_a_run_is_trained_in_the_cloud(
    hub: Hub,
    page: Page,
    serve: Callable[..., Served],
    workspace: Path,
    run: Job,
    tmp_path: Path,
) -> None:
    opened = Workspace.open(workspace)
    tiny_model().save_pretrained(opened.models / "SmolLM2-135M-Instruct")
    tiny_tokenizer().save_pretrained(opened.models / "SmolLM2-135M-Instruct")
    scripted(opened.run(run.id), "rows")
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / "token").write_text(WRITES)
    served = serve(workspace, "--port", "7976")
    page.goto(f"{served.address}/?tab=export&run={run.id}")
    fold = page.locator("#cloud")
    fold.get_by_role("button", name="Train in the cloud").click()
    page.locator("#cloud-look").click()
    expect(page.locator("#cloud-prices tbody tr")).to_have_count(2)
    expect(page.locator("#cloud-prices")).to_contain_text("$0.0067")
    page.locator("#cloud-start").click()
    expect(page.locator("#field-cloud-repo_id .field-error")).to_contain_text("OWNER/NAME")
    page.locator("#field-cloud-repo_id textarea").fill("ada/tuned")
    page.locator("#field-cloud-flavor input").fill("h900")
    page.locator("#cloud-start").click()
    wrong = page.locator("#field-cloud-flavor .field-error")
    expect(wrong).to_contain_text("cannot be rented")
    page.locator("#field-cloud-flavor input").fill("")
    page.get_by_role("option", name="t4-small").click()
    page.locator("#cloud-start").click()
    expect(page.locator("#cloud-status")).to_contain_text("Trained for about $0.01")
    expect(page.locator("#cloud-status")).to_contain_text("Here it is the run")
    assert "trained/adapter_model.safetensors" in hub.repository("ada/tuned").files()
    page.locator("#tab-runs-button").click()
    expect(page.locator("#tab-runs")).to_contain_text("from the cloud")
