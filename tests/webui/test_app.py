"""The page as a whole: what it publishes, and that every control can be read aloud."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio.state_holder import SessionState

from core.language import speaking
from tests.webui.fakes import fake_app
from webui.api import PUBLISHED
from webui.app import Page, build
from webui.context import DATA_PARTS, TABS

SILENT = (gr.HTML, gr.State, gr.Timer, gr.Markdown, gr.Button, gr.DownloadButton)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> gr.Blocks:
    return build(fake_app(tmp_path_factory.mktemp("app") / "workspace"))


def test_only_the_named_endpoints_are_published(page: gr.Blocks) -> None:
    """Gradio publishes every handler by itself: each would be a way in for any program."""
    public = {fn.api_name for fn in page.fns.values() if fn.api_visibility != "private"}
    assert public == PUBLISHED
    named = page.get_api_info(all_endpoints=True)
    assert {name.strip("/") for name in named["named_endpoints"]} == PUBLISHED
    assert not named["unnamed_endpoints"]


def test_published_endpoints_say_what_they_do(page: gr.Blocks) -> None:
    for name, endpoint in page.get_api_info()["named_endpoints"].items():
        assert len(endpoint["description"]) > 40, name


def test_the_tabs_stand_in_the_order_of_the_work(page: gr.Blocks) -> None:
    tabs = [block for block in page.blocks.values() if isinstance(block, gr.Tab)]
    outer = [tab for tab in tabs if tab.parent.elem_id == "tabs"]
    assert [(tab.id, tab.label) for tab in outer] == list(TABS)
    inner = [tab for tab in tabs if tab.parent.elem_id == "parts"]
    assert [(tab.id, tab.label) for tab in inner] == list(DATA_PARTS)


def test_every_control_has_a_label(page: gr.Blocks) -> None:
    """Without it a screen reader says "edit text" and nothing more."""
    controls = [
        block
        for block in page.blocks.values()
        if isinstance(block, gr.components.Component) and not isinstance(block, SILENT)
    ]
    assert len(controls) > len(TABS)
    assert [block for block in controls if not block.label] == []


def test_every_text_box_holds_a_text(page: gr.Blocks) -> None:
    """Handlers take it for one, also where its fold was never opened."""
    config = page.get_config_file()["components"]
    boxes = [one["props"].get("value") for one in config if one["type"] == "textbox"]
    assert len(boxes) > len(TABS) and all(isinstance(value, str) for value in boxes)


def test_every_button_says_what_it_does(page: gr.Blocks) -> None:
    buttons = [block for block in page.blocks.values() if isinstance(block, gr.Button)]
    assert [button for button in buttons if not str(button.value or "").strip()] == []


def test_the_last_choice_counts_while_the_one_before_is_still_at_work(page: gr.Blocks) -> None:
    """Gradio drops an event whose handler is busy: the page would show what is no longer chosen."""
    choosers = (gr.Tab, gr.Textbox, gr.Dropdown, gr.Radio, gr.Checkbox, gr.CheckboxGroup)
    follows = [
        function
        for function in page.fns.values()
        for source, event in function.targets
        if event in ("select", "change", "input") and isinstance(page.blocks[source], choosers)
    ]
    assert len(follows) > len(TABS)
    waiting = [one for one in follows if one.fn and not inspect.isgeneratorfunction(one.fn)]
    assert [one.name for one in waiting if one.trigger_mode == "once"] == []


def test_who_repeats_an_event_has_it_alone(page: gr.Blocks) -> None:
    """Gradio repeats an event for one handler and means all of its handlers: the others answer once
    more, late, and two who repeat never end and take a core until the page is closed."""
    handlers = Counter(
        (source, event)
        for function in page.fns.values()
        for source, event in function.targets
        if source is not None
    )
    repeating = [one for one in page.fns.values() if one.trigger_mode == "always_last"]
    assert repeating
    assert [
        (one.name, at)
        for one in repeating
        for at in map(tuple, one.targets)
        if at[0] is not None and handlers[at] > 1
    ] == []


def test_the_browser_does_its_own_part_of_an_event_before_it_asks_the_server(
    page: gr.Blocks,
) -> None:
    """As the page gets them: Gradio waits for each answer before it calls the next handler."""
    asked: set[tuple[int | None, str]] = set()
    early = 0
    for one in page.get_config_file()["dependencies"]:
        # What follows an answer, or the page's first sight, is not called in this way.
        targets = {tuple(at) for at in one["targets"] if at[1] not in ("then", "success", "load")}
        if one["backend_fn"]:
            asked |= targets
        elif one["js"]:
            assert not targets & asked
            early += 1
    assert early > 5


def test_uploads_stay_in_the_workspace(tmp_path: Path) -> None:
    """A file that somebody uploads must not lie in a folder that all users of a machine share."""
    app = fake_app(tmp_path / "workspace")
    page = build(app)
    files = [block for block in page.blocks.values() if isinstance(block, gr.File)]
    assert files
    for file in files:
        assert Path(file.GRADIO_CACHE).is_relative_to(app.workspace.uploads)


def test_a_handler_that_is_sent_rubbish_answers_with_a_sentence(page: gr.Blocks) -> None:
    """Python's own words tell a person nothing, and a stranger too much."""
    called, session = 0, SessionState(page)
    for function in page.fns.values():
        if function.fn is None or not function.inputs or function.types_generator:
            continue
        with pytest.raises(gr.Error) as caught:
            asyncio.run(page.process_api(function, [], session))
        assert "makes no sense" in caught.value.message
        called += 1
    assert called > 50


@pytest.mark.parametrize(("kind", "told"), [(gr.Blocks, "Value 0 is less"), (Page, "最小为 1")])
def test_a_number_out_of_bounds_is_told_in_the_language(kind: type[gr.Blocks], told: str) -> None:
    """Gradio says it in English alone."""
    with speaking("zh"), kind(analytics_enabled=False) as made:
        box = gr.Number(minimum=1)
        box.change(lambda number: None, box)
    with pytest.raises(gr.Error, match=told):
        asyncio.run(made.process_api(made.fns[0], [0], SessionState(made)))


@pytest.mark.parametrize(("kind", "told_last"), [(gr.Blocks, "b"), (Page, gr.skip())])
def test_what_a_handler_yields_is_told_once(kind: type[gr.Blocks], told_last: Any) -> None:
    """Gradio tells the last of it again when the handler has ended, over what was typed by then.
    Where it does so no more, the way around it in Page can go."""

    def words(_word: str) -> Iterator[str]:
        yield "a"
        yield "b"

    with kind(analytics_enabled=False) as made:
        box = gr.Textbox()
        box.submit(words, box, box)
    function = made.fns[0]

    async def answers() -> list[Any]:
        iterator, told = None, []
        while True:
            answer = await made.process_api(
                function, ["x"], iterator=iterator, session_hash="one", event_id="one"
            )
            told += answer["data"]
            iterator = answer["iterator"]
            if not answer["is_generating"]:
                return told

    first, second, last = asyncio.run(answers())
    assert first == "a" and second == [["replace", [], "b"]]
    assert last == told_last


def test_every_tab_ticks_once_it_is_drawn(page: gr.Blocks) -> None:
    """The header, too: it shows the run at work on each of them."""
    told = " ".join(str(one.js) for one in page.fns.values())
    for name, _title in TABS:
        assert f"tunesmith.drawn('{name}')" in told
