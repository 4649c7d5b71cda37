"""The kinds of jobs: one record for each, and nothing else that has to know of it.

What does the work is named by text, so that only a worker imports it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Kind:
    """`target` does the work, as "module:function", called with (folder, workspace_root) and for
    a training also the checkpoint to resume from; it returns "finished" or "stopped".

    `room` says which of a device's slots it takes. `folder` is where in its run's folder the
    folders of such jobs lie, empty for the run itself. `way_on` tells, from the folder of a job
    that died, what to do now.
    """

    name: str
    target: str
    room: Literal["train", "short"]
    folder: str = ""
    way_on: str = ""


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "train",
            "core.training.run:run_training",
            "train",
            way_on="core.models.checkpoints:way_on",
        ),
        Kind("evaluate", "core.evaluation.run:run_evaluation", "short", "evaluations"),
        Kind("export", "core.export.run:run_export", "short", "exports"),
    )
}


def named(target: str) -> Callable[..., Any]:
    """The function that "module:function" names."""
    module, _, name = target.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function
