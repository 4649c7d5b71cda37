"""A stand-in for an OpenAI-compatible endpoint, and data sets to write more rows for."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from core.data.prepare import import_dataset
from core.data.record import DatasetInfo
from core.workspace import Workspace

KEY = "sk-test-7f3a9c0d5e"
Answer = tuple[int, dict[str, str], Any]


def completion(content: Any, read: int = 100, wrote: int = 20, reason: str = "stop") -> Answer:
    """A reply as the API gives it."""
    return (
        200,
        {},
        {
            "choices": [{"message": {"content": content}, "finish_reason": reason}],
            "usage": {"prompt_tokens": read, "completion_tokens": wrote},
        },
    )


def failure(status: int, message: str = "no", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, named, {"error": {"message": message}}


@dataclass
class StandIn:
    """The server and its own record of what it was asked. `answer(number, body)` is the reply in a
    chat, `complete` to a bare text, which it does not know unless it is set."""

    answer: Callable[[int, dict[str, Any]], Answer]
    complete: Callable[[int, dict[str, Any]], Answer] | None = None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: Any = field(default_factory=threading.Lock)
    url: str = ""

    def prompts(self) -> list[str]:
        return [json.dumps(body["messages"]) for body in self.bodies]


def new_rows(number: int, body: dict[str, Any]) -> Answer:
    """As many new questions as were asked for, each different from all others."""
    wanted = int(re.findall(r"Write (\d+) new rows", body["messages"][-1]["content"])[0])
    rows = [
        {"prompt": f"What is {number} plus {place}?", "completion": str(number + place)}
        for place in range(wanted)
    ]
    return completion("Here they are:\n```json\n" + json.dumps(rows) + "\n```")


def serve(stand_in: StandIn) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            known = {"/v1/chat/completions": stand_in.answer, "/v1/completions": stand_in.complete}
            reply = known.get(self.path) or (lambda number, body: failure(404, "no such path"))
            with stand_in.lock:
                number = len(stand_in.bodies)
                if known.get(self.path):
                    stand_in.bodies.append(body)
                stand_in.times.append(time.monotonic())
                stand_in.keys.append(self.headers.get("authorization"))
                stand_in.at_once += 1
                stand_in.most_at_once = max(stand_in.most_at_once, stand_in.at_once)
            try:
                status, headers, data = reply(number, body)
            finally:
                with stand_in.lock:
                    stand_in.at_once -= 1
            text = data.encode() if isinstance(data, str) else json.dumps(data).encode()
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
            except OSError:
                self.close_connection = True  # the one who asked has gone

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    stand_in.url = f"http://127.0.0.1:{server.server_port}/v1"
    return server


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A server that writes new rows; set its `answer` for anything else. It is in the
    environment, with a key."""
    stand_in = StandIn(new_rows)
    server = serve(stand_in)
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TUNESMITH_OPENAI_BASE_URL", stand_in.url)
    monkeypatch.setenv("TUNESMITH_OPENAI_API_KEY", KEY)
    yield stand_in
    server.shutdown()
    server.server_close()


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., tuple[Workspace, DatasetInfo]]:
    """A data set of these rows in a workspace of the test's own."""
    workspace = Workspace.open(tmp_path / "workspace")

    def make(rows: list[dict[str, Any]], **options: Any) -> tuple[Workspace, DatasetInfo]:
        workspace.uploads.mkdir(exist_ok=True)
        path = workspace.uploads / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return workspace, import_dataset(workspace, [path], eval_fraction=0.0, **options)

    return make


def questions(count: int = 12) -> list[dict[str, str]]:
    return [
        {"prompt": f"What is the capital of land {n}?", "completion": f"Town {n}."}
        for n in range(count)
    ]
