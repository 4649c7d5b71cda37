"""What is asked of a server before any engine has opened it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.export.format import base_of_run
from core.models.checkpoints import checkpoints
from core.models.location import fetch_model
from core.models.trained import FINAL, TrainedModel, find_trained
from core.progress import Tell
from core.serve.front import ServedModel
from core.serve.settings import ServeSettings
from core.workspace import RunFolder, Workspace


@dataclass(frozen=True)
class Asked:
    """The checkpoints of a run that are to answer, the first before all others, and the folder of
    their base."""

    workspace: Workspace
    settings: ServeSettings
    trained: tuple[TrainedModel, ...]
    base: Path
    tell: Tell

    @property
    def first(self) -> TrainedModel:
        return self.trained[0]

    @property
    def base_name(self) -> str:
        return base_of_run(self.first, str(self.base)).name

    def served(self, trained: TrainedModel) -> ServedModel:
        """A run's checkpoint by the name that other commands know it by, too."""
        name, point = trained.run.root.name, trained.checkpoint
        return ServedModel(name if point == FINAL else f"{name}@{point}", point)


def find_asked(
    workspace: Workspace,
    run: RunFolder,
    names: Sequence[str],
    settings: ServeSettings,
    tell: Tell,
) -> Asked:
    """The checkpoints of these names, or all; the newest first. Their base is fetched if it is not
    here. Raises ModelError where there is none, or no base."""
    names = names or [one.name for one in reversed(checkpoints(run.root))] or [FINAL]
    trained = tuple(find_trained(run, name) for name in names)
    base = fetch_model(trained[0].base, workspace, tell)
    return Asked(workspace, settings, trained, base, tell)
