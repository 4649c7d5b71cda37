"""From plain texts to full blocks: every text with its end token, one behind the other, cut into
blocks of `max_length` tokens. No token is lost; the last block may be shorter."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from datasets.table import InMemoryTable
from numpy.typing import NDArray

from core.config import RunConfig
from core.data.fit import need_form
from core.data.record import DatasetInfo, Part
from core.data.rowfile import iter_rows
from core.errors import DataError
from core.tokens.tokenize import NO_LOSS, tokenize_rows
from core.training.rows import Rows, first_rows

Tell = Callable[[float, str], None]
Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Documents:
    """The texts of one part as one row of tokens; `starts` is where each text begins in it."""

    part: str
    ids: Ids
    starts: NDArray[np.int64]
    left_out: list[tuple[int, str]]


def load_documents(
    info: DatasetInfo,
    part: Part,
    tokenizer: Any,
    config: RunConfig,
    *,
    limit: int | None = None,
    tell: Tell | None = None,
) -> Documents:
    """The first `limit` texts of a part, whole, each with its end token.

    `tell` is given the share done; what it raises ends the work. Raises DataError when there is
    nothing to learn, or when the rows are of another form.
    """
    need_form(info, config)
    pieces: list[Ids] = []
    starts: list[int] = []
    left_out: list[tuple[int, str]] = []
    place = seen = 0
    total = min(limit or sys.maxsize, getattr(info.counts, part))
    for rows in first_rows(iter_rows(info.rows_path(part), columns=["text"]), limit):
        usable, unusable = tokenize_rows(
            rows, tokenizer, max_length=None, assistant_only_loss=False
        )
        left_out += [(seen + index, reason) for index, reason in unusable]
        seen += len(rows)
        for row in usable:
            starts.append(place)
            place += row.length
            pieces.append(np.array(row.input_ids, dtype=np.int32))
        if tell:
            tell(seen / max(total, 1), f"Reading the {part} rows")
    if not pieces:
        why = left_out[0][1] if left_out else "it is empty"
        raise DataError(
            f"Nothing can be learned from the {part} rows of {info.name}: {why}",
            "Look at the rows in Data with this model.",
        )
    return Documents(part, np.concatenate(pieces), np.array(starts, dtype=np.int64), left_out)


def in_blocks(documents: Documents, max_length: int, *, apart: bool) -> Rows:
    """The texts cut into blocks: rows of input_ids and labels, and with `apart` seq_lengths.

    A label is the token itself, but -100 where nothing before it is seen: at a block's first
    token and, apart, at that of each text. Joined, a text is read after the one before it.
    """
    total = len(documents.ids)
    blocks = np.arange(0, total, max_length)
    if total - blocks[-1] == 1 and len(blocks) > 1:
        blocks[-1] -= 1  # a block of one token would teach nothing
    breaks = np.union1d(blocks, documents.starts) if apart else blocks
    labels = documents.ids.copy()
    labels[breaks] = NO_LOSS
    offsets = np.append(blocks, total)
    columns = {"input_ids": _lists(documents.ids, offsets), "labels": _lists(labels, offsets)}
    if apart:
        lengths = np.diff(np.append(breaks, total)).astype(np.int32)
        columns["seq_lengths"] = _lists(lengths, np.searchsorted(breaks, blocks), len(breaks))
    table = pa.table(columns)
    return Rows(
        documents.part,
        Dataset(InMemoryTable(table)),
        [int(length) for length in np.diff(offsets)],
        documents.left_out,
    )


def _lists(values: Ids, offsets: NDArray[Any], end: int | None = None) -> pa.Array:
    """A column of lists: the values from each offset to the next (the last one to `end`)."""
    bounds = offsets if end is None else np.append(offsets, end)
    return pa.ListArray.from_arrays(pa.array(bounds.astype(np.int32)), pa.array(values))
