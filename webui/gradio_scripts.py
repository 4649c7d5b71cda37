"""The ways around faults of Gradio's own scripts that cost a person time: each is one place in one
file of its frontend, put right while the file is served. Where Gradio has changed it, the file goes
out as it is; tests/webui/test_gradio_scripts.py tells when each can go.

And our scripts before them: what is given to Gradio as `head` is fetched once its own have begun,
and a component that is drawn by then runs its script without ours.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import anyio.to_thread
import brotli
import gradio as gr
from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ASSETS = Path(gr.__file__).parent / "templates/frontend/assets"
_KINDS = {".js": "text/javascript", ".css": "text/css"}


@dataclass(frozen=True)
class Fault:
    """`is_there` (a pattern) stands in the file whose name begins with `file`; `instead` is put
    there."""

    file: str
    is_there: str
    instead: str


FAULTS = {
    # Its bar for a page that is loading goes on measuring its time once it is gone, 60 times a
    # second for as long as the page is open. Nothing here shows that time.
    "a clock that never stops": Fault(
        "statustracker-",
        r"(function (\w+)\(\)\{\w+\(\(\)=>\{[^}]*performance\.now\(\)-[^;{}]*/1e3\)),\w+&&\2\(\)",
        r"\1",
    ),
    # The tree of components and the table of events are made anew once the page is mounted, as
    # after a reload of the app's code; `reload_count` is then above 0.
    "everything is made twice": Fault(
        "Blocks-", r"(\w+)\(\),(\w+\(\(\)=>\{\w+\.reload\()", r"\1()&&\2"
    ),
    # The component of every event is searched for, also where nothing is to be set there.
    "what sets nothing is searched for": Fault(
        "Blocks-",
        r"async set_event_args\((\w+),(\w+)\)\{",
        r"\g<0>if(!Object.keys(\2).length)return()=>{};",
    ),
    # The components of a fold that was opened are told a frame later what they were when the page
    # was made, over what was typed into them by then. Each is asked first, as elsewhere.
    "what is typed at once is undone": Fault(
        "core-",
        r"(async update_visibility.*?await this\.(#\w+)\(\w+\.id,\w+\).*?"
        r"requestAnimationFrame\(\w+\)\);for\(let (\w+) of \w+\))(this\.#\w+\(\3\))",
        r"\1{await this.\2(\3.id,\3);\4}",
    ),
    # A component is searched for through the whole tree, again and again. Good for a tree whose
    # branches stay, as here, where nothing is made by gr.render.
    "no index of components": Fault(
        "core-",
        r"function (\w+)\((\w+),(\w+)\)(\{if\(\2\.id===\3\)return \2;if\(\2\.children\)"
        r"for\(let (\w+) of \2\.children\)\{let \2=)\1(\(\5,\3\);if\(\2\)return \2\}return null\})",
        r"function \1(\2,\3){let known=\1.known??=new WeakMap,index=known.get(\2);"
        r"if(!index?.has(\3)){index=new Map;let walk=node=>{index.set(node.id,node);"
        r"node.children?.forEach(walk)};walk(\2);known.set(\2,index);"
        r"index.has(\3)||index.set(\3,null)}return index.get(\3)}",
    ),
    # The events of each component are searched for among the targets of all.
    "no index of events": Fault(
        "core-",
        r"(find_attached_events\((\w+),(\w+)\)\{let \w+=)\3\.filter\(.*?\.filter\(Boolean\)",
        r"\1((all)=>{if(all.of!==\3){all.of=\3;all.by=new Map;for(let one of \3){let met=new Set;"
        r"for(let[id,name]of one.targets){if(met.has(id))continue;met.add(id);"
        r"all.by.set(id,[...all.by.get(id)??[],name])}}}return all.by.get(\2.id)??[]})"
        r"(this.attached??={}).filter(Boolean)",
    ),
}


@cache
def mended(name: str) -> bytes | None:
    """A file of Gradio's frontend without the faults that it has; None for one that has none."""
    faults = [fault for fault in FAULTS.values() if name.startswith(fault.file)]
    path = ASSETS / name
    if not faults or path.suffix != ".js" or not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    for fault in faults:
        text = re.sub(fault.is_there, fault.instead, text, count=1)
    return text.encode()


@cache
def _packed(name: str) -> tuple[bytes, bytes] | None:
    """A script or style of Gradio's frontend as it goes out, and compressed."""
    path = ASSETS / name
    if name not in _STYLES and (path.suffix not in _KINDS or not path.is_file()):
        return None
    content = _STYLES.get(name) or mended(name) or path.read_bytes()
    return content, brotli.compress(content, quality=5)


async def asset(request: Request) -> Response:
    """A file of Gradio's frontend. Gradio reads and compresses it each time, and a page consists of
    more than seventy: compressed once they are there in a third of the time. A browser keeps those
    whose name changes with what is in them, and asks whether it still has the others."""
    name = request.path_params["name"]
    packed = _packed(name)
    if packed is None:
        path = ASSETS / name
        return FileResponse(path) if path.is_file() else Response(status_code=404)
    headers = {"Vary": "Accept-Encoding", "Cache-Control": "max-age=31536000, immutable"}
    content, small = packed
    if mended(name):
        tag = f'"{hashlib.sha256(content).hexdigest()[:12]}"'
        headers |= {"Cache-Control": "no-cache", "ETag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
    if "br" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "br"
        content = small
    return Response(content, media_type=_KINDS[Path(name).suffix], headers=headers)


@cache
def _together(names: tuple[str, ...]) -> str:
    """The file that is these styles, which `asset` knows from then on."""
    text = "\n".join((ASSETS / name).read_text("utf-8") for name in names)
    name = f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.css"
    _STYLES[name] = text.encode()
    return name


_STYLES: dict[str, bytes] = {}
# As Gradio asks for it: what was fetched in another way is fetched twice. A style that is there
# already it does not ask for; one that is switched off is not fetched.
_SCRIPT = '<link rel="modulepreload" href="assets/{}">'
_STYLE = '<link rel="stylesheet" href="assets/{}">'
_OFF = '<link rel="stylesheet" disabled href="assets/{}">'


def _listed(beginning: str) -> tuple[str, list[str]]:
    """The file of Gradio's frontend whose name begins so and that lists others, and those."""
    for path in ASSETS.glob(f"{beginning}*"):
        text = path.read_text("utf-8")
        listed = re.search(r"m\.f=(\[[^\]]*\])", text)
        if listed:
            return text, [name.removeprefix("./") for name in json.loads(listed[1])]
    return "", []


def announced(page: gr.Blocks) -> str:
    """Links that have the browser fetch at once what the page consists of: what Gradio begins with,
    and its components, save those that are hidden. Gradio asks for it when its own script has begun
    and has read the page. Their styles, more than forty files, are one."""
    core, files = _listed("core-")
    needed: set[int] = set()
    shown = [block for block in page.blocks.values() if block.visible is not False]
    for kind in {block.get_block_name() for block in shown}:
        known = re.search(rf"[{{,]{kind}:\{{(?:(?!\)\}}).)*?\bcomponent:.*?\[([\d,]*)\]", core)
        needed.update(int(place) for place in known[1].split(",") if place) if known else None
    _text, begins = _listed("index-")
    if begins:
        begins += [one for one in _listed(begins[0])[1] if not one.startswith("Login-")]
    names = [files[place] for place in sorted(needed) if place < len(files)]
    all_of_them = dict.fromkeys([*begins, *names])
    # The first one is asked for in Gradio's page itself.
    styles = [one for one in all_of_them if re.fullmatch(r"(?!index-).*\.css", one)]
    links = [_SCRIPT.format(one) for one in all_of_them if one.endswith(".js")]
    return "".join([_STYLE.format(_together(tuple(styles))), *links, *map(_OFF.format, styles)])


_KEPT_PAGES = 16
# From these Gradio makes the address that the page's scripts ask.
_ADDRESS = ("host", "x-forwarded-host", "x-forwarded-proto", "x-gradio-server")


def _what_a_page_depends_on(scope: Scope) -> tuple[str, ...] | None:
    """What is the same is the same page; None for what is no page, or one of its own."""
    place = str(scope.get("root_path", "")).rstrip("/")
    if scope["type"] != "http" or scope["method"] != "GET" or b"deep_link" in scope["query_string"]:
        return None
    if str(scope["path"]).rstrip("/") not in ("", place):
        return None
    headers = Headers(scope=scope)
    packed = "gzip" in headers.get("accept-encoding", "")
    named = (headers.get(name, "") for name in _ADDRESS)
    return (str(scope.get("scheme")), str(scope["path"]), place, str(packed), *named)


# What the page consists of stands in it as a script, which a browser compiles before it makes the
# objects: reading it as JSON takes it a third of the time.
_PARSED = re.compile(rb"<script>window\.(gradio_config|gradio_api_info) = (\{.*?\});</script>")
_AS_JSON = (
    rb'<script type="application/json" id="\1">\2</script>'
    rb'<script>window.\1 = JSON.parse(document.getElementById("\1").textContent);</script>'
)


class GradioScripts:
    """Middleware inside Gradio's own, with what stands first and last in each page's head, and last
    in its body; `first` gives what the page that is asked for with a query begins with. Gradio
    makes the page anew for everybody, which takes a twentieth of a second, and compresses what has
    a file's ending, which the page has not: it is kept, at an eighth of its size."""

    def __init__(
        self,
        app: ASGIApp,
        head: str = "",
        last: str = "",
        foot: str = "",
        first: Callable[[Mapping[str, str]], str] = lambda query: "",
    ) -> None:
        self.app, self.head, self.last = app, f"<head>{head}", f"{last}</head>".encode()
        self.foot, self.first = f"{foot}</body>".encode(), first
        self.page = GZipMiddleware(self._with_head, compresslevel=4)
        self.kept: dict[tuple[str, ...], list[Message]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp = self.app if "." in str(scope.get("path", "")) else self.page
        about = _what_a_page_depends_on(scope)
        if about is None:
            await answer(scope, receive, send)
            return
        query = QueryParams(scope["query_string"])
        first = await anyio.to_thread.run_sync(self.first, query)
        scope, about = {**scope, "tunesmith.first": first}, (*about, first)
        sent: list[Message] = self.kept.get(about, [])
        if not sent:

            async def keep(message: Message) -> None:
                sent.append(message)

            await answer(scope, receive, keep)
            if sent[0].get("status") == 200:
                if len(self.kept) >= _KEPT_PAGES:
                    self.kept.clear()
                self.kept[about] = sent
        for message in sent:  # what is around this adds to the headers
            await send({name: [*it] if name == "headers" else it for name, it in message.items()})

    async def _with_head(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message | None = None

        async def put(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").startswith("text/html"):
                    start = message
                    return
            elif start is not None:
                first, start = start, None
                body = _PARSED.sub(_AS_JSON, message["body"])
                head = f"{self.head}{scope.get('tunesmith.first', '')}".encode()
                body = body.replace(b"<head>", head, 1)
                body = body.replace(b"</head>", self.last, 1).replace(b"</body>", self.foot, 1)
                if not message.get("more_body"):
                    MutableHeaders(scope=first)["content-length"] = str(len(body))
                await send(first)
                message = {**message, "body": body}
            await send(message)

        await self.app(scope, receive, put)
