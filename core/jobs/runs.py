"""What can be said of runs from their folders and rows: summaries, curves, sizes. Reads only."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.jobs.checkpoints import Checkpoint, checkpoints
from core.jobs.events import Event, EventReader
from core.jobs.store import QUEUED, Job, Store
from core.jobs.submit import RESUMABLE, run_job
from core.workspace import RunFolder, Workspace

__all__ = [
    "Checkpoint",
    "CurveReader",
    "Point",
    "RunSummary",
    "checkpoints",
    "curves",
    "downsample",
    "folder_size_bytes",
    "list_runs",
    "load_run",
]

Point = tuple[int, float]
# Fields of a metrics event that are not curves.
_NOT_CURVES = frozenset({"time", "kind", "step", "epoch", "max_steps"})


@dataclass(frozen=True)
class RunSummary:
    """A run as lists show it. `queue_position` counts from 1, None when it does not wait.

    `resumable` says that it ended early and left a checkpoint.
    """

    job: Job
    folder: RunFolder
    duration_seconds: float
    size_bytes: int
    resumable: bool
    queue_position: int | None

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def state(self) -> str:
        return self.job.state


def list_runs(workspace: Workspace, store: Store) -> list[RunSummary]:
    """Every run, newest first."""
    waiting = [job.id for job in store.list(states={QUEUED})]
    return [_summary(workspace, job, waiting) for job in store.list(kind="train")]


def load_run(workspace: Workspace, store: Store, run_id: str) -> RunSummary:
    """One run. Raises JobError when there is none."""
    waiting = [job.id for job in store.list(states={QUEUED})]
    return _summary(workspace, run_job(store, run_id), waiting)


class CurveReader:
    """The curves of one run, kept up to date by reading only what was added to its events."""

    def __init__(self, events_path: Path) -> None:
        self.curves: dict[str, list[Point]] = {}
        self._reader = EventReader(events_path)

    def update(self) -> bool:
        """Reads what is new; True when a curve has changed."""
        events = self._reader.read_new()
        return any([self.add(event) for event in events])

    def add(self, event: Event) -> bool:
        """Takes one event in; True when a curve has changed.

        A resumed run does the steps after its checkpoint again: what they gave before is dropped.
        """
        if event["kind"] == "state" and isinstance(event.get("resumed_from_step"), int):
            return any([self._drop(name, event["resumed_from_step"]) for name in self.curves])
        step = event.get("step")
        if event["kind"] != "metrics" or not isinstance(step, int):
            return False
        changed = False
        for name, value in event.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if name not in _NOT_CURVES and number:
                self._drop(name, step - 1)
                self.curves.setdefault(name, []).append((step, float(value)))
                changed = True
        return changed

    def _drop(self, name: str, after: int) -> bool:
        """Removes the points after a step."""
        points = self.curves.get(name, [])
        keep = len(points)
        while keep and points[keep - 1][0] > after:
            keep -= 1
        dropped = keep < len(points)
        del points[keep:]
        return dropped


def curves(run_folder: Path) -> dict[str, list[Point]]:
    """Each metric of a run as (step, value), in the order of the steps."""
    reader = CurveReader(RunFolder(run_folder).events)
    reader.update()
    return reader.curves


def downsample(points: Sequence[Point], most: int = 1000) -> list[Point]:
    """At most `most` of the points, with the shape kept.

    The first and the last stay, and of each stretch between them the lowest and the highest: a
    spike is never lost.
    """
    if len(points) <= most or most < 4:
        return list(points)
    inner, stretches = points[1:-1], (most - 2) // 2
    kept: list[Point] = [points[0]]
    for number in range(stretches):
        begin = number * len(inner) // stretches
        end = (number + 1) * len(inner) // stretches
        bucket = inner[begin:end]
        low = min(range(len(bucket)), key=lambda index: bucket[index][1])
        high = max(range(len(bucket)), key=lambda index: bucket[index][1])
        kept += [bucket[index] for index in sorted({low, high})]
    return [*kept, points[-1]]


def folder_size_bytes(folder: Path) -> int:
    """Bytes of all files below `folder`; links are not followed."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue  # a checkpoint was rotated away meanwhile
    return total


def _summary(workspace: Workspace, job: Job, waiting: list[str]) -> RunSummary:
    folder = workspace.run(job.id)
    return RunSummary(
        job=job,
        folder=folder,
        duration_seconds=job.seconds(time.time()),
        size_bytes=folder_size_bytes(folder.root),
        resumable=job.state in RESUMABLE and any(folder.checkpoints.glob("checkpoint-*/")),
        queue_position=waiting.index(job.id) + 1 if job.id in waiting else None,
    )
