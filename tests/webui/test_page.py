"""The page in a real browser over the real server: light, private, readable and steady."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import psutil
import pytest
from playwright.sync_api import Page, Route, expect

from core.data.prepare import import_dataset
from core.jobs.job import Job
from core.jobs.store import Store
from core.language import _, speaking
from core.workspace import Workspace
from tests.e2e.serving import Served
from tests.tiny_model import tiny_model, tiny_tokenizer
from tests.waiting import until
from tests.webui.made_runs import HOSTILE, make_run
from webui.context import TABS

pytestmark = pytest.mark.e2e
MOST_RESIDENT = 450 * 2**20
RATE = "training-learning_rate"
STARTER = "SmolLM2-135M-Instruct"
DRAWN = {
    "data": "Rows 1 to 3 of 240",
    "configure": "90 in 3 epochs",
    "train": "answer at step 80",
    "evaluate": "Nothing to evaluate yet",
    "chat": "No model is in memory",
    "export": "Nothing to export yet",
    "runs": "a finished run",
}


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Job]:
    """A workspace with a tiny model in the starter's place and runs that ended."""
    workspace = Workspace.open(tmp_path_factory.mktemp("stocked") / "workspace")
    folder = workspace.models / STARTER
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    store = Store.open(workspace)
    make_run(workspace, store, state="failed", name=HOSTILE, error=HOSTILE, advice=HOSTILE)
    job = make_run(workspace, store, state="finished", name="a finished run")
    store.close()
    return workspace, job


@pytest.fixture(scope="module")
def served(stocked: tuple[Workspace, Job]) -> Iterator[Served]:
    server = Served(stocked[0].root, "--port", "7960")
    yield server
    server.end()


def open_tab(page: Page, name: str) -> None:
    page.locator(f"#tab-{name}-button").click()
    expect(page.locator(f"#tab-{name}")).to_be_visible()


def open_drawn(page: Page, name: str) -> None:
    """Opens a tab and waits for what is drawn there last."""
    open_tab(page, name)
    expect(page.locator(f"#tab-{name}")).to_contain_text(DRAWN[name])


def visit(page: Page, served: Served, query: str = "") -> None:
    page.goto(f"{served.address}/{query}")
    expect(page.locator("#header .head")).to_be_visible()


def test_the_address_shows_the_same_run_again(
    served: Served, page: Page, stocked: tuple[Workspace, Job]
) -> None:
    run = stocked[1].id
    visit(page, served, f"?tab=train&run={run}")
    expect(page.locator("#run .headline")).to_contain_text("a finished run")
    until(lambda: drawn(page) == 90)
    open_tab(page, "runs")
    expect(page).to_have_url(re.compile(f"tab=runs&run={run}"))
    page.reload()
    expect(page.locator("#tab-runs")).to_be_visible()


def test_rows_are_drawn_before_the_page_has_asked_for_any(served: Served, page: Page) -> None:
    """They stay when the first answers come, for which a click waits."""
    visit(page, served)
    expect(page.locator("#tab-data")).to_contain_text(DRAWN["data"])
    asked: list[Route] = []
    answered = Event()

    def hold(route: Route) -> None:
        route.continue_() if answered.is_set() else asked.append(route)

    page.route("**/queue/join*", hold)
    visit(page, served)
    expect(page.locator("#rows .row-card")).to_have_count(3)
    expect(page.locator("#tab-data")).to_contain_text(DRAWN["data"])
    expect(page.locator("#tab-data .strip").first).to_contain_text("240")
    expect(page.locator(".welcome")).to_be_hidden()  # there are runs
    until(lambda: asked)
    expect(page.locator("#rows-after")).to_have_css("pointer-events", "none")
    answered.set()
    for route in asked:
        route.continue_()
    page.locator("#rows-after").click()
    expect(page.locator("html")).not_to_have_attribute("data-begun", "")
    expect(page.locator("#rows-where")).to_contain_text("Rows 4 to 6 of 240")


def test_what_is_opened_asks_once(
    served: Served, page: Page, stocked: tuple[Workspace, Job]
) -> None:
    """A second answer would undo what was done since the first."""
    page.add_init_script("""
      window.told = [];
      addEventListener("DOMContentLoaded", () => {
        const hears = tunesmith.hears;
        tunesmith.hears = (name, trigger) => hears(name, (event) => {
          if (event === "select") window.told.push(name);
          trigger(event);
        });
      });
    """)
    shown = {"data": ["data", "rows"], "train": ["train"], "runs": ["runs"]}
    for name, told in shown.items():
        page.goto(f"{served.address}/?tab={name}&run={stocked[1].id}")
        expect(page.locator(f"#tab-{name}")).to_contain_text(DRAWN[name])
        until(lambda name=name: page.evaluate("tunesmith.ticking()") == name)
        assert page.evaluate("window.told") == told


def test_no_other_tab_is_seen_before_the_one_that_the_address_names(
    served: Served, page: Page
) -> None:
    page.add_init_script("""
      window.seen = new Set();
      const look = () => {
        for (const one of document.querySelectorAll("#tabs > .tabitem"))
          if (one.checkVisibility({visibilityProperty: true})) window.seen.add(one.id);
        requestAnimationFrame(look);
      };
      look();
    """)
    for name, text in (("configure", DRAWN["configure"]), ("data", DRAWN["data"])):
        page.goto(f"{served.address}/?tab={name}")
        expect(page.locator(f"#tab-{name}")).to_contain_text(text)
        assert page.evaluate("[...window.seen]") == [f"tab-{name}"]


def test_a_run_that_is_not_there_is_no_error(served: Served, page: Page) -> None:
    visit(page, served, "?tab=train&run=../../etc/passwd&dataset=%3Cscript%3E")
    expect(page.locator("#run .headline")).to_be_visible()
    expect(page.locator(".toast-body.error")).to_have_count(0)


def test_a_curve_comes_when_the_server_is_back_and_stays_zoomed_when_points_come(
    served: Served, page: Page, stocked: tuple[Workspace, Job]
) -> None:
    """The server may go in the moment in which the first chart is to be drawn."""
    page.loses_server = True  # type: ignore[attr-defined]
    page.route("**/plotly.js", lambda route: route.abort())
    with page.expect_event("requestfailed", lambda request: "plotly" in request.url):
        visit(page, served, f"?tab=train&run={stocked[1].id}")
    page.unroute("**/plotly.js")
    until(lambda: drawn(page) == 90)
    curve = "document.querySelector('[data-curve=loss]')"
    page.evaluate(f"() => Plotly.relayout({curve}, {{'xaxis.range': [10, 20]}})")
    page.locator("[data-theme-toggle]").click()
    dark = "() => document.body.classList.contains('dark')"
    until(lambda: page.evaluate(dark))
    page.evaluate("() => tunesmith.setRaw(false)")
    assert page.evaluate(f"() => {curve}.layout.xaxis.range") == [10, 20]


def test_every_tab_opens_without_torch_outsiders_or_errors(served: Served, page: Page) -> None:
    """The laws of the web process, after all of it was used: small, no torch, nothing from
    elsewhere, no script that failed, and no name of a run that became a script. Before that, the
    keyboard reaches the tabs and shows where it is."""
    visit(page, served)
    expect(page.locator("#rows .row-card").first).to_be_visible()
    reached = set()
    for _press in range(12):
        page.keyboard.press("Tab")
        focus = page.evaluate(FOCUS)
        assert focus["visible"], f"no visible focus on {focus['what']}"
        reached.add(focus["what"])
    assert "tab-configure-button" in reached
    for name, _title in TABS:
        open_drawn(page, name)
    open_tab(page, "data")
    page.get_by_text("As the model sees them").click()
    expect(page.locator("#rows .tokens .t.loss").first).to_be_visible()
    maps = {item.path for item in psutil.Process(served.process.pid).memory_maps()}
    assert not [path for path in maps if "/torch/" in path]
    assert served.resident_bytes() < MOST_RESIDENT
    assert page.foreign == []  # type: ignore[attr-defined]
    assert page.title() == "Tunesmith"
    expect(page.locator(".toast-body.error")).to_have_count(0)


def test_a_setting_in_a_closed_fold_is_kept_and_a_preset_reaches_it(
    served: Served, page: Page
) -> None:
    """Folded fields are not in the document; their values must not be lost for that."""
    visit(page, served, "?tab=configure")
    fold = page.locator("#fold-randomness .label-wrap")
    # A click may meet the page while it still grows, and then meets nothing.
    is_open = "label => label.parentElement.open"
    until(lambda: fold.evaluate(is_open) or fold.click())
    page.locator("#field-training-seed textarea").fill("7")
    fold.click()
    expect(fold.locator("[data-note]")).to_have_attribute("data-note", "1 changed")
    page.get_by_text("Keep or reuse these settings").click()
    page.get_by_role("button", name="Copy as command").click()
    expect(page.locator("#copied")).to_contain_text("--training.seed 7")
    labels = page.locator(".fold", has_text="Labels and their loss")
    expect(labels).to_be_hidden()
    page.locator("#preset-purpose").get_by_text("Labels", exact=True).click()
    page.locator("#preset").get_by_text("Labels, small encoder").click()
    expect(labels).to_be_visible()
    page.locator("#preset-purpose").get_by_text("Answers", exact=True).click()
    page.locator("#preset").get_by_text("Full fine-tune of a small model").click()
    expect(labels).to_be_hidden()
    expect(page.locator("#fold-randomness [data-note]")).to_have_count(0)
    fold.click()
    expect(page.locator("#field-training-seed textarea")).to_have_value("42")


def test_what_was_typed_is_judged_and_there_again_when_the_page_is_loaded_again(
    served: Served, page: Page
) -> None:
    """A quarter of an hour of settings, gone with a slip of the finger; or a run that cannot be."""
    visit(page, served, "?tab=configure")
    name, rate = page.locator("#field-name textarea"), "#field-training-learning_rate"
    first = page.locator(f"{rate} textarea").input_value()
    start = page.get_by_role("button", name="Start training")
    expect(start).to_be_enabled()
    page.locator(f"{rate} textarea").fill("-1")
    expect(page.locator(f"{rate} .field-error")).to_contain_text("above 0 and up to 1")
    page.set_viewport_size({"width": 390, "height": 844})  # on a phone nothing covers anything
    above, box, below = page.locator(rate).evaluate(
        "field => ['.info-text', 'textarea', '.field-error'].map("
        "part => field.querySelector(part).getBoundingClientRect().toJSON())"
    )
    assert above["bottom"] <= box["top"]
    assert box["bottom"] <= below["top"]
    page.set_viewport_size({"width": 1280, "height": 900})
    expect(page.locator(f"{rate} textarea")).to_have_attribute("aria-invalid", "true")
    expect(start).to_be_disabled()
    page.locator(f"{rate} textarea").fill("3e-4")
    expect(page.locator(f"{rate} .field-error")).to_have_count(0)
    expect(page.locator(f"{rate} .field-was")).to_contain_text("Preset: ")
    expect(start).to_be_enabled()
    page.locator("#preset").get_by_text("Full fine-tune of a small model").click()
    expect(page.locator(f"{rate} textarea")).not_to_have_value(re.compile(f"^({first}|3e-4)$"))
    preset = page.locator(f"{rate} textarea").input_value()
    name.fill("mine")
    page.locator(f"{rate} textarea").fill("3e-4")
    expect(page.locator(f"{rate} .field-was")).to_contain_text("Preset: ")
    until(lambda: page.evaluate(_DRAFT))
    for address in ("?tab=configure", "?tab=data"):  # also with the tab not yet opened
        visit(page, served, address)
        page.get_by_role("tab", name="Configure").click()
        expect(name).to_have_value("mine")
        expect(page.locator(f"{rate} textarea")).to_have_value("3e-4")
        chosen = page.locator("#preset label.selected")
        expect(chosen).to_contain_text("Full fine-tune of a small model")
    page.locator("#reset-settings").click()
    expect(name).to_have_value("")
    expect(page.locator(f"{rate} textarea")).to_have_value(preset)
    expect(page.locator(f"{rate} .field-was")).to_have_count(0)


_DRAFT = """() => Object.entries(localStorage).some(([key, draft]) =>
  key.startsWith("tunesmith-draft") && draft.includes("mine") && draft.includes("3e-4"))"""


def test_choices_that_come_while_a_list_is_open_are_in_it(served: Served, page: Page) -> None:
    """Else who is quicker than the server does not find the data set that was just made."""
    visit(page, served, "?tab=configure")
    page.locator("#field-data-dataset input").click()
    options = page.locator("#field-data-dataset [role=option]")
    expect(options.first).to_be_visible()
    choices = {"data.dataset": [["Made just now", "made"]]}
    answer = json.dumps({"asked": "by nobody", "choices": choices})
    page.evaluate("answer => tunesmith.form.fill('run', answer)", answer)
    expect(options).to_have_text(["Made just now"])


def test_settings_come_back_with_their_data_set(
    served: Served, page: Page, stocked: tuple[Workspace, Job]
) -> None:
    """What was found out for one data set would be run with the next, or be lost for the first."""
    rows = stocked[0].root / "other.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n' * 4, encoding="utf-8")
    other = import_dataset(stocked[0], [rows], name="the other", eval_fraction=0.0)
    rate = page.locator(f"#field-{RATE} textarea")
    came_back = page.get_by_text("The settings that you last used with this data set.")

    def choose(dataset: str) -> None:
        page.locator("#tab-configure .form-part").first.wait_for()
        box = page.locator("#field-data-dataset input, #field-data-dataset textarea").first
        box.click()
        page.locator("#field-data-dataset [role=option]", has_text=dataset).click()

    visit(page, served, "?tab=configure")
    rate.fill("3e-4")
    choose("the other")
    expect(page).to_have_url(re.compile(other.id))
    expect(rate).to_have_value("3e-4")
    expect(came_back).to_have_count(0)
    page.locator("#preset").get_by_text("Full fine-tune of a small model").click()
    expect(rate).not_to_have_value("3e-4")
    rate.fill("7e-5")
    choose("upport tickets")
    expect(rate).to_have_value("3e-4")
    expect(came_back).to_be_visible()
    expect(page.locator("#preset label.selected")).not_to_contain_text("Full fine-tune")
    # In Data, too; and after a reload.
    visit(page, served, f"?tab=data&dataset={other.id}")
    open_tab(page, "configure")
    expect(rate).to_have_value("7e-5")
    expect(page.locator("#preset label.selected")).to_contain_text("Full fine-tune")
    page.locator("#reset-settings").click()
    expect(rate).not_to_have_value("7e-5")
    expect(came_back).to_have_count(0)


def test_the_page_speaks_the_browsers_language_and_the_chosen_one(
    served: Served, page: Page, stocked: tuple[Workspace, Job]
) -> None:
    """A run stays the one that is shown, whatever language it is shown in."""
    with speaking("zh"):
        data, train = (str(_(title)) for name, title in TABS if name in ("data", "train"))
    page.set_extra_http_headers({"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.5"})
    page.goto(f"{served.address}/?tab=train&run={stocked[1].id}")
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(page.get_by_role("tab", name=train, exact=True)).to_be_visible()
    expect(page.get_by_role("tab", name=data, exact=True)).to_be_visible()
    expect(page.locator("#run .headline")).to_contain_text("a finished run")
    page.locator("[data-language=en]").click()
    expect(page.get_by_role("tab", name="Train", exact=True)).to_be_visible()
    expect(page.locator("#run .headline")).to_contain_text("a finished run")
    page.locator("[data-language=zh]").click()
    expect(page.get_by_role("tab", name=train, exact=True)).to_be_visible()


def test_a_fresh_workspace_offers_the_sample_run_and_a_lost_server_is_told(
    serve: Callable[..., Served], page: Page, tmp_path: Path
) -> None:
    """Nobody should take a page that stands still for a run that stands still."""
    served = serve(tmp_path / "fresh", "--port", "7980")
    visit(page, served)
    expect(page.get_by_role("button", name="Start the sample run").first).to_be_visible()
    expect(page.locator("#rows .row-card").first).to_be_visible()
    expect(page.locator(".welcome li")).to_have_count(3)
    for tab in ("train", "evaluate", "chat", "export", "runs"):
        open_tab(page, tab)
        empty = page.locator(f"#tab-{tab} .nothing")
        expect(empty.get_by_role("button", name="Start the sample run")).to_be_visible()
        expect(empty.get_by_role("button", name="Open Configure")).to_be_visible()
        expect(empty.get_by_role("button", name="Open Train")).to_have_count(0)
    empty.get_by_role("button", name="Open Configure").click()
    expect(page.locator("#tab-configure")).to_be_visible()
    workspace = Workspace.open(served.workspace)
    make_run(workspace, Store.open(workspace))
    open_tab(page, "export")  # there is a run, but no model of it
    page.locator("#tab-export .nothing").get_by_role("button", name="Open Train").click()
    expect(page.locator("#run")).to_be_visible()
    page.loses_server = True  # type: ignore[attr-defined]
    served.end()
    expect(page.locator("#lost")).to_contain_text("Runs go on without it")
    port = served.address.rpartition(":")[2]
    serve(served.workspace, "--port", port)
    expect(page.locator("#lost")).to_have_count(0)


def drawn(page: Page) -> int:
    return page.evaluate(
        "() => Math.max(0, ...[...document.querySelectorAll('.js-plotly-plot')]"
        ".flatMap(plot => plot.data.map(line => (line.x || []).length)))"
    )


FOCUS = """() => {
  const at = document.activeElement, style = getComputedStyle(at);
  const ring = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0;
  const box = at.closest('.input-container, label, .wrap') || at;
  const around = getComputedStyle(box);
  const shadow = style.boxShadow !== 'none' || around.boxShadow !== 'none'
    || around.outlineStyle !== 'none';
  return {what: at.id || at.className || at.tagName, visible: ring || shadow};
}"""


def test_a_preset_does_not_undo_what_was_typed_after_it(served: Served, page: Page) -> None:
    """On a busy machine a preset's values come seconds after the click: what a person typed
    meanwhile would be gone. Of two presets the last one decides."""
    visit(page, served, "?tab=configure")
    name, rate = (page.locator(f"#field-{path} textarea") for path in ("name", RATE))
    rate.fill("3e-4")
    answer = """([asked, at, value]) => tunesmith.form.fill("run", JSON.stringify({
        asked, at, values: {"name": value, "training.learning_rate": value}, kept: [],
    }))"""
    for asked, value in (("1", "first"), ("2", "last")):
        page.evaluate(answer, [asked, 0, value])
        expect(name).to_have_value(value)
        expect(rate).to_have_value("3e-4")
    page.evaluate(answer, ["3", 1, "5e-5"])
    expect(rate).to_have_value("5e-5")
    # What was found wrong stays while others are edited, until the field itself is.
    assert page.evaluate(_WRONG) == ["Wrong.", "Wrong.", None]
    # Gradio now and then gives a part that was just drawn its first value again.
    assert page.evaluate(_GIVEN_AGAIN) == "70000"


_WRONG = """() => {
  const told = () => document.querySelector("#field-name .field-error")?.textContent ?? null;
  const seen = [{ errors: { name: "Wrong." } }, {}].map((marks) => {
    tunesmith.form.mark("run", marks);
    return told();
  });
  const box = document.querySelector("#field-name textarea");
  box.value = "right";
  box.dispatchEvent(new Event("input", { bubbles: true }));
  tunesmith.form.mark("run", {});
  return [...seen, told()];
}"""
_GIVEN_AGAIN = """() => {
  const part = document.createElement("div"), first = { values: { port: "0" }, at: 0 };
  const groups = [{ fields: [{ path: "port", label: "Port", control: "text", help: "" }] }];
  const props = { value: first, drawn: JSON.stringify({ groups, choices: {}, announced: [] }) };
  let given;
  document.body.append(part);
  tunesmith.form.mount("another", part, props, () => {}, (_name, tell) => { given = tell; });
  const box = part.querySelector("textarea");
  box.value = "70000";
  box.dispatchEvent(new Event("input", { bubbles: true }));
  props.value = first;
  given();
  part.remove();
  return props.value.values.port;
}"""
