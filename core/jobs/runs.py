"""What can be said of runs from their folders and rows: summaries, curves, sizes. Reads only."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from core.jobs.checkpoints import Checkpoint, checkpoints
from core.jobs.curves import CurveReader, Point, curves, downsample
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


@dataclass(frozen=True)
class RunSummary:
    """A run as lists show it. `queue_position` counts from 1, None when it does not wait.

    `resumable` says that it ended early and left a checkpoint.
    """

    job: Job
    folder: RunFolder
    duration_seconds: float
    resumable: bool
    queue_position: int | None

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def state(self) -> str:
        return self.job.state

    @property
    def size_bytes(self) -> int:
        """Counted anew at each access: it walks through the folder."""
        return folder_size_bytes(self.folder.root)


def list_runs(workspace: Workspace, store: Store) -> list[RunSummary]:
    """Every run, newest first."""
    waiting = [job.id for job in store.list(states={QUEUED})]
    return [_summary(workspace, job, waiting) for job in store.list(kind="train")]


def load_run(workspace: Workspace, store: Store, run_id: str) -> RunSummary:
    """One run. Raises JobError when there is none."""
    waiting = [job.id for job in store.list(states={QUEUED})]
    return _summary(workspace, run_job(store, run_id), waiting)


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
        resumable=job.state in RESUMABLE and any(folder.checkpoints.glob("checkpoint-*/")),
        queue_position=waiting.index(job.id) + 1 if job.id in waiting else None,
    )
