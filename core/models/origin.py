"""What a run has of the run that it began with. No torch: only files.

It lies in the run's own folder, as links where the disk allows it, so that the run can be opened
wherever its folder is and whatever becomes of the other one:

    origin/origin.json   which run and checkpoint, how, and the runs before that one
    origin/base/         what its base is loaded from: a whole model, or a stack
    origin/adapter/      the adapter that it trained further

A stack is a folder with `stack.json` in place of weights: the name of a base and the adapters that
are merged into it each time it is loaded (`core.worker.models.loading`).
`core.runs.origin_files` makes all of this.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from core.errors import ModelError, reason_of
from core.language import _
from core.models.hub import STACK
from core.workspace import RunFolder, Workspace

How = Literal["merge", "stack", "continue", "longer"]


@dataclass(frozen=True)
class Origin:
    """The run that another one began with, and in `before` the ones that it began with in turn,
    the nearest first. `how` is "longer" for a run that went on with the same training."""

    run: str
    name: str
    method: str
    checkpoint: str
    how: How
    before: tuple[Origin, ...] = ()

    def own_fields(self) -> dict[str, str]:
        """What it says of this run alone."""
        return {name: value for name, value in asdict(self).items() if name != "before"}

    @property
    def chain(self) -> tuple[Origin, ...]:
        """This one and those before it."""
        return (self, *self.before)


def read_origin(run: RunFolder) -> Origin | None:
    """What the run began with; None for a run that began with a base model."""
    try:
        values = json.loads((run.origin / "origin.json").read_text(encoding="utf-8"))
        before = tuple(Origin(**{**one, "before": ()}) for one in values.pop("before", []))
        return Origin(**values, before=before)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(
            _(
                "{name} cannot be read: {reason}.",
                name=run.origin / "origin.json",
                reason=reason_of(error),
            ),
            _("Bring the run's folder back from a copy."),
        ) from error


def maker_of(origin: Origin) -> Origin:
    """The run that made what this one began with: those that only went on longer did not."""
    return next((one for one in origin.chain if one.how != "longer"), origin)


def own_base(run: RunFolder) -> Path | None:
    """The folder of the base that the run began with, where that was made by another run."""
    folder = run.origin / "base"
    return folder if folder.is_dir() else None


def own_adapter(run: RunFolder) -> Path | None:
    """The adapter that the run trained further, as it was before."""
    folder = run.origin / "adapter"
    return folder if folder.is_dir() else None


@dataclass(frozen=True)
class Stack:
    """A base with adapters beneath a run.

    `model` names the base, or is a folder within the stack's own. `whole`: it is written out as
    one model before the training. `method` is how the last of the adapters was trained.
    """

    model: str
    adapters: tuple[Path, ...]
    whole: bool
    method: str


def read_stack(folder: str | Path) -> Stack | None:
    """The stack in `folder`; None where there is none."""
    try:
        values = json.loads((Path(folder) / STACK).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    adapters = tuple(Path(folder) / name for name in values["adapters"])
    return Stack(values["model"], adapters, values["whole"], values["method"])


def workspace_of(folder: str | Path) -> Workspace:
    """The workspace that a stack lies in: WORKSPACE/runs/<id>/origin/base."""
    return Workspace.open(Path(folder).resolve().parents[3])
