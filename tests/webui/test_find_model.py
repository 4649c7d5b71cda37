"""Finding a base model on the Hub and ModelScope, in a real browser and with stand-ins for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest
from playwright.sync_api import Page, expect

from core.config import RunConfig
from core.setup.extras import EXTRAS
from tests.e2e.serving import Served
from tests.hub.modelscope_stand_in import CHAT, Scope, serving
from tests.hub.stand_in import Hub
from tests.hub.test_search import MODEL, USABLE
from tests.webui.fakes import fake_app
from webui.configure.find_model import MODELSCOPE, ModelFinder
from webui.forms import Form


@pytest.fixture
def scope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scope]:
    with serving(tmp_path / "modelscope", monkeypatch) as scope:
        yield scope


def look_for(page: Page, words: str) -> None:
    page.locator("#find-model-words input, #find-model-words textarea").first.fill(words)
    page.locator("#find-model-words").get_by_role("button", name="Search").click()


@pytest.mark.e2e
def test_a_model_is_found_and_taken(
    hub: Hub, scope: Scope, page: Page, serve: Callable[..., Served], workspace: Path
) -> None:
    hub.holds("lab/tiny-chat", MODEL, **USABLE, downloads=1234)
    hub.holds("ada/tiny-<b>closed", MODEL, **USABLE, gated="manual")
    served = serve(workspace, "--port", "7977")
    page.goto(f"{served.address}/?tab=configure")
    model = page.locator("#field-model-model_name_or_path input")
    expect(model).to_have_value("SmolLM2-135M-Instruct")
    page.locator("#find-model").get_by_role("button", name="Find a model").click()
    assert not [one for one in hub.asked if "tiny" in one or one == "GET /api/models"]

    look_for(page, "tiny")
    rows = page.locator("#found-models tbody tr")
    expect(rows).to_have_count(2)
    for told in ("lab/tiny-chat", "4.9 KiB", "3.0 k parameters", "apache-2.0", "1,234"):
        expect(rows.nth(0)).to_contain_text(told)
    expect(rows.nth(0).get_by_text("Ask for access")).to_have_count(0)
    expect(rows.nth(1)).to_contain_text("ada/tiny-<b>closed")
    link = rows.nth(1).get_by_text("Ask for access")
    assert link.get_attribute("href") == f"{hub.endpoint}/ada/tiny-<b>closed"

    rows.nth(0).get_by_role("button", name="Use lab/tiny-chat").click()
    expect(model).to_have_value("lab/tiny-chat")
    expect(page.locator("#summary")).to_contain_text("lab/tiny-chat")

    scope.holds("Qwen/tiny-scope", {}, **CHAT, downloads=56, gated=True)
    page.locator("#find-model-place").get_by_text("ModelScope").click()
    expect(rows).to_have_count(0)
    expect(page.locator("#find-model-extras")).to_be_hidden()
    look_for(page, "tiny")
    for told in ("modelscope:Qwen/tiny-scope", "988 B", "494 parameters", "apache-2.0", "56"):
        expect(rows).to_contain_text(told)
    link = rows.get_by_text("Ask for access")
    assert link.get_attribute("href") == f"{scope.endpoint}/models/Qwen/tiny-scope"
    rows.get_by_role("button", name="Use modelscope:Qwen/tiny-scope").click()
    expect(model).to_have_value("modelscope:Qwen/tiny-scope")
    expect(page.locator("#summary")).to_contain_text("modelscope:Qwen/tiny-scope")
    scope.fails("/openapi/", status=503)
    look_for(page, "tiny")
    expect(page.locator("#found-models")).to_contain_text("ModelScope gives no answer")

    page.locator("#find-model-place").get_by_text("Hugging Face Hub").click()
    look_for(page, "nothing of that name")
    expect(page.locator("#found-models")).to_contain_text("No model that can be trained here")
    hub.fails("/api/models", status=429, headers={"Retry-After": "9"})
    look_for(page, "tiny")
    expect(page.locator("#found-models")).to_contain_text("Try again in 9 s.")
    expect(model).to_have_value("modelscope:Qwen/tiny-scope")


def test_the_package_of_modelscope_is_offered(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = replace(EXTRAS["modelscope"], import_name="modelscope_not_here")
    monkeypatch.setitem(EXTRAS, "modelscope", absent)
    with gr.Blocks():
        finder = ModelFinder(fake_app(workspace), Form("run", RunConfig().values()))
    shown = finder.choose(MODELSCOPE)
    assert shown[finder.extras.box].visible
    assert shown[finder.extras.button].value == "Install modelscope-hub"
    assert "is not installed" in finder.search("tiny", MODELSCOPE)
