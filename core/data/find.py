"""Which rows contain some words: looked for group by group, so that whoever asks can stop, tell
how far it is, or show the first ones at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.data.rowfile import DIGEST


@dataclass(frozen=True)
class Looked:
    """One group of rows that was looked through. `rows` are the places (0 is the first row of the
    file) of those that contain the words; `looked` of `total` rows have been looked at by now."""

    rows: list[int]
    looked: int
    total: int


def find_rows(path: Path, words: str) -> Iterator[Looked]:
    """Looks through a Parquet file of standard rows, upper and lower case alike.

    All texts of a row count: what is said in its turns, calls of tools, labels, and what stands
    beside it in `meta`. Memory holds one group of rows.
    """
    with pq.ParquetFile(path) as file:
        total, start = file.metadata.num_rows, 0
        columns = [name for name in file.schema_arrow.names if name != DIGEST]
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=columns)
            contains = np.zeros(len(table), dtype=bool)
            for column in table.columns:
                contains[_places(column.combine_chunks(), words)] = True
            found = (np.flatnonzero(contains) + start).tolist()
            start += len(table)
            yield Looked(found, start, total)


def _places(column: Any, words: str) -> Any:
    """The places in a column (strings, or lists of strings or structs) that contain the words."""
    if pa.types.is_list(column.type):
        parents = pc.list_parent_indices(column).to_numpy()
        return parents[_places(pc.list_flatten(column), words)]
    if pa.types.is_struct(column.type):
        fields = (pc.struct_field(column, field.name) for field in column.type)
        return np.concatenate([_places(field, words) for field in fields])
    if not pa.types.is_string(column.type):
        return np.empty(0, dtype=np.int64)
    contains = pc.match_substring(column, words, ignore_case=True).fill_null(False)
    return np.flatnonzero(contains.to_numpy(zero_copy_only=False))
