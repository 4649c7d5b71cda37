"""Other runs' adapters in an export, in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from core.export.reports import list_exports
from core.jobs.job import Job
from core.jobs.store import Store
from core.rules import parse_config
from core.workspace import Workspace
from tests.e2e.serving import Served
from tests.tiny_model import tiny_adapter, tiny_model, tiny_tokenizer, tiny_world
from tests.webui.made_runs import make_run

pytestmark = pytest.mark.e2e


def made(root: Path) -> dict[str, Job]:
    """Three runs on the model `tiny`, of which one has another rank, and one on another base."""
    world = tiny_world(root)
    store = Store.open(world.workspace)
    jobs = {}
    for seed, name in enumerate(("first", "second", "wide", "elsewhere")):
        job = jobs[name] = make_run(world.workspace, store, steps=2, name=name)
        base = "another" if name == "elsewhere" else "tiny"
        settings = {"model.model_name_or_path": base, "data.dataset": world.dataset.id}
        folder = world.workspace.run(job.id)
        parse_config(settings).save(folder.config)
        model = tiny_adapter(tiny_model(), seed=seed, size=0.1, r=8 if name == "wide" else 4)
        model.save_pretrained(folder.adapter)
        tiny_tokenizer().save_pretrained(folder.adapter)
    store.close()
    return jobs


def test_other_runs_are_taken_in_by_weight(
    page: Page, serve: Callable[..., Served], workspace: Path
) -> None:
    jobs = made(workspace)
    served = serve(workspace, "--port", "7974")
    page.goto(f"{served.address}/?tab=export&run={jobs['first'].id}")
    fold = page.locator("#combine")
    fold.get_by_role("button", name="Combine with other runs").click()
    rows = fold.locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.locator("td:first-child")).to_have_text(["wide", "second"])
    density = fold.get_by_label("Share that is kept")
    expect(density).to_be_hidden()
    fold.get_by_label("Way of combining").select_option(label="ties")
    expect(density).to_be_visible()
    fold.get_by_label("Weight of wide").fill("0.25")
    page.locator("#export-start").click()
    expect(page.locator("#export-said")).to_contain_text("ties needs adapters of one rank")

    fold.get_by_label("Weight of wide").fill("")
    fold.get_by_label("Weight of second").fill("0.25")
    density.fill("1.5")
    page.locator("#export-start").click()
    expect(fold.locator(".field.is-wrong")).to_contain_text("up to 1")
    expect(page.locator("#export-said")).to_have_text("")
    # An edit of another setting, whose answer may come later, does not take it away.
    fold.get_by_label("Way of combining").select_option(label="svd")
    expect(density).to_be_hidden()
    fold.get_by_label("Way of combining").select_option(label="ties")
    expect(density).to_be_visible()
    expect(fold.locator(".field.is-wrong")).to_contain_text("up to 1")

    density.fill("0.8")
    page.locator("#export-start").click()
    card = page.locator("#export-list .export")
    second = jobs["second"].id
    expect(card).to_contain_text(f"Its adapter (1) combined by ties with: {second}")
    expect(card).to_contain_text("Combines the adapters")
    expect(fold.locator(".field.is-wrong")).to_have_count(0)
    expect(density).to_be_visible()
    run = Workspace.open(workspace).run(jobs["first"].id)
    combination = list_exports(run.root)[0].combination
    assert combination is not None and combination.way.density == 0.8
    assert [(one.run, one.weight) for one in combination.others] == [(second, 0.25)]
