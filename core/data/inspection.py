"""A first look at a source: its format, columns and form, its first rows, and what is wrong; of
several files the form that fits all, or why they do not belong together."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.data.conversion import convert_all, unused_turn_keys
from core.data.detection import ROWS_TO_DETECT, Detection, choose, columns_of, detect
from core.data.forms import FORMS, used_columns
from core.data.read.files import file_encoding, file_format, no_readable_row, read_records
from core.data.read.row import Record, Row
from core.data.read.sources import Gathered, HubSource, Look, Source, as_hub_source, look
from core.data.trees import chained
from core.data.turn_keys import note_keys
from core.data.values import APART, EITHER, joined
from core.errors import DataError
from core.jobs.process import named
from core.language import N_, _, n_
from core.progress import Tell
from core.workspace import Workspace

LISTED_PROBLEMS = 100
_LOOKED_THROUGH_BYTES = 64 * 2**20
_LOOKED_THROUGH_PACKED_BYTES = 12 * 2**20
_LOOKED_THROUGH_SECONDS = 1.0
"""Nobody waits longer for a first look; pages of a PDF take more than their bytes would say."""

_FILES_TO_DETECT = 20
_SAMPLES = 3
_SAMPLE_CHARS = 80


@dataclass(frozen=True)
class SourceReport:
    """What is known of a source before it is imported.

    `form` is a name in `forms.FORMS`, or None when the rows cannot be trained on as they are;
    `form_reason` says why in both cases, `hint` what to do; `warnings` name columns that matter and
    are not used. `rows` are the first rows as they
    are, `samples` a few short values of each column. `problems` lists {"line", "reason", "file"}
    of rows that would be dropped (the first hundred of `problem_count`). `unused_keys` counts the
    turns with a key that is not kept. `total_rows` counts all
    records, broken ones too; it is None, and only the beginning has been looked at, when the
    source is larger than 64 MB (12 MB packed), slow to read, or on the Hub.

    `format` names the kinds of its files (jsonl, csv, ...; "hub"), `container` what they are in
    ("gzip", "zip", "folder", "hub" or nothing), `encoding` that of text files as Python calls it.
    `files` are their names, `skipped` what would be left out of a folder or archive, and why.
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
    unused_keys: dict[str, int] = field(default_factory=dict)
    hint: str = ""
    warnings: list[str] = field(default_factory=list)
    encoding: str = ""
    samples: dict[str, list[str]] = field(default_factory=dict)
    container: str = ""
    files: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def inspect_source(
    path: Source,
    *,
    form: str | None = None,
    mapping: Mapping[str, str] | None = None,
    limit: int = 50,
    workspace: Workspace | None = None,
    progress: Tell | None = None,
    most_bytes: int = _LOOKED_THROUGH_BYTES,
) -> SourceReport:
    """Looks at a file, a folder, a .zip or a Hub data set (`hf:owner/name`) without importing it.

    A Hub data set needs `datasets`: ask for it in a process of its own. With `workspace`, a path
    outside the folders that may be read raises WorkspaceError. `progress` is told once what may
    take a while. Of more than `most_bytes` only the beginning is looked at. Raises DataError for a
    source that cannot be read, and for a form or column that does not fit.
    """
    if progress:
        progress(0.0, _("Looking at {source}", source=str(path)))
    wanted = max(ROWS_TO_DETECT, limit)
    hub = as_hub_source(path)
    if hub:
        return _look_at_hub(hub, form, mapping, wanted, limit)
    with tempfile.TemporaryDirectory(prefix="tunesmith-look-") as scratch:
        looked = look(workspace, Path(str(path)), Path(scratch), most_bytes)
        kinds = {file.path: file_format(file.path) for file in looked.files[:_FILES_TO_DETECT]}
        files = looked.files[:_FILES_TO_DETECT]
        heads = read_heads(files, wanted, _LOOKED_THROUGH_SECONDS, mapping)
        rows = rows_of(heads)
        found = _form_of(heads, form, mapping)
        through = _look_through(looked, kinds, found, wanted, most_bytes)
        encodings = [file_encoding(file, kind) for file, kind in kinds.items()]
    return SourceReport(
        **_described(looked.path, rows, found, limit),
        format=", ".join(dict.fromkeys(kinds.values())),
        total_rows=through.total,
        problems=through.problems,
        problem_count=through.problem_count,
        unused_keys=dict(through.unused.most_common()),
        encoding=", ".join(dict.fromkeys(filter(None, encodings))),
        container=looked.container,
        files=[file.name for file in looked.files],
        skipped=looked.skipped,
    )


def _look_at_hub(
    hub: HubSource,
    form: str | None,
    mapping: Mapping[str, str] | None,
    wanted: int,
    limit: int,
) -> SourceReport:
    first = named("core.worker.hub_rows:first_rows")(hub, wanted)
    numbered = (Record(number, row, "", 0.0) for number, row in enumerate(first, 1))
    records = list(chained(numbered, mapping))
    rows = [record.row for record in records if record.row is not None]
    found = _form_of([Head(str(hub), rows)], form, mapping)
    through = _Through()
    for record in records:
        through.note(str(hub), record, found)
    return SourceReport(
        **_described(Path(str(hub)), rows, found, limit),
        format="hub",
        total_rows=None,
        problems=through.problems,
        problem_count=through.problem_count,
        unused_keys=dict(through.unused.most_common()),
        container="hub",
        files=[str(hub)],
    )


def _form_of(
    heads: Sequence[Head], form: str | None, mapping: Mapping[str, str] | None
) -> Detection:
    return choose_together(heads, form, mapping) if form or mapping else detect_together(heads)


def _described(path: Path, rows: list[Row], found: Detection, limit: int) -> dict[str, Any]:
    columns = columns_of(rows)
    return {
        "path": path,
        "columns": columns,
        "form": found.form,
        "form_reason": found.reason,
        "mapping": dict(found.mapping),
        "forms_possible": list(found.possible),
        "rows": [_shown(row) for row in rows[:limit]],
        "hint": found.hint,
        "warnings": list(found.warnings),
        "samples": {column: _samples(rows, column) for column in columns},
    }


@dataclass
class _Through:
    """What was met while looking through the records. `total` is None when not all were seen."""

    total: int | None = None
    seen: int = 0
    problems: list[dict[str, Any]] = field(default_factory=list)
    problem_count: int = 0
    unused: Counter[str] = field(default_factory=Counter)

    def note(self, name: str, record: Record, found: Detection) -> None:
        self.seen += 1
        reason = record.problem or _reason_to_drop(record.row, found)
        if record.row is not None and found.form and not reason:
            note_keys(self.unused, unused_turn_keys(record.row, found.mapping))
        if reason:
            self.problem_count += 1
            if len(self.problems) < LISTED_PROBLEMS:
                self.problems.append({"line": record.line, "reason": reason, "file": name})


def _look_through(
    looked: Look, kinds: Mapping[Path, str], found: Detection, wanted: int, most_bytes: int
) -> _Through:
    """Counts the records of all files, or looks at the first ones where that takes long."""
    through = _Through()
    most = _LOOKED_THROUGH_PACKED_BYTES if looked.container == "gzip" else most_bytes
    small = looked.whole and looked.size <= most
    deadline = time.monotonic() + _LOOKED_THROUGH_SECONDS
    for file in looked.files:
        for record in chained(read_records(file.path, kinds.get(file.path)), found.mapping):
            through.note(file.name, record, found)
            late = through.seen % 64 == 0 and time.monotonic() > deadline
            if through.seen >= wanted and (late or not small):
                return through
    through.total = through.seen if looked.whole else None
    return through


def _reason_to_drop(row: Row | None, found: Detection) -> str:
    if row is None or found.form is None:
        return ""
    made, reasons, _repeated = convert_all(row, found.form, found.mapping)
    return "" if made else reasons[0]


def _shown(row: Row) -> dict[str, Any]:
    """The row with values that JSON knows: dates, bytes and decimals of Parquet become text."""
    shown: dict[str, Any] = json.loads(json.dumps(row, default=str))
    return shown


def _samples(rows: Sequence[Row], column: str) -> list[str]:
    """A few values of a column that differ, each short enough for a cell."""
    shown: dict[str, None] = {}
    for row in rows:
        value = row.get(column)
        if value is None or value == "" or len(shown) == _SAMPLES:
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        text = " ".join(text[: 4 * _SAMPLE_CHARS].split())
        shown[text if len(text) <= _SAMPLE_CHARS else text[: _SAMPLE_CHARS - 1] + "…"] = None
    return list(shown)


_LISTED = 3
_LISTED_KINDS = 6
_APART = N_(
    "Import each kind on its own. Data sets that have the same form then can be put "
    "together, also where their files name the columns differently."
)


@dataclass(frozen=True)
class Head:
    """The first readable rows of a file, by which its form is told."""

    name: str
    rows: list[Row]


def read_heads(
    files: Sequence[Gathered],
    wanted: int = ROWS_TO_DETECT,
    seconds: float | None = None,
    mapping: Mapping[str, str] | None = None,
) -> list[Head]:
    """About `wanted` rows from the beginnings of all files, one of each at the least, and no more
    once about `seconds` have passed. `mapping` is what a person chose. Raises DataError when a
    file has none."""
    share = max(wanted // max(len(files), 1), 1)
    heads = []
    for file in files:
        deadline = time.monotonic() + seconds / len(files) if seconds else None
        rows: list[Row] = []
        broken: Record | None = None
        for record in chained(read_records(file.path), mapping):
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
        shown.append(_("and {count} more kinds", count=len(kinds) - _LISTED_KINDS))
    told = joined(APART, shown)
    return Detection(
        None, _("The files do not belong together: {kinds}.", kinds=told), hint=_(_APART)
    )


def choose_together(
    heads: Sequence[Head], form: str | None = None, mapping: Mapping[str, str] | None = None
) -> Detection:
    """What was detected, overruled by a person's choice, as `core.data.detection.choose`.

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
        if len(strangers) > 1:
            name = _("{name} (and {more} more)", name=name, more=len(strangers) - 1)
        raise DataError(
            _(
                "{name} has no column {columns}, which every row needs here.",
                name=name,
                columns=joined(EITHER, missing),
            ),
            _(_APART),
        )
    return found


def _strangers(heads: Sequence[Head], found: Detection) -> list[tuple[str, list[str]]]:
    """The files in which no row can be used, each with the columns that it lacks."""
    needed = {name: found.mapping[name] for name in FORMS[found.form or ""].required}
    lacking = []
    for head in heads:
        columns = columns_of(head.rows)
        lacking.append((head.name, sorted(used_columns(needed, columns) - set(columns))))
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
    files = ", ".join(names[:_LISTED])
    if len(names) > _LISTED:
        files = _("{names} and {more} more", names=files, more=len(names) - _LISTED)
    shown = ", ".join(columns[:_LISTED_KINDS]) + (", ..." if len(columns) > _LISTED_KINDS else "")
    if found.form is None:
        return n_(
            "{files} is of no known form ({columns})",
            "{files} are of no known form ({columns})",
            len(names),
            files=files,
            columns=shown,
        )
    return n_(
        "{files} is {form} ({columns})",
        "{files} are {form} ({columns})",
        len(names),
        files=files,
        form=found.form,
        columns=shown,
    )
