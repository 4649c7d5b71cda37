"""From a prepared data set to the prompts that a model answers while it learns from rewards, each
with the reference answer that a reward function may compare with."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from datasets import Dataset
from datasets.table import InMemoryTable

from core.config import RunConfig
from core.data.fit import need_form
from core.data.record import DatasetInfo, Part
from core.data.rowfile import iter_rows
from core.errors import DataError, ModelError
from core.tokens.prompted import Prompted, prompted
from core.tokens.prompts import prompt_ids
from core.training.rows import Rows, first_rows

_SCHEMA = pa.schema(
    [
        ("prompt", pa.string()),
        ("answer", pa.string()),
        ("row", pa.int64()),
        ("prompt_ids", pa.list_(pa.int32())),
    ]
)


def load_prompts(
    info: DatasetInfo,
    part: Part,
    tokenizer: Any,
    config: RunConfig,
    *,
    needs_answer: bool = False,
    limit: int | None = None,
    tell: Callable[[float, str], None] | None = None,
) -> Rows:
    """The first `limit` rows of a part as prompts: `prompt` (messages), `answer` (text or None),
    `row` (its place in the part, from 1) and `prompt_ids`. `lengths` are those of the prompts.

    Left out, with the reason, is a row without a prompt, whose prompt is longer than max_length, or
    that has no reference answer although every reward `needs_answer`. `tell` is given the share
    done; what it raises ends the work. Raises DataError when no row is left, or when they are of
    another form.
    """
    need_form(info, config)
    found: list[dict[str, Any]] = []
    left_out: list[tuple[int, str]] = []
    seen, total = 0, min(limit or sys.maxsize, getattr(info.counts, part))
    for rows in first_rows(iter_rows(info.rows_path(part)), limit):
        for place, row in enumerate(rows, start=seen):
            try:
                found.append(_prompt(row, place, tokenizer, config, needs_answer))
            except (DataError, ModelError) as error:
                left_out.append((place, str(error)))
        seen += len(rows)
        if tell:
            tell(seen / max(total, 1), f"Reading the {part} rows")
    if not found:
        why = left_out[0][1] if left_out else "it is empty"
        raise DataError(
            f"No {part} row of {info.name} can be answered: {why}",
            "Look at the rows in Data with this model.",
        )
    dataset = Dataset(InMemoryTable(pa.Table.from_pylist(found, schema=_SCHEMA)))
    dataset.set_transform(_with_messages)
    return Rows(part, dataset, [len(row["prompt_ids"]) for row in found], left_out)


def _prompt(
    row: dict[str, Any], place: int, tokenizer: Any, config: RunConfig, needs_answer: bool
) -> dict[str, Any]:
    """A row of _SCHEMA. Raises DataError or ModelError when it cannot be used."""
    made: Prompted = prompted(row, config.data.system_prompt)
    if needs_answer and not (made.answer or "").strip():
        raise DataError("It has no reference answer to compare with.", "Map a column to answer.")
    ids = prompt_ids(made.prompt, tokenizer, tools=made.tools)
    longest = config.training.max_length
    if len(ids) > longest:
        raise DataError(
            f"Its prompt has {len(ids)} tokens, more than max_length {longest}.",
            "Raise training.max_length or shorten the prompt.",
        )
    text = json.dumps(made.prompt, ensure_ascii=False)
    return {"prompt": text, "answer": made.answer, "row": place + 1, "prompt_ids": ids}


def _with_messages(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Messages differ in what they hold (calls of tools), so they rest as text."""
    return {**batch, "prompt": [json.loads(text) for text in batch["prompt"]]}
