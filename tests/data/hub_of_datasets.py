"""A Hub on loopback with data sets on it: as much of its API as `datasets` asks for."""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote

from tests.hub.server import Answering, served

COMMIT = "b" * 40


@dataclass
class DatasetHub:
    """`sets` has the files of each data set by its id. Ids in `gated` need more than a token;
    those in `private` need `token`. `asked` are the paths that were asked for, `tokens` what came
    with them."""

    sets: dict[str, dict[str, bytes]]
    gated: frozenset[str] = frozenset()
    private: frozenset[str] = frozenset()
    token: str = "hf_right"
    asked: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    endpoint: str = ""


def serving(hub: DatasetHub) -> AbstractContextManager[DatasetHub]:
    return served(hub, _Handler)


class _Handler(Answering):
    the_hub: DatasetHub

    def do_GET(self) -> None:
        hub = self.the_hub
        path = unquote(self.path.partition("?")[0])
        hub.asked.append(f"{self.command} {path}")
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        hub.tokens |= {given} if given else set()
        known = path.removeprefix("/api").removeprefix("/datasets/").split("/")
        name, rest = "/".join(known[:2]), known[2:]
        if given and given != hub.token:
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif name not in hub.sets or (name in hub.private and not given):
            self._refuse(401, "RepoNotFound", "Repository not found")
        elif name in hub.gated:
            self._refuse(403 if given else 401, "GatedRepo", "Access to this is restricted")
        elif path.startswith("/api/"):
            self._api(hub.sets[name], name, rest)
        else:
            self._file(hub.sets[name], rest)

    def _api(self, files: dict[str, bytes], name: str, rest: list[str]) -> None:
        if rest[1:2] and rest[1] not in ("main", COMMIT):
            self._refuse(404, "RevisionNotFound", "Invalid rev id")
        elif rest[:1] == ["tree"]:
            folder = "/".join(rest[2:])
            self._answer([_entry(p, b) for p, b in files.items() if p.startswith(folder)])
        elif rest[:1] == ["paths-info"]:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length).decode()
            try:
                paths = json.loads(body)["paths"]
            except ValueError:
                paths = parse_qs(body)["paths"]
            self._answer([_entry(p, files[p]) for p in paths if p in files])
        else:
            siblings = [{"rfilename": path} for path in files]
            self._answer({"id": name, "sha": COMMIT, "siblings": siblings})

    def _file(self, files: dict[str, bytes], rest: list[str]) -> None:
        body = files.get("/".join(rest[2:]))
        if body is None:
            self._refuse(404, "EntryNotFound", "Entry not found")
            return
        wanted = self.headers.get("Range", "")
        if not wanted:
            self._send(200, body, body)
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        part = body[int(first) : int(last) + 1 if last else None]
        self._send(206, part, body, first=int(first))

    def _answer(self, answer: object) -> None:
        body = json.dumps(answer).encode()
        self._send(200, body, body)

    def _refuse(self, status: int, code: str, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        self._send(status, body, body, {"X-Error-Code": code, "X-Error-Message": message})

    def _send(
        self,
        status: int,
        part: bytes,
        whole: bytes,
        headers: dict[str, str] | None = None,
        first: int = 0,
    ) -> None:
        last = first + len(part) - 1
        more = {
            "X-Repo-Commit": COMMIT,
            "ETag": f'"{hashlib.sha1(whole).hexdigest()}"',
            "Accept-Ranges": "bytes",
            "Content-Range": f"bytes {first}-{last}/{len(whole)}" if status == 206 else "",
        }
        self.send(status, part, {**more, **(headers or {})})


def _entry(path: str, body: bytes) -> dict[str, object]:
    return {
        "type": "file",
        "path": path,
        "size": len(body),
        "oid": hashlib.sha1(body).hexdigest(),
    }
