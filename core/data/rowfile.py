"""Standard rows on disk: Parquet written in pieces, read by position, looked through for words,
fingerprinted by content."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.data.read.row import Row

DIGEST = "_digest"
"""The column for the beginning of the SHA-256 of what a row teaches."""

META = "meta"
"""The column for what a row carries beside its form: a JSON object of plain values."""

ROWS_A_GROUP = 1000
"""Rows that are compressed together: small, so that any row is found in milliseconds."""

_MAX_CHARS_A_GROUP = 32 * 2**20
_DIGEST_BYTES = 16
_PLACE = "_place"
_SHUFFLED_AT_ONCE = 100_000

_TURN_KEYS = ("role", "content", "tool_calls", "tool_call_id", "name", "reasoning_content")
_TURNS = pa.list_(
    pa.struct([*((key, pa.string()) for key in _TURN_KEYS), ("weight", pa.float64())])
)
_TEXT = pa.string()
_COLUMNS: dict[str, dict[str, Any]] = {
    "text": {"text": _TEXT},
    "prompt-completion": {"prompt": _TURNS, "completion": _TURNS, "tools": _TEXT},
    "messages": {"messages": _TURNS, "tools": _TEXT},
    "preference": {"prompt": _TURNS, "chosen": _TURNS, "rejected": _TURNS, "tools": _TEXT},
    "unpaired-preference": {
        "prompt": _TURNS,
        "completion": _TURNS,
        "label": pa.bool_(),
        "tools": _TEXT,
    },
    "prompt-only": {"prompt": _TURNS, "answer": _TEXT, "tools": _TEXT},
    "labelled-text": {"text": _TEXT, "labels": pa.list_(_TEXT)},
}
SCHEMAS: dict[str, Any] = {
    form: pa.schema([*columns.items(), (META, _TEXT)]) for form, columns in _COLUMNS.items()
}


class RowWriter:
    """Writes rows of one standard form; memory holds one group of them."""

    def __init__(self, path: Path, form: str) -> None:
        schema = SCHEMAS[form]
        self._columns = [name for name in schema.names if name != META]
        self._schema = schema.append(pa.field(DIGEST, pa.binary(_DIGEST_BYTES)))
        self._file = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._waiting: list[Row] = []
        self._waiting_chars = 0
        self.count = 0

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._flush()
        finally:
            self._file.close()

    def add(self, row: Row) -> bytes:
        """Writes a row: the columns of its form, and `meta` as a dict of plain values.

        Returns its digest: two rows with the same one teach the same.
        """
        stored = {name: row[name] for name in self._columns if row.get(name) is not None}
        # What stands beside a row is not learned, so it does not make another data set of it.
        text = orjson.dumps(stored, option=orjson.OPT_SORT_KEYS)
        digest = hashlib.sha256(text).digest()[:_DIGEST_BYTES]
        self.count += 1
        self._waiting_chars += len(text)
        if row.get(META):
            meta = orjson.dumps(row[META])
            stored[META] = meta.decode()
            self._waiting_chars += len(meta)
        stored[DIGEST] = digest
        self._waiting.append(stored)
        if len(self._waiting) >= ROWS_A_GROUP or self._waiting_chars > _MAX_CHARS_A_GROUP:
            self._flush()
        return digest

    def _flush(self) -> None:
        if self._waiting:
            self._file.write_table(pa.Table.from_pylist(self._waiting, schema=self._schema))
        self._waiting, self._waiting_chars = [], 0


class TableWriter:
    """Writes pieces of tables as they are, gathered to whole groups; the file comes with the
    first of them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None
        self._waiting: list[Any] = []
        self._rows = 0
        self.count = 0

    def add(self, table: Any) -> None:
        if not len(table):
            return
        self._waiting.append(table)
        self._rows += len(table)
        self.count += len(table)
        if self._rows >= ROWS_A_GROUP:
            self._flush()

    def close(self) -> None:
        try:
            self._flush()
        finally:
            if self._file is not None:
                self._file.close()

    def _flush(self) -> None:
        if self._waiting:
            table = pa.concat_tables(self._waiting)
            if self._file is None:
                self._file = pq.ParquetWriter(self._path, table.schema, compression="zstd")
            self._file.write_table(table, row_group_size=ROWS_A_GROUP)
        self._waiting, self._rows = [], 0


def count_rows(path: Path) -> int:
    return int(pq.read_metadata(path).num_rows)


def tables(path: Path) -> Iterator[Any]:
    """The row groups of a file, one after the other."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)


def reorder(source: Path, order: Any, target: Path, at_once: int = _SHUFFLED_AT_ONCE) -> None:
    """Copies the rows of `source` to `target` so that row `order[i]` becomes row i; `order` has
    the number of each row once.

    Rows go through files of their own for each stretch of `at_once` rows of the target: memory
    holds one of them.
    """
    place = np.empty(len(order), np.int64)
    place[np.asarray(order, np.int64)] = np.arange(len(order))
    names = [target.with_suffix(f".{n}.part") for n in range(len(order) // at_once + 1)]
    stretches = [TableWriter(name) for name in names]
    start = 0
    for table in tables(source):
        places = place[start : start + len(table)]
        start += len(table)
        numbered = table.append_column(_PLACE, pa.array(places))
        for number in np.unique(places // at_once):
            stretches[number].add(numbered.filter(pa.array(places // at_once == number)))
    writer = TableWriter(target)
    for stretch, name in zip(stretches, names, strict=True):
        stretch.close()
        if stretch.count:
            writer.add(pq.read_table(name).sort_by(_PLACE).drop_columns([_PLACE]))
            name.unlink()
    writer.close()


def fingerprint(form: str, parts: Sequence[tuple[str, Path]]) -> str:
    """SHA-256 (hex) of what the rows of each part say and their order, whatever Parquet makes
    of them. `parts` are names and files."""
    whole = hashlib.sha256(f"tunesmith rows 2 {form} ".encode())
    for name, path in parts:
        part = hashlib.sha256(name.encode())
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=100 * ROWS_A_GROUP, columns=[DIGEST]):
                part.update(b"".join(batch.column(0).to_pylist()))
        whole.update(part.digest())
    return whole.hexdigest()


def label_counts(path: Path) -> dict[str, int]:
    """How many rows of labelled text have each label, the most frequent first."""
    counts: Counter[str] = Counter()
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=100 * ROWS_A_GROUP, columns=["labels"]):
            for entry in batch.column(0).flatten().value_counts():
                counts[entry["values"].as_py()] += entry["counts"].as_py()
    return dict(counts.most_common())


def read_slice(path: Path, offset: int, limit: int) -> list[dict[str, Any]]:
    """Rows `offset` to `offset + limit` of a Parquet file; only their groups are read."""
    return list(rows_at(path, range(offset, offset + limit)).values())


def rows_at(path: Path, places: Sequence[int]) -> dict[int, dict[str, Any]]:
    """The rows of a Parquet file at these places, the first first; a place where there is none is
    left out. Only their groups are read."""
    with _opened(path) as file:
        known = file.metadata
        sizes = [known.row_group(group).num_rows for group in range(known.num_row_groups)]
        ends = np.cumsum([0, *sizes])
        wanted = np.unique(np.asarray(places, np.int64))
        wanted = wanted[(wanted >= 0) & (wanted < ends[-1])]
        groups = np.searchsorted(ends, wanted, side="right") - 1
        found: dict[int, dict[str, Any]] = {}
        for group in np.unique(groups):
            here = wanted[groups == group]
            table, first = file.read_row_group(int(group)), here[0]
            table = table.slice(first - ends[group], here[-1] + 1 - first)
            if len(here) < len(table):
                table = table.take(pa.array(here - first))
            found.update(zip(here.tolist(), map(as_read, table.to_pylist()), strict=True))
    return found


def _opened(path: Path) -> Any:
    """A Parquet file to read from: that of a million rows says on its first read where each of its
    thousand groups stands, which takes longer than to read one of them."""
    now = path.stat()
    return pq.ParquetFile(path, metadata=_metadata(path, now.st_mtime_ns, now.st_size, now.st_ino))


@lru_cache(maxsize=4)
def _metadata(path: Path, *_version: int) -> Any:
    return pq.read_metadata(path)


def as_read(stored: dict[str, Any]) -> dict[str, Any]:
    """A row as the rest of the program knows it: nothing empty in it, `meta` as a dict."""
    row: dict[str, Any] = {}
    for name, value in stored.items():
        if value is None or name == DIGEST:
            continue
        if name == META:
            row[name] = json.loads(value)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            row[name] = [{k: v for k, v in turn.items() if v is not None} for turn in value]
        else:
            row[name] = value
    return row


def release_memory() -> None:
    """Gives back to the system what Arrow keeps for later: the web process stays small."""
    pa.default_memory_pool().release_unused()


def iter_rows(
    path: Path, batch_size: int = ROWS_A_GROUP, columns: Sequence[str] | None = None
) -> Iterator[list[dict[str, Any]]]:
    """All rows of a Parquet file in batches, with all columns or those named."""
    with pq.ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if name != DIGEST]
        wanted = names if columns is None else [name for name in names if name in columns]
        for batch in file.iter_batches(batch_size=batch_size, columns=wanted):
            yield [as_read(row) for row in batch.to_pylist()]


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
