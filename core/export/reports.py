"""The exports of a run, as their folders tell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.jobs.job import read_record
from core.jobs.task import read_result
from core.workspace import RunFolder


@dataclass(frozen=True)
class Export:
    """One export. `path`, `zip`, `size_bytes` and `checks` are there once it is finished.

    `state` is the job's. Times are seconds since the epoch. `checks` have name, ok and detail.
    """

    id: str
    folder: Path
    state: str
    format: str
    checkpoint: str
    created_at: float
    path: Path | None = None
    zip: Path | None = None
    size_bytes: int = 0
    checks: tuple[dict[str, Any], ...] = ()


def list_exports(run_folder: Path) -> list[Export]:
    """Every export of a run, newest first."""
    folders = RunFolder(run_folder).exports.glob("[!.]*/")
    found = [load_export(folder) for folder in folders]
    return sorted(found, key=lambda export: (export.created_at, export.id), reverse=True)


def load_export(folder: Path) -> Export:
    """The export in one folder."""
    record, result = read_record(folder), read_result(folder) or {}
    params = dict(record.get("params") or {})

    def place(key: str) -> Path | None:
        # Only the name counts: a result that was tampered with must not lead elsewhere.
        path = folder / Path(str(result[key])).name if result.get(key) else None
        return path if path is not None and path.exists() else None

    return Export(
        id=folder.name,
        folder=folder,
        state=str(record.get("state", "finished" if result else "queued")),
        format=str(result.get("format") or params.get("format") or ""),
        checkpoint=str(result.get("checkpoint") or params.get("checkpoint") or "final"),
        created_at=float(record.get("created_at") or 0.0),
        path=place("path"),
        zip=place("zip"),
        size_bytes=int(result.get("size_bytes") or 0),
        checks=tuple(result.get("checks") or ()),
    )
