"""Finding a base model on the Hub, in a real browser and with a stand-in for the Hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.serving import Served
from tests.hub.stand_in import Hub
from tests.hub.test_search import MODEL, USABLE

pytestmark = pytest.mark.e2e


def look_for(page: Page, words: str) -> None:
    page.locator("#find-model-words input, #find-model-words textarea").first.fill(words)
    page.locator("#find-model-words").get_by_role("button", name="Search").click()


def test_a_model_is_found_and_taken(
    hub: Hub, page: Page, serve: Callable[..., Served], workspace: Path
) -> None:
    hub.holds("lab/tiny-chat", MODEL, **USABLE, downloads=1234)
    hub.holds("ada/tiny-<b>closed", MODEL, **USABLE, gated="manual")
    served = serve(workspace, "--port", "7977")
    page.goto(f"{served.address}/?tab=configure")
    model = page.locator("#field-model-model_name_or_path input")
    expect(model).to_have_value("SmolLM2-135M-Instruct")
    page.locator("#find-model").get_by_role("button", name="Find a model on the Hub").click()
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

    look_for(page, "nothing of that name")
    expect(page.locator("#found-models")).to_contain_text("No model that can be trained here")
    hub.fails("/api/models", status=429, headers={"Retry-After": "9"})
    look_for(page, "tiny")
    expect(page.locator("#found-models")).to_contain_text("Try again in 9 s.")
    expect(model).to_have_value("lab/tiny-chat")
