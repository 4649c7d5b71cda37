"""A Hub on loopback: as much of its API as huggingface_hub asks for when it searches, pushes and
downloads.

Repositories are in memory. `fails` makes it refuse, cut off or hold a request.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.rented import HARDWARE, Rented
from tests.hub.server import Answering, served

WRITES, READS, FINE = "hf_mayWriteAll0123", "hf_mayReadOnly0123", "hf_fineGrained0123"
_LARGE = (".safetensors", ".parquet", ".bin", ".gguf")


@dataclass(frozen=True)
class Entry:
    content: bytes
    large: bool = False

    @property
    def oid(self) -> str:
        """As the Hub knows it: SHA-256 of a large file, git's hash of a small one."""
        if self.large:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass
class Repository:
    kind: str
    private: bool = False
    commits: dict[str, dict[str, Entry]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    titles: list[str] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)
    """What the Hub says of it besides, such as `gated`, `tags` and `safetensors`."""

    def commit(self, branch: str, files: Mapping[str, Entry], title: str, parent: str = "") -> str:
        before = self.commits.get(self.branches.get(parent or branch, ""), {})
        sha = hashlib.sha1(f"{branch} {len(self.commits)}".encode()).hexdigest()
        self.commits[sha] = {**before, **files}
        self.branches[branch] = sha
        self.titles.append(title)
        return sha

    def files(self, branch: str = "main") -> dict[str, bytes]:
        return {path: one.content for path, one in self.commits[self.branches[branch]].items()}


@dataclass
class Fault:
    """What happens to the next `times` requests whose "METHOD path" has `where` in it: they are
    refused with `status` (with 200, `message` is the answer), cut off after half of what was sent,
    or held until `release` is set; `reached` says that one is."""

    where: str
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = ""
    cut: bool = False
    times: int = 1
    hold: bool = False
    reached: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)


@dataclass
class Hub:
    """`me` may write in its own name and in `org`."""

    me: str = "ada"
    org: str = "lab"
    endpoint: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    revoked: set[str] = field(default_factory=set)
    hardware: Any = field(default_factory=lambda: HARDWARE)
    rented: dict[str, Rented] = field(default_factory=dict)

    def repository(self, name: str, kind: str = "model") -> Repository:
        return self.repositories[f"{kind}s/{name}"]

    def add(self, name: str, kind: str = "model", private: bool = False) -> Repository:
        made = self.repositories[f"{kind}s/{name}"] = Repository(kind, private)
        made.commit("main", {".gitattributes": Entry(b"*.safetensors filter=lfs\n")}, "initial")
        return made

    def holds(
        self, name: str, files: Mapping[str, bytes], kind: str = "model", **told: Any
    ) -> None:
        """A repository with files, of which the Hub says `told`."""
        made = self.add(name, kind)
        made.told = {"gated": False, "downloads": 0, "tags": [], **told}
        entries = {p: Entry(content, p.endswith(_LARGE)) for p, content in files.items()}
        made.commit("main", entries, "all")

    def fails(self, where: str, **how: Any) -> Fault:
        self.faults.append(Fault(where, **how))
        return self.faults[-1]

    def uploads(self) -> list[str]:
        """The large files that were sent, in order."""
        return [one for one in self.asked if one.startswith("PUT ")]

    def role(self, token: str) -> str:
        known = {WRITES: "write", READS: "read", FINE: "fineGrained"}
        return "" if token in self.revoked else known.get(token, "")


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    with served(hub, _Handler):
        try:
            yield hub
        finally:
            for fault in hub.faults:
                fault.release.set()


class _Refusal(Exception):
    def __init__(self, status: int, message: str, code: str = "", **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers
        if code:
            self.headers["X-Error-Code"] = code


class _Handler(Answering):
    protocol_version = "HTTP/1.1"
    the_hub: Hub

    def do_GET(self) -> None:
        hub, asked = self.the_hub, urlsplit(self.path)
        self.where = f"{self.command} {unquote(asked.path)}"
        self.query = parse_qs(asked.query)
        hub.asked.append(self.where)
        try:
            if self._fails():
                return
            self._route([unquote(part) for part in asked.path.strip("/").split("/")])
        except _Refusal as refusal:
            self._read()
            headers = {"X-Error-Message": refusal.message, **refusal.headers}
            body = (
                json.dumps({"error": refusal.message}) if refusal.status != 200 else refusal.message
            )
            self.send(refusal.status, body.encode(), headers)

    def _fails(self) -> bool:
        """Whether a fault took the request."""
        fault = next((f for f in self.the_hub.faults if f.where in self.where and f.times), None)
        if fault is None:
            return False
        fault.times -= 1
        if fault.status:
            raise _Refusal(fault.status, fault.message or "no", **dict(fault.headers))
        if fault.hold:
            fault.reached.set()
            fault.release.wait()
        self.rfile.read(int(self.headers.get("Content-Length", 0)) // 2)
        self.close_connection = True
        self.connection.shutdown(2)
        return True

    def _route(self, parts: list[str]) -> None:
        hub = self.the_hub
        if parts == ["api", "whoami-v2"]:
            self._who()
        elif parts == ["api", "validate-yaml"]:
            self._json(self._body() and {"errors": [], "warnings": []})
        elif parts == ["api", "repos", "create"]:
            self._create(self._body())
        elif parts[0] == "upload":
            content = self._read()
            assert hashlib.sha256(content).hexdigest() == parts[1]
            hub.large[parts[1]] = content
            self._json({})
        elif parts[0] == "verify":
            told = self._body()
            assert len(hub.large[told["oid"]]) == told["size"]
            self._json({})
        elif parts[:2] == ["api", "jobs"]:
            self._jobs(parts[2:])
        elif parts in (["api", "models"], ["api", "datasets"]):
            self._search(parts[1])
        elif parts[0] == "api":
            self._api(self._found("/".join(parts[1:4])), "/".join(parts[2:4]), parts[4:])
        elif "info" in parts and parts[-1] == "batch":
            self._batch(self._body())
        else:
            kind = "datasets" if parts[0] == "datasets" else "models"
            parts = parts[1:] if parts[0] == "datasets" else parts
            self._file(self._found(f"{kind}/{'/'.join(parts[:2])}"), parts[3:])

    # -- rented machines

    def _jobs(self, rest: list[str]) -> None:
        hub = self.the_hub
        if rest == ["hardware"]:
            self._json(hub.hardware)
            return
        self._check_write(f"{rest[0]}/job")
        if len(rest) == 1:
            asked = self._body()
            made = Rented(str(len(hub.rented) + 1), rest[0], asked)
            source = asked["volumes"][0]["source"]
            given = hub.repository(source).files()
            hub.rented[made.id] = made
            made.begin(given, lambda files: self._trained(source, files))
            self._json(made.told())
            return
        job = hub.rented.get(rest[1])
        if job is None:
            raise _Refusal(404, "Job not found")
        if rest[2:] == ["cancel"]:
            job.cancel()
        elif rest[2:] == ["logs"]:
            self._events(job)
            return
        self._json(job.told())

    def _trained(self, name: str, files: Mapping[str, bytes]) -> None:
        entries = {f"trained/{p}": Entry(c, p.endswith(_LARGE)) for p, c in files.items()}
        self.the_hub.repository(name).commit("main", entries, "trained")

    def _events(self, job: Rented) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for line in job.lines():
            event = {"data": line, "timestamp": "2026-01-01T00:00:00.000Z"}
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            self.wfile.flush()
        self.close_connection = True

    # -- who

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _role(self) -> str:
        role = self.the_hub.role(self.token)
        if self.token and not role:
            raise _Refusal(401, "Invalid credentials in Authorization header")
        return role

    def _who(self) -> None:
        role = self._role()
        if not role:
            raise _Refusal(401, "Invalid username or password.")
        token: dict[str, Any] = {"displayName": f"my {role} token", "role": role}
        if role == "fineGrained":
            entity = {"_id": "1", "type": "org", "name": self.the_hub.org}
            token["fineGrained"] = {"scoped": [{"entity": entity, "permissions": ["repo.write"]}]}
        orgs = [{"type": "org", "name": self.the_hub.org}]
        auth = {"type": "access_token", "accessToken": token}
        told = {"type": "user", "name": self.the_hub.me, "orgs": orgs, "auth": auth}
        self._json(told)

    def _check_write(self, name: str) -> None:
        role, owner = self._role(), name.partition("/")[0]
        mine = (self.the_hub.org,) if role == "fineGrained" else (self.the_hub.me, self.the_hub.org)
        if role not in ("write", "fineGrained") or owner not in mine:
            raise _Refusal(403, "you don't have the rights to write here")

    # -- repositories

    def _create(self, told: dict[str, Any]) -> None:
        kind = told.get("type") or "model"
        name = f"{told['organization'] or self.the_hub.me}/{told['name']}"
        self._check_write(name)
        if f"{kind}s/{name}" in self.the_hub.repositories:
            raise _Refusal(409, "You already created this repo")
        self.the_hub.add(name, kind, told.get("visibility") == "private")
        prefix = "datasets/" if kind == "dataset" else ""
        self._json({"url": f"{self.the_hub.endpoint}/{prefix}{name}", "name": name, "id": "1"})

    def _found(self, key: str) -> Repository:
        role, found = self._role(), self.the_hub.repositories.get(key)
        owner = key.split("/")[1] if "/" in key else ""
        hidden = found is not None and found.private and not role
        if found is None or hidden or (found.private and owner not in ("ada", "lab")):
            raise _Refusal(404 if role else 401, "Repository not found", "RepoNotFound")
        return found

    def _search(self, plural: str) -> None:
        """Those with the words in their name and every tag that is asked for, as far as the fields
        that are asked for."""
        self._role()
        words, tags = self.query.get("search", [""])[0].lower(), self.query.get("filter", [])
        answer = [
            {"_id": "1", "id": name}
            | {key: one.told[key] for key in self.query["expand"] if key in one.told}
            for key, one in self.the_hub.repositories.items()
            for kind, name in [key.split("/", 1)]
            if kind == plural and words in name.lower() and {*tags} <= {*one.told.get("tags", ())}
        ]
        by = self.query["sort"][0]
        answer.sort(key=lambda one: -one.get(by, 0))
        self._json(answer[: int(self.query["limit"][0])])

    def _check_access(self, repository: Repository) -> None:
        if repository.told.get("gated"):
            raise _Refusal(403, "Access is restricted", "GatedRepo")

    def _revision(self, repository: Repository, name: str) -> str:
        sha = name if name in repository.commits else repository.branches.get(name)
        if sha is None:
            raise _Refusal(404, f"Invalid rev id: {name}", "RevisionNotFound")
        return sha

    def _api(self, repository: Repository, name: str, rest: list[str]) -> None:
        what = rest[0] if rest else "revision"
        if what == "revision":
            sha = self._revision(repository, rest[1] if rest else "main")
            sized = "blobs" in self.query
            siblings = [
                {"rfilename": path, **({"size": len(entry.content)} if sized else {})}
                for path, entry in repository.commits[sha].items()
            ]
            known = {"_id": "1", "id": name, "private": repository.private, "tags": []}
            known |= {"sha": sha, "siblings": siblings, "downloads": 0, "likes": 0}
            self._json(known | repository.told)
        elif what == "auth-check":
            self._check_access(repository)
            self._json({})
        elif what == "tree":
            files = repository.commits[self._revision(repository, rest[1])]
            self._json([_listed(path, entry) for path, entry in files.items()])
        elif what == "refs":
            branches = [
                {"name": b, "ref": f"refs/heads/{b}", "targetCommit": sha}
                for b, sha in repository.branches.items()
            ]
            self._json({"branches": branches, "converts": [], "tags": []})
        elif what == "branch":
            self._check_write(name)
            if rest[1] in repository.branches:
                raise _Refusal(409, "Reference already exists")
            start = self._body().get("startingPoint") or "main"
            repository.branches[rest[1]] = self._revision(repository, start)
            self._json({})
        elif what == "preupload":
            self._preupload(repository, name, rest[1], self._body()["files"])
        elif what == "commit":
            self._commit(repository, name, rest[1], self._read())
        else:
            raise _Refusal(404, f"there is nothing at {self.where}")

    @property
    def _as_pull_request(self) -> bool:
        return bool(self.query.get("create_pr"))

    def _preupload(self, repository: Repository, name: str, branch: str, files: Any) -> None:
        if not self._as_pull_request:
            self._check_write(name)
        there = repository.commits[self._revision(repository, branch)]
        self._json(
            {
                "files": [
                    {
                        "path": one["path"],
                        "uploadMode": "lfs" if one["path"].endswith(_LARGE) else "regular",
                        "shouldIgnore": False,
                        "oid": there[one["path"]].oid if one["path"] in there else None,
                    }
                    for one in files
                ]
            }
        )

    def _batch(self, told: dict[str, Any]) -> None:
        answers = []
        for one in told["objects"]:
            answer = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.the_hub.large:
                upload = {"href": f"{self.the_hub.endpoint}/upload/{one['oid']}?signature=secret"}
                verify = {"href": f"{self.the_hub.endpoint}/verify"}
                answer["actions"] = {"upload": upload, "verify": verify}
            answers.append(answer)
        self._json({"transfer": "basic", "objects": answers})

    def _commit(self, repository: Repository, name: str, branch: str, sent: bytes) -> None:
        if not self._as_pull_request:
            self._check_write(name)
        self._revision(repository, branch)
        title, files = "", {}
        for line in sent.splitlines():
            told = json.loads(line)
            value = told["value"]
            if told["key"] == "header":
                title = value["summary"]
            elif told["key"] == "file":
                files[value["path"]] = Entry(base64.b64decode(value["content"]))
            else:
                assert told["key"] == "lfsFile"
                files[value["path"]] = Entry(self.the_hub.large[value["oid"]], large=True)
        number = sum(one.startswith("refs/pr/") for one in repository.branches) + 1
        to = f"refs/pr/{number}" if self._as_pull_request else branch
        sha = repository.commit(to, files, title, branch)
        home = f"{self.the_hub.endpoint}/{name}"
        told = {"success": True, "commitOid": sha, "commitUrl": f"{home}/commit/{sha}"}
        if self._as_pull_request:
            told["pullRequestUrl"] = f"{home}/discussions/{number}"
        self._json(told)

    def _file(self, repository: Repository, rest: list[str]) -> None:
        self._check_access(repository)
        sha = self._revision(repository, rest[0])
        entry = repository.commits[sha].get("/".join(rest[1:]))
        if entry is None:
            raise _Refusal(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": sha, "ETag": f'"{entry.oid}"', "Accept-Ranges": "bytes"}
        self.send(200, entry.content, headers)

    # -- what goes over the wire

    def _read(self) -> bytes:
        length = int(self.headers.get("Content-Length", 0))
        self.headers.replace_header("Content-Length", "0") if length else None
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            return self._read_chunks()
        return self.rfile.read(length)

    def _read_chunks(self) -> bytes:
        content = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _body(self) -> Any:
        return json.loads(self._read() or b"{}")

    def _json(self, answer: object) -> None:
        self.send(200, json.dumps(answer).encode())


def _listed(path: str, entry: Entry) -> dict[str, Any]:
    told: dict[str, Any] = {"type": "file", "path": path, "size": len(entry.content)}
    told["oid"] = hashlib.sha1(entry.content).hexdigest() if entry.large else entry.oid
    if entry.large:
        told["lfs"] = {"oid": entry.oid, "size": len(entry.content), "pointerSize": 130}
    return told
