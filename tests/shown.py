"""What the fixtures of a failing test show: its page, its server's output, how its jobs stand."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from playwright.sync_api import Error, Page

from core.jobs.store import Store
from core.workspace import Workspace


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
