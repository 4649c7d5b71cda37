"""What every stand-in for the Hub is served by: a server on loopback and how it answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol, TypeVar


class StandIn(Protocol):
    endpoint: str


Some = TypeVar("Some", bound=StandIn)


class Answering(BaseHTTPRequestHandler):
    """Each request of whatever method goes to `do_GET`; `the_hub` is what is served."""

    the_hub: Any

    def do_GET(self) -> None:
        raise NotImplementedError

    def do_HEAD(self) -> None:
        self.do_GET()

    do_POST = do_PUT = do_HEAD

    def send(
        self,
        status: int,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        only: int | None = None,
    ) -> None:
        """Headers that are empty are left out. `only` so many bytes of the body are sent."""
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:only])

    def log_message(self, *_: object) -> None:
        """Nothing: the test's output is for the test."""


@contextmanager
def served(hub: Some, handler: type[Answering]) -> Iterator[Some]:
    """`hub` at its `endpoint` while it lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), {"the_hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
