"""Nothing that a person reads escapes its language: every tab, part and fold of the page in a
language that is none (core.language.PSEUDO), whose every text stands between ⟦ and ⟧."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from core.jobs.job import Job
from core.language import PSEUDO, VARIABLE
from core.workspace import Workspace
from tests.e2e.serving import Served
from tests.webui.every_place import open_folds, places, show, stocked_workspace

pytestmark = pytest.mark.e2e
# What is nobody's language: names, units, examples of a path, what Gradio says itself (in the
# browser's language).
NO_LANGUAGE = re.compile(
    r"""
    \b(Tunesmith|JSON\ Lines|Parquet|README|owner/name|SmolLM2-135M-Instruct|[KMGT]i?B)\b
    |range\ slider\ for|number\ input\ for|Reset\ to\ default\ value
    |^\s*(?:sample|en)\s*$           # the sample's id, a language's code
    |[\w-]+(?:[./][\w-]+)*\.[\w-]+    # a field's path, a file
    |\b[a-z0-9]+(?:[_-][a-z0-9]+)+\b  # a name with hyphens or underscores
    |\b(?:cpu|fp32|bf16)\b
    |\d+(?:\.\d+)?\ ?[a-zA-Z]{1,3}\b  # 30 s, 135M
    """,
    re.VERBOSE,
)
# What a person, a file or a model wrote or is called, and what Gradio says.
THEIRS = (
    "pre, code, .content, .role, .prompt, .question, .fields dt, .fields dd, "
    "#library-detail h3 small, .reply, .need p small, .mark, [lang]:not(html), .upload-container, "
    ".toast-title, .toast-close, script, style, noscript"
)
# By the block that they stand in, the texts that are seen; a choice that is called as in a config
# is a name.
TEXTS = """(theirs) => {
  const shown = (one) => one.checkVisibility({ checkVisibilityCSS: true });
  const blocks = "p, li, td, th, dt, dd, summary, label, button, h1, h2, h3, h4, div, option, text";
  const isName = (one, text) => JSON.stringify(text.trim()) === (
    one.closest("option")?.value ?? one.closest("label")?.querySelector("input")?.dataset.value);
  const texts = new Map();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.textContent, parent = walk.currentNode.parentElement;
    if (!text.trim() || parent.closest(theirs) || isName(parent, text)) continue;
    if (!shown(parent.closest("select") || parent)) continue;
    const block = parent.closest(blocks);
    texts.set(block, `${texts.get(block) || ""} ${text}`);
  }
  const found = [...texts.values()];
  for (const name of ["title", "placeholder", "aria-label", "alt", "data-title", "data-note"]) {
    for (const one of document.querySelectorAll(`[${name}]`)) {
      if (!one.closest(theirs) && shown(one)) found.push(one.getAttribute(name));
    }
  }
  return found;
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


def escaped(page: Page, place: str) -> list[str]:
    """What of the texts that are seen is in a language, each with its place."""
    texts = dict.fromkeys(page.evaluate(TEXTS, THEIRS))
    assert any("⟦" in text for text in texts), place
    return [f"{place}: {out!r} in {text[:200]!r}" for text in texts if (out := outside(text))]


def test_no_text_escapes_its_language(
    served: Served, stocked: tuple[Workspace, Job], page: Page
) -> None:
    found = []
    for place in places():
        show(page, served, place, stocked[1].id)
        open_folds(page)
        found += escaped(page, place)
    show(page, served, "configure", stocked[1].id)
    page.locator("#field-training-learning_rate-input").fill("quick")
    expect(page.locator("#field-training-learning_rate .field-error")).to_contain_text("⟦")
    expect(page.locator("#summary .notice-failed")).to_contain_text("⟦")
    found += escaped(page, "a wrong setting")
    assert not found, "\n".join(found)


def test_the_gate_speaks_the_language(served: Served, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(f"{served.address}/?token=wrong")
    assert not escaped(page, "the gate")
    page.close()


def test_a_text_that_escapes_is_found(served: Served, browser: Browser) -> None:
    page = browser.new_page()
    page.set_content("⟦Öné⟧<p>⟦Twõ⟧ <b>rows</b> ⟦öf⟧ <code>theirs</code></p><i title='Help'></i>")
    assert [one.split("'")[1] for one in escaped(page, "here")] == ["rows", "Help"]
    page.close()
