"""Every tab and every part of Data, with something to show in each."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from core.jobs.job import Job
from core.jobs.store import Store
from core.language import _
from core.workspace import Workspace
from tests.e2e.serving import Served
from tests.tiny_model import tiny_adapter, tiny_model, tiny_tokenizer
from tests.webui.made_runs import evaluated, exported, make_run
from webui.context import DATA_PARTS, TABS

STARTER = "SmolLM2-135M-Instruct"
# Drawn last in a tab or a part of Data.
DRAWN = {
    "rows": "#rows .row-card",
    "numbers": "#numbers .figures",
    "shape": "#steps",
    "drafts": "#part-drafts button",
    "manage": "#library-detail",
    "configure": "#summary .figures, #summary dl",
    "train": "#run .headline",
    "evaluate": "#evaluate-report .verdict",
    "chat": "#tab-chat button",
    "export": "#export-form",
    "runs": "#runs-table table",
}


def places() -> list[str]:
    parts = [name for name, _title in DATA_PARTS]
    return parts + [name for name, _title in TABS if name != "data"]


def stocked_workspace(root: Path) -> tuple[Workspace, Job]:
    """A workspace with a tiny model in the starter's place, a run that failed, and one with all
    that a run can have."""
    workspace = Workspace.open(root)
    tiny_model().save_pretrained(workspace.models / STARTER)
    tiny_tokenizer().save_pretrained(workspace.models / STARTER)
    store = Store.open(workspace)
    make_run(workspace, store, state="failed", name="r-1", error=_("Stopped."), steps=3)
    job = make_run(workspace, store, name="r-2")
    run = workspace.run(job.id)
    tiny_adapter(tiny_model()).save_pretrained(run.adapter)
    evaluated(run, "fields")
    exported(run)
    store.close()
    return workspace, job


def show(page: Page, served: Served, place: str, run: str) -> None:
    """Opens a tab, or a part of Data, and waits for what is drawn there last."""
    parts = dict(DATA_PARTS)
    page.goto(f"{served.address}/?tab={'data' if place in parts else place}&run={run}")
    expect(page.locator("#header .head")).to_be_visible()
    if place in parts:
        page.locator(f"#part-{place}-button").click()
    expect(page.locator(DRAWN[place]).first).to_be_visible()


def open_folds(page: Page) -> None:
    page.evaluate("() => document.querySelectorAll('details').forEach((one) => (one.open = true))")
    for fold in page.locator("button.label-wrap:not(.open)").all():
        if fold.is_visible():
            fold.click()
