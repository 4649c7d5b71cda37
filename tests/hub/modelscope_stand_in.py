"""A ModelScope on loopback: as much of its API as modelscope_hub asks for when it searches, looks
and downloads. Models are in memory."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.hub.server import Answering, served
from tests.hub.stand_in import Fault

TOKEN = "ms-0123-mayReadAll"
# What is said of a model that writes.
CHAT = {"license": "Apache-2.0", "tasks": ["text-generation"], "file_size": 988, "params": 494}


@dataclass
class Scope:
    """`models` has the files of each by OWNER/NAME@REVISION, `told` what is said of it. `faults`
    as of the stand-in for the Hub; of one with a status `message` is the answer."""

    endpoint: str = ""
    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def holds(self, name: str, files: Mapping[str, bytes], revision: str = "", **told: Any) -> None:
        self.models[f"{name}@{revision or 'master'}"] = dict(files)
        self.told[name] = {"id": name, "private": False, "gated": False, "downloads": 0, **told}

    def fails(self, where: str, **how: Any) -> Fault:
        self.faults.append(Fault(where, **how))
        return self.faults[-1]

    def clear(self) -> None:
        for kept in (self.models, self.told, self.asked, self.ranges, self.faults):
            kept.clear()


@contextmanager
def serving(home: Path, patch: pytest.MonkeyPatch) -> Iterator[Scope]:
    """The stand-in, which this process and those that it starts take for ModelScope, with cache and
    tokens in `home`."""
    with served(Scope(), _Handler) as scope:
        for name in ("ENDPOINT", "DOMAIN", "API_TOKEN"):
            patch.delenv(f"MODELSCOPE_{name}", raising=False)
        patch.setenv("MODELSCOPE_ENDPOINT", scope.endpoint)
        patch.setenv("MODELSCOPE_CACHE", str(home / "cache"))
        patch.setenv("MODELSCOPE_HOME", str(home / "config"))
        patch.setenv("NO_PROXY", "127.0.0.1")
        try:
            yield scope
        finally:
            for fault in scope.faults:
                fault.release.set()


class _Handler(Answering):
    protocol_version = "HTTP/1.1"
    the_hub: Scope

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(asked.query).items()}
        what = f"{asked.path} {self.query.get('FilePath', '')}".strip()
        self.the_hub.asked.append(what)
        fault = next((f for f in self.the_hub.faults if f.where in what and f.times), None)
        if fault is not None:
            fault.times -= 1
            if fault.status:
                self.send(fault.status, fault.message.encode(), fault.headers)
                return
            if fault.hold:
                fault.reached.set()
                fault.release.wait()
        self._route(asked.path, cut=fault is not None and fault.cut)

    def _route(self, path: str, cut: bool) -> None:
        scope = self.the_hub
        if path == "/openapi/v1/models":
            words = self.query["search"].lower().split()
            found = [one for one in scope.told.values() if all(w in one["id"] for w in words)]
            found.sort(key=lambda one: -one[self.query["sort"]])
            models = found[: int(self.query["page_size"])]
            self._json({"models": models, "total_count": len(found)})
        elif one := re.fullmatch(r"/openapi/v1/models/(.+)", path):
            self._json(scope.told.get(one[1]))
        elif one := re.fullmatch(r"/api/v1/models/(.+?)/repo(/files)?", path):
            files = scope.models.get(f"{one[1]}@{self.query['Revision']}")
            if one[2]:
                self._json(files and {"Files": [_listed(*file) for file in files.items()]})
            else:
                self._file((files or {}).get(self.query["FilePath"]), cut)
        else:
            self._json(None)

    def _file(self, content: bytes | None, cut: bool) -> None:
        if content is None:
            self._json(None)
            return
        headers, status, begun = {"Accept-Ranges": "bytes"}, 200, 0
        if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            self.the_hub.ranges.append(wanted[1])
            begun, status = int(wanted[1]), 206
            headers["Content-Range"] = f"bytes {begun}-{len(content) - 1}/{len(content)}"
        body = content[begun:]
        self.send(status, body, headers, only=len(body) // 2 if cut else None)
        self.close_connection = cut

    def _json(self, data: object) -> None:
        """In the envelopes of both its surfaces; of None that there is no such thing."""
        if data is None:
            said = {"code": "ResourceNotFound", "message": "no such thing", "success": False}
            self.send(404, json.dumps(said).encode())
        else:
            said = {"success": True, "data": data, "Code": 200, "Data": data}
            self.send(200, json.dumps(said).encode())


def _listed(path: str, content: bytes) -> dict[str, Any]:
    told = {"Path": path, "Name": path.rpartition("/")[2], "Type": "blob", "Size": len(content)}
    return {**told, "Sha256": hashlib.sha256(content).hexdigest(), "Revision": "0" * 40}
