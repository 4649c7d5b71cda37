"""Export in a real browser: a tuned model becomes a GGUF that llama.cpp opens and answers from."""

from __future__ import annotations

import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from core.export.reports import Export, Measured
from core.jobs.job import Job
from core.jobs.store import Store
from core.rules import parse_config
from core.worker.llama_cpp.client import LlamaCpp
from core.workspace import RunFolder
from tests.e2e.serving import Served
from tests.hub.stand_in import WRITES, Hub
from tests.tiny_model import (
    answer,
    colour_rows,
    teach,
    tiny_adapter,
    tiny_model,
    tiny_tokenizer,
    tiny_world,
)
from tests.warm_python import with_commands
from tests.webui.made_runs import make_run
from tests.webui.test_push import log_in, repository
from webui.export import _card

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


def test_a_model_is_taken_away_as_gguf_and_by_the_hub(
    hub: Hub,
    page: Page,
    serve: Callable[..., Served],
    workspace: Path,
    tmp_path: Path,
) -> None:
    job = taught_run(workspace)
    served = serve(workspace, "--port", "7976")
    page.goto(f"{served.address}/?tab=export&run={job.id}")
    forms = page.locator("#export-format label")
    expect(forms).to_have_count(9)
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
    expect(card.locator("thead th").last).to_have_text("Fields right")
    expect(card.locator("tbody tr").first.locator("td").last).to_have_text("100.0 %")
    card.locator("summary").click()
    expect(card.locator(".checks")).to_contain_text("Stops at the end of its answer")
    with page.expect_download() as coming:
        card.get_by_role("link", name="Download zip").click()
    coming.value.save_as(tmp_path / "sent.zip")
    with zipfile.ZipFile(tmp_path / "sent.zip") as sent:
        assert sent.testzip() is None
        names = {Path(name).name for name in sent.namelist()}
    page.locator("#push").get_by_role("button", name="Hugging Face Hub").click()
    log_in(page, WRITES)
    expect(page.locator("#push-who")).to_contain_text("read and write")
    repository(page, "ada/colours")
    page.locator("#push-start").click()
    expect(page.locator("#push-there a")).to_have_text("ada/colours")
    folder = downloaded("ada/colours", hub)
    assert {path.name for path in folder.iterdir()} >= names
    model = LlamaCpp(next(folder.glob("*-q8_0.gguf")), None, lambda: None)
    try:
        said = model.chat([{"role": "user", "content": "a blue hat"}])
    finally:
        model.close()
    assert said == answer("blue", "hat")


def downloaded(repo: str, hub: Hub) -> Path:
    """The repository as plain huggingface_hub brings it, in a process that is not offline."""
    code = "import sys, huggingface_hub as h; print(h.snapshot_download(sys.argv[1]))"
    settings = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_TOKEN": WRITES}
    command = [with_commands(), "-c", code, repo]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


def test_an_export_of_an_unknown_format_is_listed(tmp_path: Path) -> None:
    """One that another version made would hide all others of the run."""
    item = Export("e1", tmp_path, "finished", "gone", "last", 0.0, parts=(Measured("", "bf16"),))
    assert "gone" in _card(item)
