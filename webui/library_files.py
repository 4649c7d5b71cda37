"""Files that a person takes away: rows as JSON Lines or Parquet, and recipes."""

from __future__ import annotations

import re
import shutil
import time
import uuid
from pathlib import Path
from urllib.parse import quote

from core.data.registry import export_rows, load_dataset_info
from core.data.steps import write_recipe
from core.data.versions import recipe_of
from core.jobs.apart import call_apart
from core.workspace import Workspace
from webui import background, messages

ROWS = {"jsonl": "JSON Lines", "parquet": "Parquet"}
PARTS = {"": "All parts", "train": "To learn", "eval": "Held out"}
_KEPT_SECONDS = 24 * 3600


def write_rows(
    workspace: Workspace, dataset: str, kind: str, part: str, task: background.Task
) -> Path:
    """Writes the rows of a part (all if "") and returns the file. Raises DataError."""
    info = load_dataset_info(workspace, dataset)
    if part:
        info.rows_path(part)
    path = _place(workspace, f"{info.name}{'-' if part else ''}{part}", kind)
    parts = (part,) if part else ()
    call_apart(export_rows, workspace, dataset, path, parts=parts, tell=task.tell)
    return path


def write_recipe_file(workspace: Workspace, dataset: str) -> Path:
    """Writes what makes the same kind of set of another file. Raises DataError."""
    info = load_dataset_info(workspace, dataset)
    path = _place(workspace, f"{info.name}-recipe", "yaml")
    path.write_text(write_recipe(recipe_of(info)), encoding="utf-8")
    return path


def link(path: Path) -> str:
    """A link that saves the file."""
    size = messages.size(path.stat().st_size)
    name = messages.escape(path.name)
    return (
        f'<p class="aside"><a href="gradio_api/file={quote(str(path))}" download="{name}">{name}'
        f"</a> is ready, {size}. It is kept here for a day.</p>"
    )


def _place(workspace: Workspace, name: str, ending: str) -> Path:
    """Where a file lies that the page may serve; what was taken long ago is removed."""
    root = workspace.uploads / "downloads"
    for old in root.glob("*"):
        if time.time() - old.stat().st_mtime > _KEPT_SECONDS:
            shutil.rmtree(old, ignore_errors=True)
    folder = root / uuid.uuid4().hex
    folder.mkdir(parents=True)
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data"
    return folder / f"{plain[:80]}.{ending}"
