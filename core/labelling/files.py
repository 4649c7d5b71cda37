"""A file of texts to be labelled: which of its columns holds them, and what else its rows have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from core.config import RunConfig
from core.data.detection import ROWS_TO_DETECT, columns_of, guess_mapping
from core.data.read.files import no_readable_row, read_records
from core.data.read.row import Record, Row
from core.data.registry import load_dataset_info
from core.errors import DataError, TunesmithError
from core.language import _
from core.workspace import Workspace


def columns_learned(workspace: Workspace, config: RunConfig) -> dict[str, str]:
    """The mapping of the data set that a run learned from, if it is still there."""
    try:
        return load_dataset_info(workspace, config.data.dataset).mapping
    except TunesmithError:
        return {}


def text_column(file: Path, learned: Mapping[str, str]) -> str:
    """The column of a file that holds its texts: the one that `learned`, the mapping of the data
    set that the model learned from, names; else what an import would take, or the only one of
    texts. Looks at the first rows. Raises DataError where there is none."""
    rows: list[Row] = []
    broken: Record | None = None
    for record in islice(read_records(file), ROWS_TO_DETECT):
        if record.row is None:
            broken = broken or record
        else:
            rows.append(record.row)
    if not rows:
        raise no_readable_row(file, broken)
    names = columns_of(rows)
    for name in (learned.get("text"), "text", guess_mapping(rows, "text").get("text")):
        if name in names:
            return str(name)
    texts = [name for name in names if any(_is_text(row.get(name)) for row in rows)]
    if len(texts) != 1:
        raise DataError(
            _(
                "Which column of {file} holds the texts? It has {columns}.",
                file=file.name,
                columns=", ".join(names),
            ),
            _("Call it {name}.", name="text"),
        )
    return texts[0]


def _is_text(value: Any) -> bool:
    """CSV gives numbers as text, too."""
    return isinstance(value, str) and not re.fullmatch(r"[\s\d.,:/+-]*", value)


def read_texts(file: Path, learned: Mapping[str, str]) -> tuple[list[tuple[str, Row]], int]:
    """(each text with its row's other columns, how many rows have no text that can be read)."""
    column = text_column(file, learned)
    found, left_out = [], 0
    for record in read_records(file):
        text = record.row.get(column) if record.row is not None else None
        if record.row is None or text is None or not str(text).strip():
            left_out += 1
        else:
            others = {name: value for name, value in record.row.items() if name != column}
            found.append((str(text), others))
    return found, left_out
