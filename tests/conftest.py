"""Fixtures that every test file may use."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.e2e.serving import Served

# No test reaches the Hub: what is missing must fail at once, not after a timeout.
os.environ["HF_HUB_OFFLINE"] = "1"
# Tokenizers warn at every fork otherwise.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
CHROMIUM = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update "
    "--disable-sync --no-first-run"
).split()
NAVIGATION_SECONDS = 240
# Tells the test of every error that Gradio shows: they go away by themselves, and nobody would see
# that a handler has failed.
_TELL_ERRORS = """
new MutationObserver((changes) => {
  for (const change of changes) for (const node of change.addedNodes) {
    const shown = node.querySelector?.(".toast-body.error");
    // Whoever leaves a page cuts its connection off.
    if (shown && !shown.innerText.includes("Connection to the server was lost"))
      tellError(shown.innerText);
  }
}).observe(document, {childList: true, subtree: true});
"""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """A process a core, as many as fit: one and what it starts (a server, a browser, a worker with
    torch) hold up to 3 GB."""
    cores = len(psutil.Process().cpu_affinity()) if psutil.LINUX else psutil.cpu_count() or 1
    return max(1, min(cores, psutil.virtual_memory().total // 3_000_000_000))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with many long tests first: at the end every core has something short to do."""
    long = Counter(item.path for item in items if any(item.iter_markers("slow")))
    items.sort(key=lambda item: -long[item.path])


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """An empty workspace folder of this test's own."""
    root = tmp_path / "workspace"
    root.mkdir()
    return root


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    assert path, "Chromium is missing: apt-get install chromium"
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=CHROMIUM)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that notes what it asks for elsewhere (`page.foreign`) and script errors. No handler
    may fail while it is used."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    # The runner may be far slower than a laptop, and training beside it; a wait ends when it can.
    context.set_default_navigation_timeout(NAVIGATION_SECONDS * 1000)
    page = context.new_page()
    shown: list[str] = []
    page.expose_function("tellError", lambda text: shown.append(text))
    page.add_init_script(_TELL_ERRORS)
    page.foreign = []  # type: ignore[attr-defined]
    page.errors = []  # type: ignore[attr-defined]
    page.on(
        "request",
        lambda request: None
        if re.match(r"(http|ws)://127\.0\.0\.1|data:|blob:", request.url)
        else page.foreign.append(request.url),  # type: ignore[attr-defined]
    )
    page.on("pageerror", lambda error: page.errors.append(str(error)))  # type: ignore[attr-defined]
    yield page
    context.close()
    assert shown == []


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(workspace: Path, *arguments: str) -> Served:
        started.append(Served(workspace, *arguments))
        return started[-1]

    yield start
    for served in started:
        served.end()
