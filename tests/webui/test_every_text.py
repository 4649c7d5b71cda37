"""Nothing that a person reads escapes its language: every tab, part and fold of the page in a
language that is none (core.language.PSEUDO), whose every text stands between ⟦ and ⟧; and the page
in Chinese."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from core.jobs.job import Job
from core.language import PSEUDO, VARIABLE, _, speaking
from core.workspace import Workspace
from tests.e2e.serving import Served
from tests.webui.every_place import open_folds, places, show, stocked_workspace
from webui.context import TABS

pytestmark = pytest.mark.e2e
# What is nobody's language: names, units, what a person or a model wrote, what Gradio says itself
# (in the browser's language).
NO_LANGUAGE = re.compile(
    r"""
    \b(Tunesmith|English|LoRA|QLoRA|DoRA|Hugging\ Face|Hub|GPU|CPU|JSON|YAML|HTML|GGUF|OpenAI|README
    |Ollama|vLLM|TRL|PEFT|AdamW?|SmolLM2\S*|[KMGT]i?B|min|ms|ID)\b
    |[\w-]+(?:\.[\w-]+)+            # a field's path, a file
    |\b[a-z0-9]+(?:[_-][a-z0-9]+)+\b  # a name with hyphens or underscores
    |\d+(?:\.\d+)?\ ?[a-zA-Z]{1,3}\b  # 30 s, 135M
    """,
    re.VERBOSE,
)
THEIRS = ", ".join(
    "pre code samp .content .role .tokens .mono .num .hash .made-of .row-card [data-theirs] "
    "select option[data-theirs] .upload-container .wrap-inner-theirs script style noscript "
    ".head .mark [lang]:not(html) .js-plotly-plot .tick".split()
)
TEXTS = """(theirs) => {
  const seen = new Set(), shown = (one) => one.checkVisibility({ checkVisibilityCSS: true });
  const blocks = "p, li, td, th, dt, dd, summary, label, button, h1, h2, h3, h4, span, div";
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const parent = walk.currentNode.parentElement;
    if (!parent || parent.closest(theirs) || !shown(parent)) continue;
    if (walk.currentNode.textContent.trim()) seen.add(parent.closest(blocks).innerText);
  }
  for (const one of document.querySelectorAll("[title], [placeholder], [aria-label]")) {
    if (one.closest(theirs) || !shown(one)) continue;
    for (const name of ["title", "placeholder", "aria-label"]) {
      seen.add(one.getAttribute(name) || "");
    }
  }
  return [...seen];
}"""


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Job]:
    return stocked_workspace(tmp_path_factory.mktemp("stocked") / "workspace")


@pytest.fixture(scope="module")
def served(stocked: tuple[Workspace, Job]) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, PSEUDO)
        server = Served(stocked[0].root, "--port", "7970")
    yield server
    server.end()


def outside(text: str) -> str:
    """What of a text stands outside the brackets, and is somebody's language."""
    rest, depth = "", 0
    for letter in text:
        depth += (letter == "⟦") - (letter == "⟧")
        rest += letter if depth == 0 and letter != "⟧" else " "
    return " ".join(re.findall(r"[^\W\d_]{2,}", NO_LANGUAGE.sub(" ", rest)))


@pytest.mark.parametrize("place", places())
def test_no_text_escapes_its_language(
    served: Served, stocked: tuple[Workspace, Job], page: Page, place: str
) -> None:
    show(page, served, place, stocked[1].id)
    expect(page.locator("#header .head")).to_contain_text("⟦")
    open_folds(page)
    escaped = {text: out for text in page.evaluate(TEXTS, THEIRS) if (out := outside(text))}
    assert not escaped, "\n".join(f"{out!r} in {text[:200]!r}" for text, out in escaped.items())


def test_the_page_speaks_the_browsers_language_and_the_chosen_one(
    served: Served, stocked: tuple[Workspace, Job], browser: Browser, page: Page
) -> None:
    """A run stays the one that is shown, whatever language it is shown in."""
    with speaking("zh"):
        data, train = (str(_(title)) for name, title in TABS if name in ("data", "train"))
    server = Served(stocked[0].root, "--port", "7975")
    try:
        page.set_extra_http_headers({"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.5"})
        page.goto(f"{server.address}/?tab=train&run={stocked[1].id}")
        expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
        expect(page.get_by_role("tab", name=train, exact=True)).to_be_visible()
        expect(page.get_by_role("tab", name=data, exact=True)).to_be_visible()
        expect(page.locator("#run .headline")).to_contain_text("r-2")
        page.locator("[data-language=en]").click()
        expect(page.get_by_role("tab", name="Train", exact=True)).to_be_visible()
        expect(page.locator("#run .headline")).to_contain_text("r-2")
        page.reload()
        expect(page.get_by_role("tab", name="Train", exact=True)).to_be_visible()
        page.locator("[data-language=zh]").click()
        expect(page.get_by_role("tab", name=train, exact=True)).to_be_visible()
        page.goto("about:blank")
    finally:
        server.end()
