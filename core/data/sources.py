"""A first look at a file: its format, columns and form, its first rows, and what is wrong in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from core.data.conversion import Unusable, convert
from core.data.formats import ROWS_TO_DETECT, Detection, choose, columns_of, detect
from core.data.readers import Row, file_format, no_readable_row, read_records
from core.errors import DataError
from core.workspace import Workspace

LISTED_PROBLEMS = 100
_LOOKED_THROUGH_BYTES = 64 * 2**20


@dataclass(frozen=True)
class SourceReport:
    """What is known of a file before it is imported.

    `form` is a name in `formats.FORMS`, or None when the rows cannot be trained on as they are;
    `form_reason` says why in both cases, `hint` what to do. `rows` are the first rows as they
    are. `problems` lists {"line", "reason"} of rows that would be dropped (the first hundred of
    `problem_count`). `total_rows` counts all records, broken ones too; it is None, and only the
    beginning has been looked at, when the file is larger than 64 MB.
    """

    path: Path
    format: str
    columns: list[str]
    form: str | None
    form_reason: str
    mapping: dict[str, str]
    forms_possible: list[str]
    rows: list[dict[str, Any]]
    total_rows: int | None
    problems: list[dict[str, Any]] = field(default_factory=list)
    problem_count: int = 0
    hint: str = ""


def inspect_source(
    path: str | Path,
    *,
    form: str | None = None,
    mapping: Mapping[str, str] | None = None,
    limit: int = 50,
    workspace: Workspace | None = None,
) -> SourceReport:
    """Looks at a file without importing it.

    With `workspace`, a path outside the folders that may be read raises WorkspaceError. Raises
    DataError for a file that cannot be read, and for a form or column that does not fit.
    """
    path = workspace.confine(path) if workspace else Path(path)
    if not path.is_file():
        raise DataError(f"{path} is not a file.", "Choose a file.")
    kind = file_format(path)
    records = read_records(path, kind)
    head = list(islice(records, max(ROWS_TO_DETECT, limit)))
    first = [record.row for record in head if record.row is not None]
    if not first:
        raise no_readable_row(path, head[0] if head else None)
    found = choose(first, form, mapping) if form or mapping else detect(first)
    looks_at_all = path.stat().st_size <= _LOOKED_THROUGH_BYTES
    problems: list[dict[str, Any]] = []
    total = problem_count = 0
    for record in chain(head, records if looks_at_all else ()):
        total += 1
        reason = record.problem or _reason_to_drop(record.row, found)
        if reason:
            problem_count += 1
            if len(problems) < LISTED_PROBLEMS:
                problems.append({"line": record.line, "reason": reason})
    return SourceReport(
        path=path,
        format=kind,
        columns=columns_of(first),
        form=found.form,
        form_reason=found.reason,
        mapping=dict(found.mapping),
        forms_possible=list(found.possible),
        rows=[_shown(row) for row in first[:limit]],
        total_rows=total if looks_at_all else None,
        problems=problems,
        problem_count=problem_count,
        hint=found.hint,
    )


def _reason_to_drop(row: Row | None, found: Detection) -> str:
    if row is None or found.form is None:
        return ""
    try:
        convert(row, found.form, found.mapping)
    except Unusable as error:
        return str(error)
    return ""


def _shown(row: Row) -> dict[str, Any]:
    """The row with values that JSON knows: dates, bytes and decimals of Parquet become text."""
    shown: dict[str, Any] = json.loads(json.dumps(row, default=str))
    return shown
