"""Counts of a data set's tokens: of all rows, or in a moment of some of them, taken for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from core.data.record import DatasetInfo
from core.data.rowfile import iter_rows
from core.errors import DataError
from core.tokens.lens import Lens
from core.tokens.sides import Side, sides_of_rows

COUNTED_ROWS = 10_000
"""So many rows of each part are counted for an estimate; the rest is taken to be like them."""

_OF_TRAIN = ("train_tokens", "loss_tokens")


def token_counts(
    info: DatasetInfo,
    tokenizer: Any,
    lens: Lens,
    max_rows: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Counts over all rows of the train and eval parts, or the first `max_rows` of each.

    train_rows, eval_rows: rows that were counted; train_tokens, eval_tokens: tokens after the
    cut of the rows that will be used (of a preference: of both answers); loss_tokens: those of
    train that carry loss; longest: the most tokens a row has before the cut; cut_rows and
    cut_tokens: rows that lose tokens, and how many; rows_without_loss: rows left out because
    nothing is learned from them; unusable_rows: rows that the template refuses; first_reason: of
    the first row left out, or None. row_lengths: [tokens before the cut, rows] of the train rows
    that will be used, the longest first; of a preference those of the longer answer.
    """
    counts: dict[str, Any] = dict.fromkeys(
        "train_rows eval_rows train_tokens eval_tokens loss_tokens longest cut_rows cut_tokens "
        "rows_without_loss unusable_rows".split(),
        0,
    )
    counts["first_reason"] = None
    lengths: Counter[int] = Counter()
    parts = [part for part in info.parts if part != "test"]
    total = sum(_limited(info, part, max_rows) for part in parts)
    for part in parts:
        left = _limited(info, part, max_rows)
        for batch in iter_rows(info.rows_path(part)):
            rows = batch[:left]
            left -= len(rows)
            for sides in sides_of_rows(
                rows,
                tokenizer,
                max_length=lens.max_length,
                learn=lens.learning,
                system_prompt=lens.system_prompt,
            ):
                _count(counts, lengths, part, sides)
            if progress:
                progress((counts["train_rows"] + counts["eval_rows"]) / max(total, 1))
            if left <= 0:
                break
    counts["row_lengths"] = [[length, lengths[length]] for length in sorted(lengths, reverse=True)]
    return counts


def estimated_token_counts(
    info: DatasetInfo, tokenizer: Any, lens: Lens, max_rows: int = COUNTED_ROWS
) -> dict[str, Any]:
    """As `token_counts`, from at most `max_rows` rows of each part.

    Where there are more, `estimated` is True and the counts are scaled to all rows; `longest` is
    that of the rows that were counted, `counted_rows` how many they were.
    """
    counts = token_counts(info, tokenizer, lens, max_rows)
    all_rows = info.counts
    counted = counts["train_rows"], counts["eval_rows"]
    of_train = all_rows.train / max(counts["train_rows"], 1)
    of_eval = all_rows.eval / max(counts["eval_rows"], 1)
    of_both = (all_rows.train + all_rows.eval) / max(sum(counted), 1)
    scale = dict.fromkeys(_OF_TRAIN, of_train) | {"eval_tokens": of_eval}
    scale |= dict.fromkeys(("cut_rows", "cut_tokens", "rows_without_loss"), of_both)
    scale |= {"unusable_rows": of_both, "train_rows": of_train, "eval_rows": of_eval}
    return {
        **counts,
        **{name: round(counts[name] * factor) for name, factor in scale.items()},
        "counted_rows": sum(counted),
        "estimated": sum(counted) < all_rows.train + all_rows.eval,
    }


def _limited(info: DatasetInfo, part: str, max_rows: int | None) -> int:
    rows: int = getattr(info.counts, part)
    return rows if max_rows is None else min(rows, max_rows)


def _count(counts: dict[str, Any], lengths: Counter[int], part: str, sides: list[Side]) -> None:
    counts[f"{part}_rows"] += 1
    problem = next((problem for side in sides if (problem := side.problem())), None)
    counts["first_reason"] = counts["first_reason"] or problem
    rows = [side.tokens for side in sides if not isinstance(side.tokens, DataError)]
    if len(rows) < len(sides):
        counts["unusable_rows"] += 1
        return
    counts["longest"] = max(counts["longest"], *(row.full_length for row in rows))
    if any(row.is_cut for row in rows):
        counts["cut_rows"] += 1
        counts["cut_tokens"] += sum(row.full_length - row.length for row in rows)
    if problem:
        counts["rows_without_loss"] += 1
        return
    counts[f"{part}_tokens"] += sum(row.length for row in rows)
    if part == "train":
        counts["loss_tokens"] += sum(row.loss_tokens for row in rows)
        lengths[max(row.full_length for row in rows)] += 1
