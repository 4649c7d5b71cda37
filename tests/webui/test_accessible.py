"""The page for those who do not see it, or have no mouse: axe-core finds nothing on any tab, light
and dark."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

import pytest
from playwright.sync_api import Page, expect

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


@pytest.mark.parametrize("place", places())
def test_axe_finds_nothing(
    served: Served, stocked: tuple[Workspace, Job], page: Page, place: str
) -> None:
    show(page, served, place, stocked[1].id)
    open_folds(page)
    page.add_style_tag(content="* { transition: none !important; animation: none !important; }")
    page.evaluate(AXE)
    for _scheme in ("light", "dark"):
        assert page.evaluate(FOUND) == [], page.evaluate("() => document.body.className")
        page.locator("[data-theme-toggle]").click()


def test_axe_finds_what_is_wrong(
    served: Served, page: Page, stocked: tuple[Workspace, Job]
) -> None:
    show(page, served, "rows", stocked[1].id)
    page.evaluate(
        "() => document.body.insertAdjacentHTML('beforeend', '<img src=x><button></button>')"
    )
    page.evaluate(AXE)
    found = page.evaluate(FOUND)
    assert any("image-alt" in one for one in found) and any("button-name" in one for one in found)
    expect(page.locator("html")).to_have_attribute("lang", "en")
