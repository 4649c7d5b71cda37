"""The exports of a run, as their folders tell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.export.combine import Combination, parse_combination
from core.jobs.job import read_record
from core.jobs.task import read_result
from core.workspace import RunFolder


@dataclass(frozen=True)
class Measured:
    """One model in an export: the file `file`, or all of its folder. `precision` is a name of
    core.export.precision; `perplexity` is on held-out rows, None for what does not write, and
    `fields_right` the share of right fields in answers to some of them, None where the rows have no
    JSON. With `error` it was not what was trained, and is not there any more."""

    file: str
    precision: str
    size_bytes: int = 0
    load_seconds: float = 0.0
    tokens_per_second: float | None = None
    perplexity: float | None = None
    fields_right: float | None = None
    checks: tuple[dict[str, Any], ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Export:
    """One export. All from `path` on is there once it is finished; exports of before have no
    `parts`.

    `state` is the job's. Times are seconds since the epoch. `checks` have name, ok and detail.
    `perplexity` and `base_perplexity` are the trained model's and its base's on the rows on which
    the parts were measured. `combination` says whose adapters were taken in.
    """

    id: str
    folder: Path
    state: str
    format: str
    checkpoint: str
    created_at: float
    path: Path | None = None
    size_bytes: int = 0
    checks: tuple[dict[str, Any], ...] = ()
    parts: tuple[Measured, ...] = ()
    perplexity: float | None = None
    base_perplexity: float | None = None
    combination: Combination | None = None


def list_exports(run_folder: Path) -> list[Export]:
    """Every export of a run, newest first."""
    folders = RunFolder(run_folder).exports.glob("[!.]*/")
    found = [load_export(folder) for folder in folders]
    return sorted(found, key=lambda export: (export.created_at, export.id), reverse=True)


def load_export(folder: Path) -> Export:
    """The export in one folder."""
    record, result = read_record(folder), read_result(folder) or {}
    params = dict(record.get("params") or {})
    # Only the name counts: a result that was tampered with must not lead elsewhere.
    path = folder / Path(str(result.get("path") or "")).name
    return Export(
        id=folder.name,
        folder=folder,
        state=str(record.get("state", "finished" if result else "queued")),
        format=str(result.get("format") or params.get("format") or ""),
        checkpoint=str(result.get("checkpoint") or params.get("checkpoint") or "final"),
        created_at=float(record.get("created_at") or 0.0),
        path=path if path != folder and path.is_dir() else None,
        size_bytes=int(result.get("size_bytes") or 0),
        checks=tuple(result.get("checks") or ()),
        parts=tuple(Measured(**one) for one in result.get("parts") or ()),
        perplexity=result.get("perplexity"),
        base_perplexity=result.get("base_perplexity"),
        combination=parse_combination(result.get("combination")),
    )
