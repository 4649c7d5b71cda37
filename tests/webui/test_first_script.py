"""What stands first in each page, and how the page goes out."""

from __future__ import annotations

import re
from pathlib import Path

import gradio as gr
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from webui.first_script import CLOCK, FirstScript

WORDS = "<html><head><title>T</title></head>" + "<p>many words</p>" * 1000


def page(_request: Request) -> Response:
    return HTMLResponse(WORDS)


def data(_request: Request) -> Response:
    return JSONResponse({"<head>": WORDS})


APP = Starlette(
    routes=[Route("/", page), Route("/data", data)], middleware=[Middleware(FirstScript)]
)


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_the_script_stands_first_and_the_page_is_compressed_for_who_can_read_that(
    encoding: str,
) -> None:
    answer = TestClient(APP).get("/", headers={"accept-encoding": encoding})
    assert answer.text.startswith("<html><head><script>")
    assert answer.text.endswith(WORDS.partition("<head>")[2])
    assert answer.headers.get("content-encoding") == ("gzip" if encoding == "gzip" else None)
    assert (int(answer.headers["content-length"]) < len(WORDS)) == (encoding == "gzip")
    assert answer.headers["vary"] == "Accept-Encoding"


def test_what_is_no_page_goes_out_as_it_is() -> None:
    answer = TestClient(APP).get("/data")
    assert answer.json() == {"<head>": WORDS}
    assert "content-encoding" not in answer.headers


def test_gradio_s_clock_still_goes_on_when_its_page_is_loaded() -> None:
    """Fails when Gradio has changed it: webui.first_script can go then, or has to look for what
    stands there now."""
    assets = Path(gr.__file__).parent / "templates/frontend/assets"
    scripts = [path.read_text(encoding="utf-8") for path in assets.glob("statustracker-*.js")]
    clock = r"function (\w+)\(\)\{\w+\(\(\)=>\{[^}]*" + CLOCK.replace(r"\/", "/") + r"[^}]*&&\1\(\)"
    assert any(re.search(clock, script) for script in scripts)


def test_gradio_still_looks_through_all_events_for_each_component() -> None:
    """Fails when Gradio has changed it: the other half of webui.first_script can go then."""
    assets = Path(gr.__file__).parent / "templates/frontend/assets"
    scripts = [path.read_text(encoding="utf-8") for path in assets.glob("core-*.js")]
    search = r"find_attached_events\((\w+),(\w+)\)\{let \w+=\2\.filter\((\w+)=>\3\.targets\.find\("
    assert any(re.search(search, script) for script in scripts)
