"""Tasks of lm-eval, asked for by name: read, and looked up among those that there are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import ModelError, SetupError, WorkspaceError
from core.language import _
from core.setup.extras import EXTRAS, missing
from core.workspace import Workspace

_MOST_NEAR = 5
_LIKE = 0.6


def parse_tasks(text: str) -> list[str]:
    """The names in a text that has commas between them, each once."""
    return list(dict.fromkeys(filter(None, (name.strip() for name in text.split(",")))))


def check_names(names: Iterable[str], known: Sequence[str]) -> None:
    """Raises ModelError for a name that there is not, with those that are near."""
    there = set(known)
    for name in names:
        if name in there:
            continue
        near = near_names(name, known)
        hint = (
            _("Near names: {names}.", names=", ".join(near))
            if near
            else _("Names are those of lm-eval, such as arc_easy, hellaswag, mmlu or gsm8k.")
        )
        raise ModelError(_("lm-eval has no task {name!r}.", name=name), hint)


def near_names(name: str, known: Sequence[str]) -> list[str]:
    """Known names with `name` in them, the shortest first, else those that are spelled like it."""
    wanted = name.lower()
    inside = sorted(
        (one for one in known if wanted in one.lower()), key=lambda one: (len(one), one)
    )
    return inside[:_MOST_NEAR] or difflib.get_close_matches(name, known, _MOST_NEAR, _LIKE)


def check_include(folder: str, workspace: Workspace) -> Path:
    """A folder with YAML tasks of the owner's own. They may run code (`!function`, templates), so
    it is one that the owner opened, and none into which the page writes. Raises WorkspaceError."""
    path = workspace.confine(folder)
    if path.is_relative_to(workspace.root):
        raise WorkspaceError(
            _("{path} lies in the workspace, and tasks may run code.", path=folder),
            _("Put them into a folder of their own, and start with --allow FOLDER."),
        )
    if not path.is_dir() or not any((*path.rglob("*.yaml"), *path.rglob("*.yml"))):
        raise WorkspaceError(
            _("{path} is no folder with tasks: it has no YAML file.", path=folder),
            _("Each task of lm-eval is a YAML file."),
        )
    return path


def check_tasks(params: Mapping[str, Any], workspace: Workspace) -> None:
    """What can be said of the parameters of an evaluation by tasks before lm-eval is loaded. Raises
    TunesmithError."""
    for extra in missing(["lm-eval"]):
        raise SetupError(
            _("{packages} is not installed.", packages=EXTRAS["lm-eval"].title),
            _("Install it with: {command}", command=extra.command),
        )
    if params.get("include"):
        check_include(params["include"], workspace)
    if (params.get("num_fewshot") or 0) < 0:
        raise ModelError(_("num_fewshot is at least 0."), _("Leave it out, or raise it."))
