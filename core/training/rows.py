"""From a prepared data set to the rows that a trainer takes: input_ids and labels."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from datasets import Dataset
from datasets.table import InMemoryTable
from trl import pack_dataset

from core.config import RunConfig
from core.data.record import DatasetInfo, Part
from core.data.rowfile import iter_rows
from core.errors import DataError
from core.tokens.tokenize import need_sft_form, tokenize_rows

_LISTED = 5
_IDS = pa.list_(pa.int32())
_SCHEMA = pa.schema([("input_ids", _IDS), ("labels", _IDS)])


@dataclass(frozen=True)
class Rows:
    """The rows of one part. `left_out` are (index, reason) of those that nothing teaches."""

    part: str
    dataset: Dataset
    lengths: list[int]
    left_out: list[tuple[int, str]]

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    def warning(self) -> str | None:
        """How many rows were left out and why, for the first ones."""
        if not self.left_out:
            return None
        total = len(self.lengths) + len(self.left_out)
        some = "; ".join(f"row {index + 1}: {reason}" for index, reason in self.left_out[:_LISTED])
        more = ", ..." if len(self.left_out) > _LISTED else ""
        return f"{len(self.left_out)} of {total} {self.part} rows are left out: {some}{more}"


def load_rows(
    info: DatasetInfo,
    part: Part,
    tokenizer: Any,
    config: RunConfig,
    *,
    limit: int | None = None,
    tell: Callable[[float, str], None] | None = None,
) -> Rows:
    """The first `limit` rows of a part, tokenized and cut at max_length.

    `tell` is given the share done; what it raises ends the work. Raises DataError when nothing
    can be learned from any of them, or when they are of a form for another method.
    """
    need_sft_form(info.form, f"The data set {info.name} holds")
    batches: list[pa.RecordBatch] = []
    lengths: list[int] = []
    left_out: list[tuple[int, str]] = []
    seen, total = 0, min(limit or sys.maxsize, getattr(info.counts, part))
    for rows in first_rows(iter_rows(info.rows_path(part)), limit):
        usable, unusable = tokenize_rows(
            rows,
            tokenizer,
            max_length=config.training.max_length,
            assistant_only_loss=config.data.assistant_only_loss,
            system_prompt=config.data.system_prompt,
        )
        left_out += [(seen + index, reason) for index, reason in unusable]
        seen += len(rows)
        if tell:
            tell(seen / max(total, 1), f"Reading the {part} rows")
        lengths += [row.length for row in usable]
        columns = [[row.input_ids for row in usable], [row.labels for row in usable]]
        batches.append(
            pa.record_batch([pa.array(column, _IDS) for column in columns], schema=_SCHEMA)
        )
    if not lengths:
        why = left_out[0][1] if left_out else "it is empty"
        raise DataError(
            f"Nothing can be learned from the {part} rows of {info.name}: {why}",
            "Look at the rows in Data with this model.",
        )
    table = pa.Table.from_batches(batches, schema=_SCHEMA)
    return Rows(part, Dataset(InMemoryTable(table)), lengths, left_out)


def packed(rows: Rows, max_length: int, strategy: str = "bfd") -> Dataset:
    """Rows put together until each is nearly `max_length` long (bfd: whole, with `seq_lengths`
    beside them; wrapped: cut where one is full)."""
    return pack_dataset(rows.dataset, max_length, strategy)


def first_rows(
    batches: Iterator[list[dict[str, Any]]], limit: int | None
) -> Iterator[list[dict[str, Any]]]:
    """Batches of rows until there were `limit` of them."""
    left = limit
    for batch in batches:
        if left is None:
            yield batch
            continue
        if left <= 0:
            return
        yield batch[:left]
        left -= len(batch)
