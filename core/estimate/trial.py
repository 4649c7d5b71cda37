"""Two steps of a run, tried in a process of its own."""

from __future__ import annotations

from typing import Any

from core.config import RunConfig
from core.jobs.apart import call_apart
from core.progress import Tell
from core.workspace import Workspace


def try_run(workspace: Workspace, config: RunConfig, tell: Tell | None = None) -> dict[str, Any]:
    """Tries two steps of `config` on its longest rows and waits (`core.worker.training.trial_run`).

    `tell` is told what is being done; what it raises ends the trial. Raises a TunesmithError.
    """
    steps = "core.worker.training.trial_run:try_two_steps"
    result: dict[str, Any] = call_apart(steps, str(workspace.root), config.values(), tell=tell)
    return result
