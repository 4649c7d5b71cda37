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
from tests.waiting import until
from tests.webui.made_runs import evaluated, exported, make_run
from webui.context import DATA_PARTS, TABS

STARTER = "SmolLM2-135M-Instruct"
# Drawn last in a tab or a part of Data.
DRAWN = {
    "rows": "#rows .row-card",
    "numbers": "#part-numbers .charts .main-svg",
    "shape": "#step-chooser button, #steps .empty",
    "drafts": "#part-drafts .empty",
    "manage": "#library-detail h3",
    "configure": "#summary .need-bar",
    "train": "#curves .large .legendtext",
    "evaluate": "#evaluate-report .verdict",
    "chat": "#chat-memory .soft",
    "export": "#push .label-wrap",
    "runs": "#runs-chart .legendtext",
}


def places() -> list[str]:
    """Last those that a worker has to count for: the first one comes when torch is imported."""
    parts = [name for name, _title in DATA_PARTS]
    tabs = [name for name, _title in TABS if name != "data"]
    return sorted(parts + tabs, key=lambda name: name in ("numbers", "configure"))


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
    part = place in dict(DATA_PARTS)
    if not page.url.startswith(served.address):
        page.goto(f"{served.address}/?run={run}")
    page.locator(f"#tab-{'data' if part else place}-button").click()
    if part:
        page.locator(f"#part-{place}-button").click()
    if place == "runs":
        page.locator(f'#runs-table [data-tick="{run}"]').check()
    expect(page.locator(DRAWN[place]).locator("visible=true").first).to_be_visible()


def open_folds(page: Page) -> None:
    """Until all are: what is drawn anew a moment after the rest is closed again."""
    until(lambda: page.evaluate(_OPEN) == 0)


# Opens them and gives how many are closed when the page has been drawn again.
_OPEN = """async () => {
  const closed = () => [...document.querySelectorAll("button.label-wrap:not(.open)")]
    .filter((fold) => fold.checkVisibility());
  const frame = () => new Promise((drawn) => requestAnimationFrame(drawn));
  for (const one of document.querySelectorAll("details")) one.open = true;
  for (const fold of closed()) fold.click();
  for (let n = 0; n < 3; n++) await frame();
  return closed().length;
}"""
