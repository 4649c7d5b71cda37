"""Evaluate and Export in a real browser: what a run has is shown, also what was written before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from core.jobs.job import Job
from core.jobs.store import Store
from core.rules import parse_config
from core.workspace import Workspace
from tests.e2e.serving import Served
from tests.tiny_model import tiny_adapter, tiny_model
from tests.webui.made_runs import evaluated, exported, make_run

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, dict[str, Job]]:
    """A run with LoRA and one of virtual tokens, measured and exported long ago."""
    workspace = Workspace.open(tmp_path_factory.mktemp("results") / "workspace")
    store = Store.open(workspace)
    made = {}
    for method, report in (("lora", "fields"), ("prompt_tuning", "answers")):
        job = made[method] = make_run(workspace, store, steps=2, name=method)
        run = workspace.run(job.id)
        parse_config({"adapter.method": method}).save(run.config)
        tiny_adapter(tiny_model()).save_pretrained(run.adapter)
        evaluated(run, report)
        exported(run)
    store.close()
    return workspace, made


@pytest.fixture(scope="module")
def served(runs: tuple[Workspace, dict[str, Job]]) -> Iterator[Served]:
    server = Served(runs[0].root, "--port", "7964")
    yield server
    server.end()


def open_tab(page: Page, served: Served, job: Job, tab: str) -> None:
    page.goto(f"{served.address}/?tab={tab}&run={job.id}")
    expect(page.locator(f"#{tab}-form")).to_be_visible()


def test_a_report_written_before_is_shown(
    page: Page, served: Served, runs: tuple[Workspace, dict[str, Job]]
) -> None:
    """Evaluations made with an earlier version would be gone from the page."""
    open_tab(page, served, runs[1]["lora"], "evaluate")
    shown = page.locator("#evaluate-report")
    expect(shown.locator(".verdict")).to_contain_text("gets 100 % (61 to 100 %) of fields right")
    expect(shown.locator("table.numbers")).to_contain_text("Field colour")
    assert shown.locator(".compared").count() == 2
    expect(page.locator("#evaluate-base")).to_be_visible()


def test_what_a_run_has_can_be_taken_away(
    page: Page, served: Served, runs: tuple[Workspace, dict[str, Job]]
) -> None:
    """A form would be offered that the run cannot have, or none explained."""
    open_tab(page, served, runs[1]["lora"], "export")
    forms = page.locator("#export-format label")
    expect(forms).to_have_text(
        [
            "Merged model",
            "Adapter",
            "GGUF",
            "GGUF adapter",
            "Ollama",
            "vLLM, SGLang",
            "bitsandbytes",
            "torchao",
            "Python script",
        ]
    )
    expect(page.locator("#export-form")).to_contain_text("works wherever transformers works")
    page.locator("#export-format").get_by_text("Adapter", exact=True).click()
    expect(page.locator("#export-form")).to_contain_text("loaded onto the base with PEFT")
    card = page.locator("#export-list .export")
    expect(card.locator("h4")).to_have_text("Merged model")
    expect(card.locator(".badge-finished")).to_have_count(1)
    left = next(iter(runs[0].run(runs[1]["prompt_tuning"].id).exports.iterdir())) / ".unfinished"
    left.mkdir()
    (left / "model.safetensors").write_bytes(bytes(3072))
    (left.parent / "job.json").write_text('{"state": "stopped"}')
    expect(page.locator("#export-left")).to_be_hidden()
    open_tab(page, served, runs[1]["prompt_tuning"], "export")
    expect(forms).to_have_text(["Adapter"])
    page.get_by_role("button", name="Delete unfinished exports (3.0 KiB)").click()
    expect(page.locator("#export-left")).to_be_hidden()
    assert not left.exists()
