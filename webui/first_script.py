"""The ways around two faults of Gradio that cost a person time. What is given to Gradio as `head`
runs after they have begun, so this stands in the HTML itself. tests/webui/test_idle.py tells when
each can go.

- Its bar for a page that is loading goes on measuring its time once it is gone, 60 times a second
  for as long as the page is open (statustracker.js, `ze`). Nothing here shows that time.
- It looks for each component through all targets of all events (core.js, `find_attached_events`),
  each of them read through a proxy of Svelte's that watches it; none is ever changed. Svelte leaves
  a subclass of Array alone: a fifth of the page's load.
"""

from __future__ import annotations

import gzip

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CLOCK = r"performance\.now\(\)-[^;{}]*\/1e3\)"
_SCRIPT = (
    "<head><script>{ const frame = window.requestAnimationFrame.bind(window);"
    f" window.requestAnimationFrame = (call) => /{CLOCK}/.test(call) ? 0 : frame(call);"
    " class Unwatched extends Array {} let config;"
    " Object.defineProperty(window, 'gradio_config', { configurable: true, get: () => config,"
    " set(given) { config = given;"
    " if (given.dependencies) Object.setPrototypeOf(given.dependencies, Unwatched.prototype); } });"
    " }</script>"
).encode()


class FirstScript:
    """Middleware inside Gradio's own: puts the script first into each page, and compresses it to an
    eighth. Gradio compresses what has a file's ending, and the page has none."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message | None = None
        takes_gzip = scope["type"] == "http" and "gzip" in Headers(scope=scope).get(
            "accept-encoding", ""
        )

        async def put(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").startswith("text/html"):
                    start = message
                    return
            elif start is not None:
                first, start = start, None
                body = message["body"].replace(b"<head>", _SCRIPT, 1)
                headers = MutableHeaders(scope=first)
                if not message.get("more_body"):
                    headers.add_vary_header("Accept-Encoding")
                    if takes_gzip:
                        headers["content-encoding"] = "gzip"
                        body = gzip.compress(body, 4)
                    headers["content-length"] = str(len(body))
                await send(first)
                message = {**message, "body": body}
            await send(message)

        await self.app(scope, receive, put)
