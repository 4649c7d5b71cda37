"""Two steps of a run, tried in a process of its own. No torch here: the page may import this."""

from __future__ import annotations

from typing import Any

from core.config import RunConfig
from core.jobs.apart import call_apart
from core.progress import Tell
from core.workspace import Workspace


def try_run(workspace: Workspace, config: RunConfig, tell: Tell | None = None) -> dict[str, Any]:
    """Tries two steps of `config` on its longest rows and waits; see core.training.trial_run.

    `tell` is told what is being done; what it raises ends the trial. Raises a TunesmithError.
    """
    result: dict[str, Any] = call_apart(two_steps, str(workspace.root), config.values(), tell=tell)
    return result


def two_steps(workspace_root: str, values: dict[str, Any], progress: Tell) -> dict[str, Any]:
    """Runs in the other process."""
    from core.training.trial_run import try_two_steps

    return try_two_steps(workspace_root, values, progress)
