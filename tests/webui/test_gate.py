"""Attacks on a real server: what another site, another user of the machine and a stranger on the
network can do. What must not happen is that they read, upload, train or delete anything."""

from __future__ import annotations

import contextlib
import io
import json
import re
import stat
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from gradio_client import Client
from gradio_client.exceptions import AuthenticationError

from core.workspace import Workspace
from tests.e2e.serving import AS_PROGRAM, TOKEN, Served, cookie
from tests.waiting import LIMIT, until

EVIL = "http://evil.example"
KEPT = {cookie()["name"]: cookie()["value"]}
# Everything that answers something: Gradio's, ours, and what is not there.
PLACES = (
    *("/", "/config", "/gradio_api/info", "/gradio_api/app_id", "/gradio_api/user", "/theme.css"),
    *("/gradio_api/startup-events", "/gradio_api/heartbeat/x", "/gradio_api/token", "/assets/x.js"),
    *("/gradio_api/queue/data?session_hash=x", "/gradio_api/file=/etc/passwd", "/robots.txt"),
    *("/gradio_api/openapi.json", "/gradio_api/upload_progress?upload_id=x", "/manifest.json"),
    *("/gradio_api/call/runs/x", "/tunesmith/page.js", "/tunesmith/alive", "/monitoring/x"),
    *("/tunesmith/exports/a/b", "/static/img/logo.svg", "/docs", "/openapi.json", "/nothing"),
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = Served(tmp_path_factory.mktemp("gate") / "workspace", "--port", "8300", afresh=True)
    yield server
    server.end()


@pytest.fixture
def program(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.address, headers=AS_PROGRAM, timeout=LIMIT) as client:
        yield client


@pytest.fixture
def stranger(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.address, timeout=LIMIT) as client:
        yield client


def upload(client: httpx.Client, **headers: str) -> httpx.Response:
    files = {"files": ("rows.jsonl", b'{"prompt": "a", "completion": "b"}\n')}
    return client.post("/gradio_api/upload", files=files, headers=headers)


def call(client: httpx.Client, **headers: str) -> httpx.Response:
    return client.post("/gradio_api/call/runs", json={"data": []}, headers=headers)


def test_a_site_whose_name_points_to_this_machine_gets_nothing(program: httpx.Client) -> None:
    """DNS rebinding: for the browser that page is of the same origin, and nothing but the Host
    tells it from ours. It has started a training once."""
    for host in ("evil.example", "evil.example:8300", "127.0.0.1.evil.example", "", "8.8.8.8"):
        for answer in (
            program.get("/", headers={"Host": host}),
            upload(program, Host=host),
            call(program, Host=host, Origin=f"http://{host}"),
        ):
            assert answer.status_code in (400, 403), host
    for host in ("127.0.0.1:8300", "localhost:8300", "[::1]:8300", "localhost"):
        assert program.get("/", headers={"Host": host}).status_code == 200, host


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8888"},
        {"Origin": "http://127.0.0.1:8300.evil.example"},
        {"Referer": f"{EVIL}/page"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "same-origin", "Origin": EVIL},
    ],
    ids=str,
)
def test_another_site_can_neither_upload_nor_call(
    served: Served, program: httpx.Client, headers: dict[str, str]
) -> None:
    """The browser would send the cookie along: only where it comes from tells."""
    before = sorted(Workspace.open(served.workspace).uploads.rglob("*"))
    with httpx.Client(base_url=served.address, cookies=KEPT, timeout=LIMIT) as browser:
        for client in (browser, program):
            for answer in (
                upload(client, **headers),
                call(client, **headers),
                client.get("/config", headers=headers),
            ):
                assert answer.status_code == 403
                assert "access-control-allow-origin" not in answer.headers
    assert sorted(Workspace.open(served.workspace).uploads.rglob("*")) == before


def test_another_site_may_link_to_the_page_but_not_frame_it(served: Served) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    with httpx.Client(base_url=served.address, cookies=KEPT, timeout=LIMIT) as browser:
        followed = browser.get("/", headers={**link, "Sec-Fetch-Dest": "document"})
        framed = browser.get("/", headers={**link, "Sec-Fetch-Dest": "iframe"})
        own = call(browser, Origin=served.address, **{"Sec-Fetch-Site": "same-origin"})
    assert (followed.status_code, framed.status_code, own.status_code) == (200, 403, 200)
    assert followed.headers["x-frame-options"] == "SAMEORIGIN"


def test_the_browser_s_question_before_a_foreign_call_is_answered_no(program: httpx.Client) -> None:
    asked = {"Origin": EVIL, "Access-Control-Request-Method": "POST"}
    answer = program.options("/gradio_api/call/train", headers=asked)
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("place", PLACES)
def test_without_the_token_nothing_is_reached(stranger: httpx.Client, place: str) -> None:
    """Another user of the same machine reaches 127.0.0.1 as its owner does."""
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"X-Tunesmith-Token": TOKEN[:-1]},
        {"Cookie": f"{cookie()['name']}={TOKEN}"},
    ):
        assert stranger.get(place, headers=headers).status_code == 403
    assert stranger.post(place).status_code == stranger.head(place).status_code == 403


def test_without_the_token_a_person_reads_what_to_do(stranger: httpx.Client) -> None:
    answer = stranger.get("/", headers={"Accept": "text/html"})
    assert answer.status_code == 403 and "server.json" in answer.text and TOKEN not in answer.text
    assert "not the one" in stranger.get("/?token=wrong", headers={"Accept": "text/html"}).text
    assert "Authorization: Bearer" in stranger.get("/config").json()["detail"]


def test_who_has_no_token_is_told_in_the_browser_s_language(stranger: httpx.Client) -> None:
    headers = {"Accept": "text/html", "Accept-Language": "zh-CN,zh;q=0.9"}
    answer = stranger.get("/", headers=headers)
    assert '<html lang="zh-CN">' in answer.text and "{language}" not in answer.text


def test_the_printed_address_opens_the_page_and_leaves_no_token_behind(
    served: Served, stranger: httpx.Client
) -> None:
    assert f"{served.address}/?token={TOKEN}" in served.output
    answer = stranger.get(f"/?tab=data&token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "./?tab=data")
    kept = answer.headers["set-cookie"]
    assert "HttpOnly" in kept and "samesite=lax" in kept.lower() and TOKEN not in kept
    assert stranger.get("/?tab=data").status_code == 200
    # Only the page itself is opened so: a link to anything else would leave the token in logs.
    with httpx.Client(base_url=served.address, timeout=LIMIT) as other:
        assert other.get(f"/config?token={TOKEN}").status_code == 403


def test_a_program_brings_the_token_as_a_header(served: Served) -> None:
    for headers in (AS_PROGRAM, {"X-Tunesmith-Token": TOKEN}):
        client = Client(served.address, headers=headers, verbose=False)
        assert client.predict(api_name="/runs") == []


def test_the_token_is_in_no_process_list_and_no_file_of_others(served: Served) -> None:
    process = psutil.Process(served.process.pid)
    for one in (process, *process.children(recursive=True)):
        assert TOKEN not in " ".join(one.cmdline())
        assert one.pid == process.pid or TOKEN not in str(one.environ())
    root = served.workspace
    told = json.loads((root / "server.json").read_text())
    assert told["open"] == f"{served.address}/?token={TOKEN}"
    holding = [path for path in root.rglob("*") if path.is_file() and TOKEN in _text(path)]
    assert holding == [root / "server.json"]


def _text(path: Path) -> str:
    return path.read_bytes().decode(errors="replace")


def test_the_workspace_is_its_owner_s_alone(served: Served, program: httpx.Client) -> None:
    assert upload(program).status_code == 200
    for path in (served.workspace, *served.workspace.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_page_that_a_run_brought_along_is_never_shown_as_ours(
    served: Served, program: httpx.Client
) -> None:
    """A model's folder from elsewhere may hold a script, which would act with the page's rights."""
    for place in ("runs/r/adapter/x.html", "uploads/a/x.html", "uploads/a/x.svg"):
        path = served.workspace / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("<script>alert(1)</script>")
        answer = program.get(f"/gradio_api/file={path}")
        if place.startswith("runs"):
            assert answer.status_code == 403
        else:
            assert answer.headers["content-disposition"].startswith("attachment")
            assert answer.headers["x-content-type-options"] == "nosniff"
    for name in ("token", "server.json", "tunesmith.db"):
        assert program.get(f"/gradio_api/file={served.workspace / name}").status_code == 403


def test_an_export_is_saved_and_nothing_beside_it(served: Served, program: httpx.Client) -> None:
    folder = served.workspace / "runs" / "a-run" / "exports" / "an-export"
    folder.mkdir(parents=True)
    (folder / "model").mkdir()
    (folder / "model" / "README.md").write_text("A model.")
    (folder / "secret").write_text("no")
    (folder / "result.json").write_text(json.dumps({"path": "../../model", "format": "adapter"}))
    answer = program.get("/tunesmith/exports/a-run/an-export")
    assert answer.status_code == 200
    assert zipfile.ZipFile(io.BytesIO(answer.content)).namelist() == ["model/README.md"]
    assert "model.zip" in answer.headers["content-disposition"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    for place in ("a-run/other", "..%2F..%2F/an-export", "a-run/..%2Fan-export", "../a-run/x"):
        assert program.get(f"/tunesmith/exports/{place}").status_code == 404, place


def test_without_a_token_on_purpose_another_site_still_gets_nothing(tmp_path: Path) -> None:
    server = Served(tmp_path / "workspace", "--port", "8320", "--no-token")
    try:
        assert "token" not in server.output
        assert httpx.get(f"{server.address}/config", timeout=LIMIT).status_code == 200
        for headers in ({"Origin": EVIL}, {"Host": "evil.example"}):
            answer = httpx.get(f"{server.address}/config", headers=headers, timeout=LIMIT)
            assert answer.status_code == 403
    finally:
        server.end()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server for others: a password, every address of the machine, a proxy with a path."""
    server = Served(
        tmp_path_factory.mktemp("shared") / "workspace",
        *("--port", "8340", "--host", "0.0.0.0", "--auth", "ada:secret word"),
        *("--root-path", "/tunesmith", "--allow-host", "box.example"),
    )
    server.address = server.address.replace("localhost", "127.0.0.1")
    yield server
    server.end()


def log_in(client: httpx.Client, password: str, **headers: str) -> httpx.Response:
    form = {"username": "ada", "password": password}
    return client.post("/login", data=form, headers=headers)


@pytest.mark.parametrize("place", PLACES)
def test_without_the_password_only_the_login_is_reached(shared: Served, place: str) -> None:
    for base in (shared.address, f"{shared.address}/tunesmith"):
        for headers in ({}, AS_PROGRAM):
            answer = httpx.get(f"{base}{place}", headers=headers, timeout=LIMIT)
            assert answer.status_code == 401
    assert "token" not in shared.output


def test_the_password_opens_the_page_where_it_was_asked_for(shared: Served) -> None:
    with httpx.Client(base_url=shared.address, timeout=LIMIT) as client:
        page = client.get("/?tab=data&x=%22%3E", headers={"Accept": "text/html"})
        assert 'value="tab=data&amp;x=%22%3E"' in page.text
        form = {"username": "ada", "password": "secret word", "then": "tab=data"}
        answer = client.post("/login", data=form, headers={"Accept": "text/html"})
        assert (answer.status_code, answer.headers["location"]) == (303, "./?tab=data")
        kept = answer.headers["set-cookie"].lower()
        assert "httponly" in kept and "samesite=lax" in kept and "path=/tunesmith" in kept
        (value,) = answer.cookies.values()
        name = next(iter(answer.cookies))
        inside = {"Cookie": f"{name}={value}"}
        assert client.get("/", headers=inside).status_code == 200
        for headers in ({"Origin": EVIL}, {"Origin": "http://box.example:81"}):
            refused = client.get("/config", headers={**inside, **headers, "Host": "box.example"})
            assert refused.status_code == 403
            assert not [name for name in refused.headers if name.startswith("access-control")]
        own = {"Origin": "https://box.example", "Host": "box.example"}
        assert client.get("/config", headers={**inside, **own}).status_code == 200
        assert client.get("/", headers={**inside, "Host": "evil.example"}).status_code == 403
        away = client.get("/logout", headers=inside)
        assert away.status_code == 303 and "max-age=0" in away.headers["set-cookie"].lower()


@pytest.mark.parametrize("left_on", [False, True])
def test_behind_a_proxy_that_takes_its_path_off_the_page_has_all_its_files(
    shared: Served, left_on: bool
) -> None:
    """The path was /tunesmith, and so were the page's own files: it came up without its script."""
    below = "/tunesmith" if left_on else ""
    with httpx.Client(base_url=f"{shared.address}{below}", timeout=LIMIT) as client:
        token = log_in(client, "secret word").headers["set-cookie"].partition(";")[0]
        inside = {"Cookie": token, "Host": "box.example"}
        page = client.get("/", headers=inside).text
        assert '"root":"http://box.example/tunesmith"' in page
        for name in ("page.js", "page.css", "logo.svg", "plotly.js", "alive"):
            assert client.get(f"/tunesmith/{name}", headers=inside).is_success, name
        first = re.findall(r'href="(assets/[^"]+)"', page)[0]
        assert "immutable" in client.get(f"/{first}", headers=inside).headers["cache-control"]
        assert client.get("/gradio_api/info", headers=inside).status_code == 200


def test_a_program_logs_in_with_the_password(shared: Served) -> None:
    address = f"{shared.address}/tunesmith"
    client = Client(address, auth=("ada", "secret word"), verbose=False)
    assert client.predict(api_name="/runs") == []


def test_each_wrong_password_takes_longer_than_the_one_before(shared: Served) -> None:
    """Guessing without a pause tries a list of passwords in minutes; so does guessing at once."""
    with pytest.raises(AuthenticationError):
        Client(f"{shared.address}/tunesmith", auth=("ada", "wrong"), verbose=False)
    took: list[float] = []
    with httpx.Client(base_url=shared.address, timeout=LIMIT) as client:
        for _ in range(3):
            begun = time.monotonic()
            answer = log_in(client, "wrong", Accept="text/html")
            assert answer.status_code == 401 and "is wrong" in answer.text
            took.append(time.monotonic() - begun)
    # At least so long: how much longer is the machine's affair.
    assert took[0] > 0.9 and took[1] > 1.9 and took[2] > 3.9
    codes: list[int] = []

    def guess(number: int) -> None:
        ended = contextlib.suppress(httpx.HTTPError)  # those that wait still when the test ends
        with ended, httpx.Client(base_url=shared.address, timeout=LIMIT) as client:
            codes.append(log_in(client, f"guess {number}").status_code)

    threads: list[Any] = [threading.Thread(target=guess, args=(n,), daemon=True) for n in range(12)]
    for thread in threads:
        thread.start()
    until(lambda: codes.count(429) >= 4, lambda: codes)
