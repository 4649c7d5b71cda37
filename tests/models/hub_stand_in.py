"""A Hub on loopback with one model on it, as slow as a test wants, that remembers who asked."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "a" * 40


@dataclass
class StandIn:
    """`hub_id` has `files`, of which only the first `break_off_after` bytes are sent.

    Each answer waits for `slow` to be set, if it is an event. `portal` is what a network's login
    page answers to everything.
    """

    hub_id: str
    files: dict[str, bytes]
    slow: threading.Event | None = None
    break_off_after: int | None = None
    portal: bytes = b""
    asked: list[str] = field(default_factory=list)
    endpoint: str = ""


@contextmanager
def serving(stand_in: StandIn) -> Iterator[StandIn]:
    class Handler(_Handler):
        hub = stand_in

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stand_in.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        if stand_in.slow:
            stand_in.slow.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: StandIn

    def do_GET(self) -> None:
        self.hub.asked.append(self.path)
        if self.hub.slow:
            self.hub.slow.wait()
        path = self.path.partition("?")[0]
        model = f"/api/models/{self.hub.hub_id}"
        file = path.removeprefix(f"/{self.hub.hub_id}/resolve/{COMMIT}/")
        if self.hub.portal:
            self._send(200, self.hub.portal)
        elif path in (model, f"{model}/revision/main"):
            self._answer(200, {"id": self.hub.hub_id, "sha": COMMIT, "siblings": []})
        elif path == f"{model}/tree/{COMMIT}":
            self._answer(200, [self._entry(name) for name in self.hub.files])
        elif file in self.hub.files:
            self._send(200, self.hub.files[file], limit=self.hub.break_off_after)
        else:
            self._answer(404, {"error": "Repository not found"}, "RepoNotFound")

    do_HEAD = do_GET

    def _entry(self, name: str) -> dict[str, object]:
        body = self.hub.files[name]
        return {"type": "file", "path": name, "size": len(body), "oid": _etag(body)}

    def _answer(self, status: int, answer: object, error: str = "") -> None:
        self._send(status, json.dumps(answer).encode(), error)

    def _send(self, status: int, body: bytes, error: str = "", limit: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{_etag(body)}"')
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:limit])

    def log_message(self, *_: object) -> None:
        """Nothing: the test's output is for the test."""


def _etag(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()
