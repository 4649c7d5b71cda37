"""Gradio's own scripts, as they are served, and how the page goes out."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import brotli
import gradio as gr
import pytest
from playwright.sync_api import Page, expect
from playwright.sync_api import Route as Asked
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from tests.e2e.serving import Served
from tests.webui.frames import LATE_FRAMES
from webui.gradio_scripts import ASSETS, FAULTS, GradioScripts, announced, asset, mended

CONFIG = '<script>window.gradio_config = {"words": "</scr\\u003e; };"};</script>'
WORDS = f"<html><head><title>T</title>{CONFIG}</head>" + "<p>many words</p>" * 1000
HEAD = "<script>ours</script>"
# A tree as Gradio has it, and events with their targets; the names are those of the two functions.
_TREE = """
const leaf = (id) => ({id, children: []});
const tree = {id: 0, children: [{id: 1, children: [leaf(2), leaf(3)]}, leaf(4)]};
const events = [
  {targets: [[2, "click"], [2, "input"], [4, "load"]]}, {targets: [[0, "load"]]},
  {targets: [[2, "change"]]}, {targets: [[4, null]]}, {targets: []},
];
"""


made: list[str] = []


def page(request: Request) -> Response:
    made.append(str(request.url))
    return HTMLResponse(WORDS)


def data(_request: Request) -> Response:
    return JSONResponse({"<head>": WORDS})


APP = Starlette(
    routes=[
        Route("/", page),
        Route("/data", data),
        Route("/assets/{name}", asset),
    ],
    middleware=[Middleware(GradioScripts, HEAD, first=lambda query: query.get("words", ""))],
)


def found(name: str) -> tuple[str, str]:
    """(the name of the file that has a fault, its text)"""
    fault = FAULTS[name]
    for path in ASSETS.glob(f"{fault.file}*.js"):
        text = path.read_text(encoding="utf-8")
        if re.search(fault.is_there, text):
            return path.name, text
    raise AssertionError("Gradio has changed it: it can go, or look for what stands there now")


@pytest.mark.parametrize("name", FAULTS)
def test_gradio_still_has_the_fault_and_it_is_served_without(name: str) -> None:
    file, text = found(name)
    assert len(re.findall(FAULTS[name].is_there, text)) == 1
    served = TestClient(APP).get(f"/assets/{file}")
    assert served.headers["content-type"].startswith("text/javascript")
    assert not re.search(FAULTS[name].is_there, served.text) or name.startswith("what sets nothing")
    assert served.text != text and served.content == mended(file)
    assert served.headers["cache-control"] == "no-cache"
    had = {"if-none-match": served.headers["etag"]}
    again = TestClient(APP).get(f"/assets/{file}", headers=had)
    assert (again.status_code, again.content) == (304, b"")
    assert TestClient(APP).get(f"/assets/{file}", headers={"if-none-match": '"x"'}).content


@pytest.mark.parametrize("ending", [".js", ".css"])
@pytest.mark.parametrize("encoding", ["br", "gzip"])
def test_what_has_no_fault_is_served_as_it_is_and_kept(ending: str, encoding: str) -> None:
    path = next(path for path in ASSETS.glob(f"Index-*{ending}"))
    answer = TestClient(APP).get(f"/assets/{path.name}", headers={"accept-encoding": encoding})
    content = answer.content
    if encoding == "br" and answer.content != path.read_bytes():  # where the client reads no br
        content = brotli.decompress(answer.content)
    assert content == path.read_bytes()
    assert answer.headers.get("content-encoding") == ("br" if encoding == "br" else None)
    assert "immutable" in answer.headers["cache-control"]


def test_no_other_file_is_served() -> None:
    for name in ("Index-x.js", "core-x.js", "../core-x.js", "..%2F..%2Findex.html", "%2E%2E"):
        assert TestClient(APP).get(f"/assets/{name}").status_code == 404


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_our_scripts_stand_first_and_the_page_goes_out_compressed(
    encoding: str,
) -> None:
    answer = TestClient(APP).get("/", headers={"accept-encoding": encoding})
    assert answer.text.startswith(f"<html><head>{HEAD}<title>T</title>")
    assert answer.text.endswith(WORDS[-1000:])
    assert answer.headers.get("content-encoding") == ("gzip" if encoding == "gzip" else None)


def test_the_page_is_made_once_for_each_address_that_it_is_asked_at() -> None:
    made.clear()
    client = TestClient(APP)
    texts = {client.get("/", headers={"host": name}).text for name in ("here", "there", "here")}
    assert len(made) == 2 and len(texts) == 1
    client.get("/", headers={"host": "here", "x-forwarded-proto": "https"})
    client.get("/?deep_link=x", headers={"host": "here"})
    client.get("/?deep_link=x", headers={"host": "here"})
    assert len(made) == 5
    for number in range(40):  # a stranger's names do not fill the memory
        client.get("/", headers={"host": f"host-{number}"})
    kept = [one for one in APP.middleware_stack.app.kept]  # type: ignore[union-attr]
    assert 0 < len(kept) <= 16


def test_a_page_begins_with_what_belongs_to_its_address() -> None:
    made.clear()
    client = TestClient(APP)
    for words in ("one", "two", "one", ""):
        text = client.get(f"/?words={words}", headers={"host": "begins"}).text
        assert text.startswith(f"<html><head>{HEAD}{words}<title>T</title>")
    assert len(made) == 3


def test_what_is_no_page_goes_out_without_our_scripts() -> None:
    assert TestClient(APP).get("/data").json() == {"<head>": WORDS}


@pytest.mark.parametrize("made", [gr.HTML, gr.Number, gr.Code, gr.CheckboxGroup, gr.Tab])
def test_what_a_component_consists_of_is_announced(made: type[gr.blocks.Block]) -> None:
    """Where Gradio's list of it has changed, the page comes later, and nobody would know."""
    with gr.Blocks(analytics_enabled=False) as bare:
        pass
    with gr.Blocks(analytics_enabled=False) as with_it:
        made()
    told = [announced(one) for one in (bare, with_it)]
    listed = r'(?:modulepreload"|disabled) href="assets/([^"]+)"'
    files = [set(re.findall(listed, one)) for one in told]
    assert files[0] < files[1] and all((ASSETS / name).is_file() for name in files[1])
    together = [re.findall(r'"stylesheet" href="assets/([^"]+)"', one) for one in told]
    for names, links in zip(files, together, strict=True):
        styles = TestClient(APP).get(f"/assets/{links[0]}")
        assert styles.headers["content-type"].startswith("text/css")
        for name in names:
            assert name.endswith(".js") or (ASSETS / name).read_text("utf-8") in styles.text
            # It would be looked for in another place.
            assert name.endswith(".js") or "url(" not in (ASSETS / name).read_text("utf-8")


@pytest.mark.e2e
def test_nothing_that_is_announced_is_fetched_twice(
    page: Page, serve: Callable[..., Served], workspace: Path
) -> None:
    """As it is where it is asked for in another way than Gradio asks."""
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    served = serve(workspace, "--port", "7972")
    page.goto(served.address)
    expect(page.locator("#rows .row-card").first).to_be_visible()
    files = [url.rpartition("/")[2] for url in asked if "/assets/" in url]
    assert len(files) > 40 and len(files) == len(set(files))
    listed = page.evaluate(
        "[...document.querySelectorAll('link[rel=modulepreload], link[rel=stylesheet]')]"
        ".filter((one) => !one.disabled).map((one) => one.href.split('/').pop())"
    )
    assert set(files) - set(listed) == set()
    assert sum(name.endswith(".css") for name in files) == 2  # Gradio's first one, and all others


@pytest.mark.e2e
def test_what_the_page_consists_of_is_read_as_gradio_says_it(
    page: Page, serve: Callable[..., Served], workspace: Path
) -> None:
    served = serve(workspace, "--port", "7972")
    page.goto(served.address)
    own = page.evaluate("window.gradio_config")
    told = page.evaluate("fetch('config').then((answer) => answer.json())")
    assert own["components"] == told["components"] and len(own["components"]) > 500
    assert own["dependencies"] == told["dependencies"]
    assert page.evaluate("typeof window.gradio_api_info") == "object"


@pytest.mark.e2e
def test_an_index_finds_what_gradio_finds(page: Page) -> None:
    """Its own functions, as they are and as they are served, side by side."""
    fault = FAULTS["no index of components"]
    _file, text = found("no index of components")
    own = re.search(fault.is_there, text)
    assert own
    look = "[0, 1, 2, 3, 4, 5, 2, 5].map((id) => find(tree, id)?.id ?? null)"
    page.goto("about:blank")
    told = [
        page.evaluate(f"() => {{ {_TREE} const find = {function}; return {look}; }}")
        for function in (own[0], own.expand(fault.instead))
    ]
    assert told[0] == told[1] == [0, 1, 2, 3, 4, None, 2, None]


@pytest.mark.e2e
def test_an_index_of_events_names_those_that_gradio_names(page: Page) -> None:
    fault = FAULTS["no index of events"]
    _file, text = found("no index of events")
    own = re.search(fault.is_there + r";return [^}]*\}", text)
    assert own
    page.goto("about:blank")
    look = (
        "const node = (id) => ({id, props: {shared_props: {}}});"
        "return [0, 1, 2, 3, 4].map((id) => "
        "tree_of.find_attached_events(node(id), events).props.shared_props.attached_events);"
    )
    told = [
        page.evaluate(f"() => {{ {_TREE} const tree_of = {{ {method} }}; {look} }}")
        for method in (own[0], re.sub(fault.is_there, fault.instead, own[0]))
    ]
    assert told[0] == told[1] == [["load"], [], ["click", "change"], [], ["load"]]


@pytest.mark.e2e
def test_ours_are_there_before_a_component_is_drawn(
    page: Page, serve: Callable[..., Served], workspace: Path
) -> None:
    """However late they come: the page of a test fails at an error in the console."""

    late: list[Asked] = []
    page.route("**/tunesmith/page.js?*", lambda route: late.append(route))
    served = serve(workspace, "--port", "7965")
    with page.expect_event("requestfinished", lambda one: "/assets/index-" in one.url):
        page.goto(served.address, wait_until="commit")
    late[0].continue_()
    expect(page.locator("#rows .row-card").first).to_be_visible()


@pytest.mark.e2e
def test_what_is_typed_at_once_into_a_fold_stays(
    page: Page, serve: Callable[..., Served], workspace: Path
) -> None:
    served = serve(workspace, "--port", "7968")
    page.goto(f"{served.address}/?tab=chat")
    expect(page.locator("#chat-prompt")).to_be_visible()
    page.evaluate(LATE_FRAMES)
    page.get_by_text("System prompt and sampling").click()
    heat = page.locator("#chat-temperature input[type=number]")
    longest = page.locator("#chat-max_new_tokens input")
    heat.fill("0")
    longest.fill("24")
    # The frame in which Gradio tells the fold's components, and the one after.
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert (heat.input_value(), longest.input_value()) == ("0", "24")
