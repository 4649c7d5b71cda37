"""From preferences to the rows that a trainer takes: the tokens of both answers, or of one that was
judged. They are those of the preview (`core.tokens.sides`)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from datasets.table import InMemoryTable

from core.config import RunConfig
from core.data.record import DatasetInfo, Part
from core.data.rowfile import iter_rows
from core.errors import DataError
from core.tokens.sides import Side, sides_of_rows
from core.tokens.tokenize import TokenizedRow
from core.training.rows import Rows, first_rows

_IDS = pa.list_(pa.int32())
PAIRS = pa.schema(
    [
        ("chosen_input_ids", _IDS),
        ("chosen_labels", _IDS),
        ("rejected_input_ids", _IDS),
        ("rejected_labels", _IDS),
    ]
)
"""A preference: the whole conversation with either answer; labels are -100 but on the answer."""

JUDGED = pa.schema([("input_ids", _IDS), ("labels", _IDS), ("label", pa.bool_())])
"""An answer and whether it is a good one."""

Tell = Callable[[float, str], None]


def load_judged_rows(
    info: DatasetInfo,
    part: Part,
    tokenizer: Any,
    config: RunConfig,
    *,
    limit: int | None = None,
    tell: Tell | None = None,
) -> Rows:
    """The first `limit` rows of a part as PAIRS or JUDGED, cut at max_length.

    Left out, with the reason, is a row that cannot be rendered, that loses an answer to the cut,
    or whose two answers are the same after it. `tell` is given the share done; what it raises
    ends the work. Raises DataError when no row is left, or when they are of another form.
    """
    _need_form(info, config)
    schema = PAIRS if info.form == "preference" else JUDGED
    batches: list[pa.RecordBatch] = []
    lengths: list[int] = []
    left_out: list[tuple[int, str]] = []
    seen, total = 0, min(limit or sys.maxsize, getattr(info.counts, part))
    for rows in first_rows(iter_rows(info.rows_path(part)), limit):
        both = sides_of_rows(
            rows,
            tokenizer,
            max_length=config.training.max_length,
            system_prompt=config.data.system_prompt,
        )
        kept: list[list[Any]] = []
        for index, (row, sides) in enumerate(zip(rows, both, strict=True)):
            reason = _problem(sides)
            if reason:
                left_out.append((seen + index, reason))
                continue
            tokens = [_tokens(side) for side in sides]
            lengths.append(sum(one.length for one in tokens))
            values = [ids for one in tokens for ids in (one.input_ids, one.labels)]
            kept.append(values if schema is PAIRS else [*values, row["label"]])
        columns = list(zip(*kept, strict=True)) or [() for _ in schema]
        arrays = [pa.array(c, field.type) for c, field in zip(columns, schema, strict=True)]
        batches.append(pa.record_batch(arrays, schema=schema))
        seen += len(rows)
        if tell:
            tell(seen / max(total, 1), f"Reading the {part} rows")
    if not lengths:
        why = left_out[0][1] if left_out else "it is empty"
        raise DataError(
            f"Nothing can be learned from the {part} rows of {info.name}: {why}",
            "Look at the rows in Data with this model.",
        )
    table = pa.Table.from_batches(batches, schema=schema)
    return Rows(part, Dataset(InMemoryTable(table)), lengths, left_out)


def padded_lengths(rows: Rows) -> list[int]:
    """How many tokens each row takes in a batch of its own: both answers are as wide as the
    longer one."""
    columns = rows.dataset.data.table
    if "input_ids" in columns.column_names:
        return [int(n) for n in pc.list_value_length(columns["input_ids"]).to_pylist()]
    widest = pc.max_element_wise(
        pc.list_value_length(columns["chosen_input_ids"]),
        pc.list_value_length(columns["rejected_input_ids"]),
    )
    return [2 * int(n) for n in widest.to_pylist()]


def _need_form(info: DatasetInfo, config: RunConfig) -> None:
    forms = config.training_method.forms
    if info.form not in forms:
        raise DataError(
            f"The data set {info.name} holds {info.form} rows, and method {config.method} learns "
            f"from {', '.join(forms)}.",
            "Choose another data set, or import its files in one of these forms.",
        )


def _problem(sides: list[Side]) -> str | None:
    """Why nothing can be learned from a row; None when it can."""
    for side in sides:
        problem = side.problem()
        if problem:
            return f"{side.title}: {problem}" if len(sides) > 1 else problem
    if len(sides) > 1 and _tokens(sides[0]).input_ids == _tokens(sides[1]).input_ids:
        length = _tokens(sides[0]).length
        return (
            f"Both answers are the same in their first {length} tokens. Raise max_length or "
            "drop the row."
        )
    return None


def _tokens(side: Side) -> TokenizedRow:
    assert isinstance(side.tokens, TokenizedRow), "asked of sides without a problem"
    return side.tokens


def balance_note(rows: Rows, config: RunConfig) -> str | None:
    """A sentence on weights that would even out good and bad answers; None where they are even.

    The bounds are those of Eq. (8) of the KTO paper (arXiv 2402.01306): the good answers together
    weigh 1 to 4/3 of the bad ones.
    """
    labels = rows.dataset.data.table["label"]
    good = int(pc.sum(labels).as_py() or 0)
    bad = len(labels) - good
    if not good or not bad:
        kind = "good" if good else "bad"
        return f"All {len(labels)} train rows are {kind} answers: KTO learns from both kinds."
    section = config.preference
    share = good * section.desirable_weight / (bad * section.undesirable_weight)
    if 0.99 <= share <= 1.34:
        return None
    if share < 1:
        advice = f"desirable_weight {section.undesirable_weight * bad / good:.3g}"
    else:
        advice = f"undesirable_weight {section.desirable_weight * good / bad:.3g}"
    return (
        f"{good} good and {bad} bad answers weigh {share:.2g} to 1. To even them out, set "
        f"preference.{advice}."
    )
