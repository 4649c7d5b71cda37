"""The evaluations of a run, as their folders tell. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.jobs.job import read_record
from core.jobs.task import read_result
from core.workspace import RunFolder


@dataclass(frozen=True)
class Report:
    """One evaluation. `result` is run_evaluation's, None until it is finished.

    `state` is the job's. Times are seconds since the epoch.
    """

    id: str
    folder: Path
    state: str
    checkpoint: str
    created_at: float
    result: dict[str, Any] | None = None
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        return str(self.result["verdict"]) if self.result else ""


def list_evaluations(run_folder: Path) -> list[Report]:
    """Every evaluation of a run, newest first."""
    folders = sorted(RunFolder(run_folder).evaluations.glob("[!.]*/"))
    reports = [load_evaluation(folder) for folder in folders]
    return sorted(reports, key=lambda report: report.created_at, reverse=True)


def load_evaluation(folder: Path) -> Report:
    """The evaluation in one folder."""
    record, result = read_record(folder), read_result(folder)
    params = dict(record.get("params") or {})
    checkpoint = result["checkpoint"] if result else params.get("checkpoint")
    return Report(
        id=folder.name,
        folder=folder,
        state=str(record.get("state", "finished" if result else "queued")),
        checkpoint=str(checkpoint or "final"),
        created_at=float(record.get("created_at") or 0.0),
        result=result,
        params=params,
    )
