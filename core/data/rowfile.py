"""Standard rows on disk: Parquet written in pieces, read by position, fingerprinted by content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.data.readers import Row

ROWS_A_GROUP = 1000
"""Rows that are compressed together: small, so that any row is found in milliseconds."""

_MAX_CHARS_A_GROUP = 32 * 2**20
_DIGEST_BYTES = 32

_TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMAS: dict[str, Any] = {
    "text": pa.schema([("text", pa.string())]),
    "prompt-completion": pa.schema([("prompt", _TURNS), ("completion", _TURNS)]),
    "messages": pa.schema([("messages", _TURNS)]),
}


class RowWriter:
    """Writes rows of one standard form; memory holds one group of them."""

    def __init__(self, path: Path, form: str) -> None:
        self._schema = SCHEMAS[form]
        self._file = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._waiting: list[Row] = []
        self._waiting_chars = 0
        self.count = 0
        self.digests = bytearray()

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

    def add(self, row: Row) -> None:
        text = json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        self.digests += hashlib.sha256(text.encode()).digest()
        self.count += 1
        self._waiting.append(row)
        self._waiting_chars += len(text)
        if len(self._waiting) >= ROWS_A_GROUP or self._waiting_chars > _MAX_CHARS_A_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._file.write_table(pa.Table.from_pylist(self._waiting, schema=self._schema))
        self._waiting, self._waiting_chars = [], 0


def split_file(
    source: Path, form: str, chosen: set[int], train: Path, held_out: Path
) -> Iterator[float]:
    """Copies the rows of `source` to `held_out` where their index is in `chosen`, else to
    `train`, each in order. Yields the fraction that is done."""
    schema = SCHEMAS[form]
    with (
        pq.ParquetFile(source) as file,
        pq.ParquetWriter(train, schema, compression="zstd") as train_file,
        pq.ParquetWriter(held_out, schema, compression="zstd") as held_out_file,
    ):
        start = 0
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            held = [index in chosen for index in range(start, start + len(table))]
            start += len(table)
            for target, keep in ((held_out_file, held), (train_file, [not h for h in held])):
                part = table.filter(pa.array(keep, pa.bool_()))
                if len(part):
                    target.write_table(part)
            yield start / file.metadata.num_rows


def digests_of(digests: bytes | bytearray, indices: Sequence[int]) -> bytes:
    return b"".join(digests[i * _DIGEST_BYTES : (i + 1) * _DIGEST_BYTES] for i in indices)


def fingerprint(form: str, train: bytes | bytearray, held_out: bytes | bytearray) -> str:
    """SHA-256 (hex) of what the rows say and their order, whatever Parquet makes of them.

    `train` and `held_out` are the rows' own SHA-256 digests, one after the other.
    """
    whole = hashlib.sha256(f"tunesmith rows 1 {form} ".encode())
    for part in (train, held_out):
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()


def read_slice(path: Path, offset: int, limit: int) -> list[dict[str, Any]]:
    """Rows `offset` to `offset + limit` of a Parquet file; only their groups are read."""
    rows: list[dict[str, Any]] = []
    with pq.ParquetFile(path) as file:
        start = 0
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            first, last = max(offset - start, 0), min(offset + limit - start, size)
            if first < last:
                rows += file.read_row_group(group).slice(first, last - first).to_pylist()
            start += size
            if start >= offset + limit:
                break
    return rows


def release_memory() -> None:
    """Gives back to the system what Arrow keeps for later: the web process stays small."""
    pa.default_memory_pool().release_unused()


def iter_rows(path: Path, batch_size: int = ROWS_A_GROUP) -> Iterator[list[dict[str, Any]]]:
    """All rows of a Parquet file in batches."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=batch_size):
            yield batch.to_pylist()
