"""The page for those who do not see it, or have no mouse: axe-core finds nothing on any tab, light
and dark."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

import pytest
from playwright.sync_api import Browser, Page

from core.jobs.job import Job
from core.workspace import Workspace
from tests.e2e.serving import Served
from tests.webui.every_place import open_folds, places, show, stocked_workspace

pytestmark = pytest.mark.e2e
AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
FOUND = """async () => {
  const found = await axe.run(document, { resultTypes: ["violations"] });
  return found.violations.flatMap((one) => one.nodes.map((node) =>
    `${one.id} (${one.help}): ${node.target.join(" ")}: ${node.html.slice(0, 160)}`));
}"""


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Job]:
    return stocked_workspace(tmp_path_factory.mktemp("stocked") / "workspace")


@pytest.fixture(scope="module")
def served(stocked: tuple[Workspace, Job]) -> Iterator[Served]:
    server = Served(stocked[0].root, "--port", "7990")
    yield server
    server.end()


def violations(page: Page, place: str) -> list[str]:
    return [f"{place}: {one}" for one in page.evaluate(FOUND)]


def test_axe_finds_nothing(served: Served, stocked: tuple[Workspace, Job], page: Page) -> None:
    found = []
    for place in places():
        show(page, served, place, stocked[1].id)
        if place == "rows":
            still = "* { transition: none !important; animation: none !important; }"
            page.add_style_tag(content=still)
            page.evaluate(AXE)
        open_folds(page)
        for _scheme in ("light", "dark"):
            dark = page.evaluate("() => document.body.classList.contains('dark')")
            found += violations(page, f"{place}, {'dark' if dark else 'light'}")
            page.locator("[data-theme-toggle]").click()
    assert not found, "\n".join(found)


def test_axe_finds_nothing_at_the_gate(served: Served, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(served.address)
    page.evaluate(AXE)
    assert violations(page, "the gate") == []
    page.close()


def test_axe_finds_what_is_wrong(browser: Browser) -> None:
    page = browser.new_page()
    page.set_content("<img src='data:,'><button></button>")
    page.evaluate(AXE)
    found = "\n".join(violations(page, "here"))
    assert "image-alt" in found and "button-name" in found and "html-has-lang" in found
    page.close()
