"""The ways around faults of Gradio's own scripts that cost a person time: each is one place in one
file of its frontend, put right while the file is served. Where Gradio has changed it, the file goes
out as it is; tests/webui/test_gradio_scripts.py tells when each can go.

And our scripts before them: what is given to Gradio as `head` is fetched once its own have begun,
and a component that is drawn by then runs its script without ours.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import gradio as gr
from starlette.datastructures import MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ASSETS = Path(gr.__file__).parent / "templates/frontend/assets"


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


# As Gradio asks for it: what was fetched in another way is fetched twice.
_LINKS = {"js": 'rel="modulepreload"', "css": 'rel="preload" as="style" crossorigin'}


def announced(page: gr.Blocks) -> str:
    """Links that have the browser fetch at once what the page's components consist of. Gradio asks
    for it when its own script has begun and has read the page."""
    core = next((path.read_text("utf-8") for path in ASSETS.glob("core-*.js")), "")
    listed = re.search(r"m\.f=(\[[^\]]*\])", core)
    files: list[str] = json.loads(listed[1]) if listed else []
    needed: set[int] = set()
    for kind in {block.get_block_name() for block in page.blocks.values()}:
        known = re.search(rf"[{{,]{kind}:\{{(?:(?!\)\}}).)*?\bcomponent:.*?\[([\d,]*)\]", core)
        needed.update(int(place) for place in known[1].split(",") if place) if known else None
    names = [files[place].removeprefix("./") for place in sorted(needed) if place < len(files)]
    return "".join(f'<link {_LINKS[one.rpartition(".")[2]]} href="assets/{one}">' for one in names)


class GradioScripts:
    """Middleware inside Gradio's own, with what stands first and last in the head of each page.
    Gradio compresses what has a file's ending, which the page has not: it goes out at an eighth of
    its size."""

    def __init__(self, app: ASGIApp, head: str = "", last: str = "") -> None:
        self.app, self.head, self.last = app, f"<head>{head}".encode(), f"{last}</head>".encode()
        self.page = GZipMiddleware(self._with_head, compresslevel=4)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        folder, _slash, name = str(scope.get("path", "")).rpartition("/")
        content = mended(name) if folder.endswith("/assets") else None
        answer: ASGIApp = self.app if "." in name else self.page
        if content:
            answer = Response(content, media_type="text/javascript")
        await answer(scope, receive, send)

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
                body = message["body"].replace(b"<head>", self.head, 1)
                body = body.replace(b"</head>", self.last, 1)
                if not message.get("more_body"):
                    MutableHeaders(scope=first)["content-length"] = str(len(body))
                await send(first)
                message = {**message, "body": body}
            await send(message)

        await self.app(scope, receive, put)
