"""Export in a real browser: a tuned model becomes a GGUF that llama.cpp opens and answers from."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from core.jobs.job import Job
from core.jobs.store import Store
from core.rules import parse_config
from core.worker.export.llama_cpp import LlamaCpp
from core.workspace import RunFolder
from tests.e2e.serving import Served
from tests.tiny_model import (
    answer,
    colour_rows,
    teach,
    tiny_adapter,
    tiny_model,
    tiny_tokenizer,
    tiny_world,
)
from tests.webui.made_runs import make_run

pytestmark = pytest.mark.e2e


def taught_run(root: Path) -> Job:
    """A run in a workspace that has learned the colours."""
    world = tiny_world(root, eval_rows=colour_rows()[::2])
    store = Store.open(world.workspace)
    job = make_run(world.workspace, store, steps=2, name="colours")
    store.close()
    run: RunFolder = world.workspace.run(job.id)
    settings = {"model.model_name_or_path": "tiny", "data.dataset": world.dataset.id}
    parse_config(settings).save(run.config)
    model = tiny_adapter(tiny_model())
    teach(model, tiny_tokenizer(), colour_rows(), 80)
    model.save_pretrained(run.adapter)
    tiny_tokenizer().save_pretrained(run.adapter)
    return job


def test_a_model_is_taken_away_as_gguf(
    page: Page, serve: Callable[..., Served], workspace: Path, tmp_path: Path
) -> None:
    job = taught_run(workspace)
    served = serve(workspace, "--port", "7976")
    page.goto(f"{served.address}/?tab=export&run={job.id}")
    forms = page.locator("#export-format label")
    expect(forms).to_have_count(8)
    expect(page.locator("#export-quantization")).to_be_hidden()
    expect(page.locator("#export-dtype")).to_be_visible()
    forms.get_by_text("GGUF", exact=True).click()
    sizes = page.locator("#export-quantization")
    expect(sizes.locator("label.selected")).to_have_text(["q8_0 (8.5 bits)"])
    expect(page.locator("#export-dtype")).to_be_hidden()
    sizes.get_by_text("Q4_K_M").click()
    page.locator("#export-start").click()
    card = page.locator("#export-list .export")
    expect(card.locator("tbody th")).to_have_text(["q8_0", "Q4_K_M", "Trained model", "Its base"])
    expect(card.locator("tbody tr").first.locator("td")).to_have_count(4)
    card.locator("summary").click()
    expect(card.locator(".checks")).to_contain_text("Stops at the end of its answer")
    with page.expect_download() as coming:
        card.get_by_role("link", name="Download zip").click()
    coming.value.save_as(tmp_path / "sent.zip")
    with zipfile.ZipFile(tmp_path / "sent.zip") as sent:
        assert sent.testzip() is None
        sent.extractall(tmp_path / "got")
    file = next((tmp_path / "got").glob("*/*-q8_0.gguf"))
    model = LlamaCpp(file, None, lambda: None)
    try:
        said = model.chat([{"role": "user", "content": "a blue hat"}])
    finally:
        model.close()
    assert said == answer("blue", "hat")
