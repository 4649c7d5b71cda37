"""Several files as one data set: the form that fits all, or why they do not belong together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.data.formats import FORMS, ROWS_TO_DETECT, Detection, choose, columns_of, detect
from core.data.formats_detect import used_columns
from core.data.gather import Gathered
from core.data.readers import Record, Row, no_readable_row, read_records
from core.errors import DataError

_LISTED = 3
_LISTED_KINDS = 6
_APART = (
    "Import each kind on its own. Data sets that have the same form then can be put together, also "
    "where their files name the columns differently."
)


@dataclass(frozen=True)
class Head:
    """The first readable rows of a file, by which its form is told."""

    name: str
    rows: list[Row]


def read_heads(
    files: Sequence[Gathered], wanted: int = ROWS_TO_DETECT, seconds: float | None = None
) -> list[Head]:
    """About `wanted` rows from the beginnings of all files, one of each at the least, and no more
    once about `seconds` have passed. Raises DataError when a file has none."""
    share = max(wanted // max(len(files), 1), 1)
    heads = []
    for file in files:
        deadline = time.monotonic() + seconds / len(files) if seconds else None
        rows: list[Row] = []
        broken: Record | None = None
        for record in read_records(file.path):
            if record.row is None:
                broken = broken or record
            else:
                rows.append(record.row)
            late = deadline is not None and time.monotonic() > deadline
            if len(rows) == share or (rows and late):
                break
        if not rows:
            raise no_readable_row(file.path, broken)
        heads.append(Head(file.name, rows))
    return heads


def rows_of(heads: Sequence[Head]) -> list[Row]:
    return [row for head in heads for row in head.rows]


def detect_together(heads: Sequence[Head]) -> Detection:
    """The form of the files' rows; none, with the reason, where no form fits every file."""
    found = detect(rows_of(heads))
    kinds = _kinds(heads)
    if len(kinds) < 2 or (found.form and not _strangers(heads, found)):
        return found
    shown = [_kind_text(names, one, columns) for names, one, columns in kinds[:_LISTED_KINDS]]
    if len(kinds) > _LISTED_KINDS:
        shown.append(f"and {len(kinds) - _LISTED_KINDS} more kinds")
    return Detection(None, f"The files do not belong together: {'; '.join(shown)}.", hint=_APART)


def choose_together(
    heads: Sequence[Head], form: str | None = None, mapping: Mapping[str, str] | None = None
) -> Detection:
    """What was detected, overruled by a person's choice, as `core.data.formats.choose`.

    Raises DataError as that does, and when a file has not one row that could be used.
    """
    if not form and not mapping:
        found = detect_together(heads)
        if found.form is None:
            raise DataError(found.reason, found.hint)
        return found
    found = choose(rows_of(heads), form, mapping)
    strangers = _strangers(heads, found)
    if strangers:
        name, missing = strangers[0]
        others = f" (and {len(strangers) - 1} more)" if len(strangers) > 1 else ""
        raise DataError(
            f"{name}{others} has no column {' or '.join(missing)}, which every row needs here.",
            _APART,
        )
    return found


def _strangers(heads: Sequence[Head], found: Detection) -> list[tuple[str, list[str]]]:
    """The files in which no row can be used, each with the columns that it lacks."""
    needed = used_columns(
        {name: found.mapping[name] for name in FORMS[found.form or ""].required}
    )
    lacking = [(head.name, sorted(needed - set(columns_of(head.rows)))) for head in heads]
    return [(name, missing) for name, missing in lacking if missing] if len(heads) > 1 else []


def _kinds(heads: Sequence[Head]) -> list[tuple[list[str], Detection, list[str]]]:
    """Files that are read in the same way: their names, how, and the columns of the first."""
    kinds: dict[tuple[str, ...], tuple[list[str], Detection, list[str]]] = {}
    for head in heads:
        found, columns = detect(head.rows), columns_of(head.rows)
        how = (found.form or "", *(sorted(used_columns(found.mapping)) or sorted(columns)))
        kinds.setdefault(how, ([], found, columns))[0].append(head.name)
    return list(kinds.values())


def _kind_text(names: list[str], found: Detection, columns: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    shown = ", ".join(columns[:_LISTED_KINDS]) + (", ..." if len(columns) > _LISTED_KINDS else "")
    verb = "is" if len(names) == 1 else "are"
    return f"{', '.join(names[:_LISTED])}{more} {verb} {found.form or 'of no known form'} ({shown})"
