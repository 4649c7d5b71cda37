"""Waits for a state, never for a time.

There is one limit for all of them. It only ends what hangs: a machine whose cores are all taken may
be thirty times slower than a free one, and that is no fault. What a page shows is waited for by
Playwright's `expect`, whose limit conftest.py sets to the same. A failing test prints what its
fixtures show at that moment (`shown`), so a wait need not say much.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from playwright.sync_api import Error, Page

from core.jobs.store import Store
from core.workspace import Workspace

LIMIT = 300.0  # seconds
_PAUSE = 0.02


def until(condition: Callable[[], Any], saw: Callable[[], Any] | None = None) -> Any:
    """The first true value of `condition`; fails with the last one and what `saw` gives."""
    end = time.monotonic() + LIMIT
    while not (value := condition()):
        if time.monotonic() > end:
            told = f"; saw {saw()}" if saw else ""
            raise AssertionError(f"waited in vain: still {value!r}{told}")
        time.sleep(_PAUSE)
    return value


def end_of(process: subprocess.Popen[str], text: str | None = None) -> tuple[str, str]:
    """Standard output and standard error of a process, which has ended."""
    try:
        out, err = process.communicate(text, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"{process.args} does not end. It wrote\n{out}\n{err}") from None
    return out, err or ""


def shown(thing: Any) -> str:
    """What a page shows, or how the jobs of a workspace stand; "" for anything else."""
    if isinstance(thing, Page):
        return "\n".join(_page(page) for page in thing.context.pages)
    output = getattr(thing, "output", None)
    text = f"its output:\n{output}\n" if isinstance(output, str) else ""
    place = getattr(thing, "workspace", thing)
    root = getattr(place, "root", place)
    if isinstance(root, Path) and (root / "tunesmith.db").exists():
        text += _jobs(root)
    return text


def _page(page: Page) -> str:
    picture = Path(tempfile.mkdtemp(prefix="tunesmith-page-")) / "page.png"
    try:
        page.screenshot(path=picture, timeout=10_000)
        text = page.evaluate("() => document.body.innerText")
    except Error as error:
        return f"{page.url} shows nothing: {error}"
    errors = getattr(page, "errors", [])
    return f"{page.url} (picture: {picture}, errors: {errors})\n{text}"


def _jobs(root: Path) -> str:
    store = Store.open(Workspace.open(root))
    lines = [f"jobs in {root}:"]
    for job in store.list():
        kept = {name: value for name, value in asdict(job).items() if value not in (None, "", {})}
        lines.append(str(kept))
        for name, count in (("events.jsonl", 5), ("worker.log", 20)):
            path = root / job.folder / name
            if path.exists():
                lines += ["  " + line for line in path.read_text("utf-8").splitlines()[-count:]]
    store.close()
    return "\n".join(lines)
