"""What an open page costs on which nothing happens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.serving import Served


@pytest.mark.e2e
def test_an_idle_page_draws_nothing_and_asks_only_whether_there_is_news(
    page: Page, serve: Callable[..., Served], workspace: Path
) -> None:
    page.add_init_script(
        "window.frames_asked = 0; const frame = window.requestAnimationFrame.bind(window);"
        "window.requestAnimationFrame = (call) => { window.frames_asked += 1; return frame(call); }"
    )
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    served = serve(workspace, "--port", "7964")
    page.goto(served.address)
    expect(page.locator("#rows .row-card").first).to_be_visible()
    # The page comes to rest: of some seconds one in which nothing but this is asked.
    for _second in range(60):
        asked.clear()
        before = page.evaluate("window.frames_asked")
        for _time in range(3):
            page.wait_for_event("requestfinished", lambda one: one.url.endswith("/alive"))
        frames = page.evaluate("window.frames_asked") - before
        if frames == 0 and set(asked) == {"alive"}:
            return
    raise AssertionError(f"{frames} frames, and {asked}")
