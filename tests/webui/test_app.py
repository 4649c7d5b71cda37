"""The page as a whole: what it publishes, and that every control can be read aloud."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import pytest

from tests.webui.fakes import fake_app
from webui.api import PUBLISHED
from webui.app import build
from webui.context import TABS

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
    assert [(tab.id, tab.label) for tab in tabs] == list(TABS)


def test_every_control_has_a_label(page: gr.Blocks) -> None:
    """Without it a screen reader says "edit text" and nothing more."""
    controls = [
        block
        for block in page.blocks.values()
        if isinstance(block, gr.components.Component) and not isinstance(block, SILENT)
    ]
    assert len(controls) > len(TABS)
    assert [block for block in controls if not block.label] == []


def test_every_button_says_what_it_does(page: gr.Blocks) -> None:
    buttons = [block for block in page.blocks.values() if isinstance(block, gr.Button)]
    assert [button for button in buttons if not str(button.value or "").strip()] == []


def test_uploads_stay_in_the_workspace(tmp_path: Path) -> None:
    """A file that somebody uploads must not lie in a folder that all users of a machine share."""
    app = fake_app(tmp_path / "workspace")
    page = build(app)
    files = [block for block in page.blocks.values() if isinstance(block, gr.File)]
    assert files
    for file in files:
        assert Path(file.GRADIO_CACHE).is_relative_to(app.workspace.uploads)
