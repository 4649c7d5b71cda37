"""The way around one fault of Gradio: its bar for a page that is loading goes on measuring its time
once it is gone, 60 times a second for as long as the page is open (statustracker.js, `ze`). What is
given to Gradio as `head` runs after that has begun, so this stands in the HTML itself. Nothing here
shows that time. tests/webui/test_idle.py tells when this can go."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CLOCK = r"performance\.now\(\)-[^;{}]*\/1e3\)"
_SCRIPT = (
    "<head><script>{ const frame = window.requestAnimationFrame.bind(window);"
    f" window.requestAnimationFrame = (call) => /{CLOCK}/.test(call) ? 0 : frame(call); }}</script>"
).encode()


class FirstScript:
    """Middleware inside Gradio's own, which compresses: puts the script first into each page."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
                body = message["body"].replace(b"<head>", _SCRIPT, 1)
                headers = MutableHeaders(scope=first)
                if not message.get("more_body"):
                    headers["content-length"] = str(len(body))
                await send(first)
                message = {**message, "body": body}
            await send(message)

        await self.app(scope, receive, put)
