"""A server of a run in Chat, in a real browser: started, asked, and stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from openai import OpenAI
from playwright.sync_api import Page, expect

from tests.e2e.serving import Served
from tests.serve.conftest import taught_world

pytestmark = pytest.mark.e2e


def test_a_run_is_served_to_programs_from_the_page(
    page: Page, serve: Callable[..., Served], workspace: Path
) -> None:
    taught_world(workspace)
    served = serve(workspace, "--port", "7976")
    page.goto(f"{served.address}/?tab=chat&run=taught")
    fold = page.locator("#serve").get_by_role("button", name="Serve to your own programs")
    fold.click()
    page.get_by_label("Port", exact=True).fill("70000")
    page.locator("#serve-start").click()
    expect(page.locator("#serve .field.is-wrong")).to_contain_text("from 0 to 65535")
    page.get_by_label("Port", exact=True).fill("0")
    page.locator("#serve").get_by_text("q8_0", exact=True).click()
    page.locator("#serve-start").click()
    facts = page.locator("#serve-facts")
    expect(facts).to_contain_text("llama.cpp (q8_0)")
    expect(facts).to_contain_text("taught, taught@checkpoint-10, tiny")
    expect(page.locator("#serve-start")).to_be_disabled()
    expect(page.locator("#serve-python")).to_contain_text("from openai import OpenAI")
    expect(page.locator("#serve-shell")).to_contain_text("/v1/chat/completions")
    key = page.locator("#serve-key input")
    expect(key).to_have_attribute("type", "password")

    address = facts.locator("dd").first.inner_text()
    client = OpenAI(base_url=address, api_key=key.input_value(), max_retries=0)
    turns = [{"role": "user", "content": "a red cup"}]
    said = client.chat.completions.create(model="taught", messages=turns, temperature=0)  # type: ignore[arg-type]
    answer = said.choices[0].message.content
    assert answer and json.loads(answer) == {"colour": "red", "thing": "cup"}

    page.reload()
    expect(page.locator("#serve-status")).to_contain_text("answers at http://127.0.0.1:")
    fold.click()
    expect(facts).to_contain_text(address)
    page.locator("#serve-stop").click()
    expect(page.locator("#serve-status")).to_contain_text("The server was stopped.")
    expect(facts).to_be_hidden()
    expect(page.locator("#serve-start")).to_be_enabled()
