"""The page for those who do not see it well, have no mouse or a small screen: on every tab, light
and dark, axe-core finds nothing, each text can be read, and no screen is scrolled sideways."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

import pytest
from playwright.sync_api import Browser, Page

from core.jobs.job import Job
from core.workspace import Workspace
from tests.e2e.serving import Served
from tests.waiting import until
from tests.webui.every_place import open_folds, places, show, stocked_workspace

pytestmark = pytest.mark.e2e
AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
NARROW, WIDE = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
BETWEEN = {"width": 1920, "height": 1080}, {"width": 768, "height": 1024}
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


def resize(page: Page, size: dict[str, int], place: str) -> None:
    """All of the page has room, once its charts are drawn anew."""
    page.set_viewport_size(size)
    width = "() => document.documentElement.scrollWidth"
    until(
        lambda: page.evaluate(width) <= size["width"],
        lambda: f"{place} is {page.evaluate(width)} pixels wide",
    )


def violations(page: Page, place: str) -> list[str]:
    return [f"{place}: {one}" for one in page.evaluate(FOUND)]


def unreadable(page: Page, place: str) -> list[str]:
    return [f"{place}: {text}" for text in page.evaluate(CONTRAST)]


def test_every_place_is_for_everybody(
    served: Served, stocked: tuple[Workspace, Job], page: Page
) -> None:
    """In one walk: to bring each place onto the screen takes longer than to look at it. As one is
    left, dark or light, the next is met; what is dark changes nothing but colours."""
    found, seen = [], set()
    for place in places():
        show(page, served, place, stocked[1].id)
        if place == "rows":
            still = "* { transition: none !important; animation: none !important; }"
            page.add_style_tag(content=still)
            page.evaluate(AXE)
        open_folds(page)
        found += violations(page, place)
        for size in BETWEEN:
            resize(page, size, place)
        for size in (NARROW, WIDE):
            resize(page, size, place)
            dark = page.evaluate("() => document.body.classList.contains('dark')")
            seen.add((place, dark))
            found += unreadable(page, f"{place}, {'dark' if dark else 'light'}")
            if size is NARROW:
                page.locator("[data-theme-toggle]").click()
    assert len(seen) == 2 * len(places())
    assert not found, "\n".join(found)
    page.add_style_tag(content=".mark span { color: var(--page) !important; }")
    assert unreadable(page, "here"), "the check itself finds nothing"


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


# Texts with less contrast than 4.5:1 (3:1 from 24 px, or bold from 18.7 px), as a person sees them.
CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const over = (top, under) => {
    const a = top[3] === undefined ? 1 : top[3];
    return [0, 1, 2].map(i => top[i] * a + under[i] * (1 - a));
  };
  const behind = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length && colour[3] !== 0) layers.push(colour);
      if (colour.length === 3 || colour[3] === 1) break;
    }
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
  };
  const light = ([r, g, b]) => {
    const f = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b);
  };
  const bad = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement;
    if (!node.textContent.trim() || !element.checkVisibility({opacityProperty: true,
        visibilityProperty: true}) || !element.getClientRects().length) continue;
    if (element.closest('script, style, svg, [disabled], [aria-hidden="true"], .js-plotly-plot'))
      continue;
    const style = getComputedStyle(element), size = parseFloat(style.fontSize);
    const under = behind(element), ink = over(parse(style.color), under);
    const [high, low] = [light(ink), light(under)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    const large = size >= 24 || size >= 18.66 && Number(style.fontWeight) >= 700;
    if (ratio < (large ? 3 : 4.5))
      bad.add(`${node.textContent.trim().slice(0, 40)} (${ratio.toFixed(2)})`);
  }
  return [...bad];
}"""
