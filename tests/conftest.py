"""Fixtures that every test file may use."""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, settings
from playwright._impl.assertions import LocatorAssertions, PageAssertions
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Frame,
    Page,
    Request,
    expect,
    sync_playwright,
)

from tests.e2e.serving import Served, cookie
from tests.shown import shown
from tests.waiting import LIMIT

# What is started many times is compiled once, whatever is usual here.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Until all tests are found: what is imported for them stays, and to look for what could go takes a
# third of the time.
gc.disable()
# No test reaches the Hub: what is missing must fail at once, not after a timeout.
os.environ["HF_HUB_OFFLINE"] = "1"
# Whatever the machine speaks.
os.environ["TUNESMITH_LANGUAGE"] = "en"
# Tokenizers warn at every fork otherwise.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Beside other test processes, each with a core of its own, threads would only wait for each other;
# a waiting thread gives its core away.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# Started in the background, a shell has its programs ignore Ctrl-C, and they theirs: what a test
# starts has to hear it as in a terminal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
expect.set_options(timeout=LIMIT * 1000)


def look_often(kind: type[LocatorAssertions] | type[PageAssertions]) -> None:
    """Playwright looks every half second for what it waits for, but every tenth where it may take
    two seconds at most: so for the first two. Pages show thousands of things that take a little."""
    look = kind._call_expect

    async def soon(self: Any, expression: str, options: Any, title: str | None) -> Any:
        found = await look(self, expression, {**options, "timeout": 2000}, title)
        if found["matches"] == options["isNot"]:
            found = await look(self, expression, options, title)
        return found

    kind._call_expect = soon  # type: ignore[method-assign]


look_often(LocatorAssertions)
look_often(PageAssertions)
# An example may take as long as the machine likes.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")
# The address bar's suggestions are pages of the browser's own, made for each of ours though nobody
# sees an address bar: a second's work. The other features are Playwright's, which these replace.
_NO_FEATURES = (
    "WebUIOmniboxPopup,WebUIOmniboxAimPopup,AimEnabled,HttpsUpgrades,LensOverlay,MediaRouter,"
    "OptimizationHints,PreconnectToSearch,NetworkTimeServiceQuerying,DestroyProfileOnBrowserClose,"
    "AvoidUnnecessaryBeforeUnloadCheckSync,ThirdPartyStoragePartitioning"
)
CHROMIUM = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update "
    f"--disable-sync --no-first-run --disable-features={_NO_FEATURES}"
).split()
# What the console may show: Gradio ends its own stream when a page is left, and what was asked for
# in that moment gets no answer,
HARMLESS = ("AbortError: signal is aborted without reason", "Connection errored out")
# and a page that is being left, or whose server a test has ended on purpose (it says so by
# `page.loses_server = True`): the server may forget it before the page itself is gone.
LOST = (
    "net::ERR_",
    "TypeError: Failed to fetch",
    "TypeError: network error",
    "Unexpected error 404: Not Found",
)
# Tells the test of every error that Gradio shows: they go away by themselves, and nobody would see
# that a handler has failed.
_TELL_ERRORS = """
new MutationObserver((changes) => {
  for (const change of changes) for (const node of change.addedNodes) {
    const shown = node.querySelector?.(".toast-body.error");
    // Whoever leaves a page cuts its connection off.
    if (shown && !shown.innerText.includes("Connection to the server was lost"))
      tellError(shown.innerText);
  }
}).observe(document, {childList: true, subtree: true});
"""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """A process a core and one more, since each waits now and then for what it has started, as many
    as fit: one and that (a server, a browser, a worker with torch) hold up to 3 GB."""
    cores = len(psutil.Process().cpu_affinity()) if psutil.LINUX else psutil.cpu_count() or 1
    return max(1, min(cores + 1, psutil.virtual_memory().total // 3_000_000_000))


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with many long tests first: at the end every core has something short to do."""
    long: Counter[Path] = Counter()
    for item in items:
        in_browser = "browser" in getattr(item, "fixturenames", ())
        long[item.path] += in_browser or any(item.iter_markers("slow"))
    items.sort(key=lambda item: -long[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """A test that failed says what its page showed and how its jobs stood."""
    report = yield
    if report.failed and call.when == "call":
        for name, thing in getattr(item, "funcargs", {}).items():
            if text := shown(thing):
                report.sections.append((f"what {name} showed", text))
    return report


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """An empty workspace folder of this test's own."""
    root = tmp_path / "workspace"
    root.mkdir()
    return root


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own of 8 MB, to be filled up."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(["mount", *options], capture_output=True).returncode:
        pytest.skip("only an administrator may make a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of one file: while Playwright is open, no test of another file could use asyncio."""
    # Without the parts that nobody sees, where it is installed: a third of a page's cost less.
    names = ("chromium-headless-shell", "chromium", "chromium-browser")
    path = next(filter(None, map(shutil.which, names)), None)
    assert path, "Chromium is missing: apt-get install chromium-headless-shell"
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=CHROMIUM)


@pytest.fixture
def page(browser: Browser, serve: Callable[..., Served]) -> Iterator[Page]:
    """A page that notes what it asks for elsewhere (`page.foreign`). While it, or another page of
    its context, is used, no handler may fail and the browser's console may show no error. It is
    closed before the servers of `serve` end."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(LIMIT * 1000)
    context.add_cookies([cookie()])
    page = context.new_page()
    page.foreign, page.errors, page.loses_server = [], [], False  # type: ignore[attr-defined]
    errors: list[str] = page.errors  # type: ignore[attr-defined]

    # The main frame is on its way to another page.
    leaving = False

    def note_request(request: Request) -> None:
        nonlocal leaving
        leaving = leaving or request.is_navigation_request()
        if not re.match(r"(http|ws)://127\.0\.0\.1|data:|blob:", request.url):
            page.foreign.append(request.url)  # type: ignore[attr-defined]

    def note_line(line: ConsoleMessage) -> None:
        lost = leaving or page.loses_server  # type: ignore[attr-defined]
        harmless = HARMLESS + LOST if lost else HARMLESS
        if line.type == "error" and not any(text in line.text for text in harmless):
            errors.append(f"console: {line.text} ({line.location['url']})")

    def arrived(_frame: Frame) -> None:
        nonlocal leaving
        leaving = False

    page.on("framenavigated", arrived)
    context.expose_function("tellError", lambda text: errors.append(f"shown: {text}"))
    context.add_init_script(_TELL_ERRORS)
    context.on("request", note_request)
    context.on("console", note_line)
    context.on("weberror", lambda error: errors.append(f"script: {error.error}"))
    yield page
    context.close()
    assert not errors, "\n".join(dict.fromkeys(errors))


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(workspace: Path, *arguments: str, afresh: bool = False) -> Served:
        started.append(Served(workspace, *arguments, afresh=afresh))
        return started[-1]

    yield start
    for served in started:
        served.end()
    for workspace in {served.workspace for served in started}:
        _end_workers(workspace)


def _end_workers(workspace: Path) -> None:
    """What outlives its server, as it should, would take a core from all tests that follow."""
    records = [*workspace.glob("runs/*/job.json"), *workspace.glob("runs/*/*/*/job.json")]
    if not any('"running"' in record.read_text(encoding="utf-8") for record in records):
        return
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and any(
                Path(file.path).is_relative_to(workspace) for file in process.open_files()
            ):
                process.kill()
