"""A Hub on loopback with one model on it, as slow as a test wants, that remembers who asked."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.hub.server import Answering, served

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
    with served(stand_in, _Handler):
        try:
            yield stand_in
        finally:
            if stand_in.slow:
                stand_in.slow.set()


class _Handler(Answering):
    the_hub: StandIn

    def do_GET(self) -> None:
        self.the_hub.asked.append(self.path)
        if self.the_hub.slow:
            self.the_hub.slow.wait()
        path = self.path.partition("?")[0]
        model = f"/api/models/{self.the_hub.hub_id}"
        file = path.removeprefix(f"/{self.the_hub.hub_id}/resolve/{COMMIT}/")
        if self.the_hub.portal:
            self._send(200, self.the_hub.portal)
        elif path in (model, f"{model}/revision/main"):
            self._answer(200, {"id": self.the_hub.hub_id, "sha": COMMIT, "siblings": []})
        elif path == f"{model}/tree/{COMMIT}":
            self._answer(200, [self._entry(name) for name in self.the_hub.files])
        elif file in self.the_hub.files:
            self._send(200, self.the_hub.files[file], limit=self.the_hub.break_off_after)
        else:
            self._answer(404, {"error": "Repository not found"}, "RepoNotFound")

    def _entry(self, name: str) -> dict[str, object]:
        body = self.the_hub.files[name]
        return {"type": "file", "path": name, "size": len(body), "oid": _etag(body)}

    def _answer(self, status: int, answer: object, error: str = "") -> None:
        self._send(status, json.dumps(answer).encode(), error)

    def _send(self, status: int, body: bytes, error: str = "", limit: int | None = None) -> None:
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{_etag(body)}"', "X-Error-Code": error}
        self.send(status, body, headers, limit)


def _etag(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()
