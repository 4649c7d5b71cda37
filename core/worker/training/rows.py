"""From a prepared data set to the rows that a trainer takes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from datasets.table import InMemoryTable

from core.config import RunConfig
from core.data.record import DatasetInfo, Part
from core.data.rowfile import iter_rows
from core.errors import DataError
from core.language import _
from core.progress import Tell
from core.rules.data import need_form
from core.tokens.tokenize import TokenizedRow, no_loss_reason

IDS = pa.list_(pa.int32())
LEARNED = pa.schema([("input_ids", IDS), ("labels", IDS)])
"""A row as the trainers of text take it."""

_LISTED = 5

Made = Sequence[tuple[Any, ...]] | str
"""What comes of a row of the data set: a trainer's rows (mostly one), or why there are none."""


@dataclass(frozen=True)
class Rows:
    """The rows of one part. `left_out` are (index, reason) of those that nothing teaches."""

    part: str
    dataset: Dataset
    left_out: list[tuple[int, str]]

    @cached_property
    def lengths(self) -> list[int]:
        """The tokens of each row, in all of its columns of ids."""
        columns = self.dataset.data.table
        names = [name for name in columns.column_names if name.endswith("ids")]
        counts = [pc.list_value_length(columns[name]) for name in names]
        return [int(count) for count in reduce(pc.add, counts).to_pylist()]

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    def warning(self) -> str | None:
        """How many rows were left out and why, for the first ones."""
        if not self.left_out:
            return None
        total = len(self.lengths) + len(self.left_out)
        told: Iterable[str] = (
            _("row {number}: {reason}", number=index + 1, reason=reason)
            for index, reason in self.left_out[:_LISTED]
        )
        some = reduce(lambda one, other: _("{one}; {other}", one=one, other=other), told)
        if len(self.left_out) > _LISTED:
            some = _("{some}, ...", some=some)
        return _(
            "{count} of {total} {part} rows are left out: {some}",
            count=len(self.left_out),
            total=total,
            part=self.part,
            some=some,
        )


def load_rows(
    info: DatasetInfo,
    part: Part,
    config: RunConfig,
    schema: pa.Schema,
    make: Callable[[list[dict[str, Any]]], Iterable[Made]],
    *,
    limit: int | None = None,
    tell: Tell | None = None,
    columns: list[str] | None = None,
) -> Rows:
    """What `make` makes of the first `limit` rows of a part: of each the values of `schema`, or
    the reason why nothing can be learned from it.

    `tell` is given the share done; what it raises ends the work. `columns` are those that `make`
    reads; None for all. Raises DataError when nothing can be learned from any row, or when the
    rows are of a form for another method.
    """
    need_form(info, config)
    batches: list[pa.RecordBatch] = []
    left_out: list[tuple[int, str]] = []
    seen, total = 0, min(limit or sys.maxsize, getattr(info.counts, part))
    for rows in first_rows(iter_rows(info.rows_path(part), columns=columns), limit):
        kept: list[tuple[Any, ...]] = []
        for place, made in enumerate(make(rows), start=seen):
            if isinstance(made, str):
                left_out.append((place, made))
            else:
                kept += made
        values = list(zip(*kept, strict=True)) or [() for _field in schema]
        arrays = [pa.array(one, field.type) for one, field in zip(values, schema, strict=True)]
        batches.append(pa.record_batch(arrays, schema=schema))
        seen += len(rows)
        if tell:
            tell(seen / max(total, 1), _("Reading the {part} rows", part=part))
    if not any(batch.num_rows for batch in batches):
        why = left_out[0][1] if left_out else _("it is empty")
        raise DataError(
            _(
                "Nothing can be learned from the {part} rows of {name}: {why}",
                part=part,
                name=info.name,
                why=why,
            ),
            _("Look at the rows in Data with this model."),
        )
    table = pa.Table.from_batches(batches, schema=schema)
    return Rows(part, Dataset(InMemoryTable(table)), left_out)


def learned(row: TokenizedRow | DataError) -> Made:
    """A tokenized row as one of LEARNED."""
    if isinstance(row, DataError):
        return str(row)
    return [(row.input_ids, row.labels)] if row.has_loss else no_loss_reason(row)


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
