"""What a data set's counts mean at a max_length: histograms, shares, and a max_length to take.

Counts are kept by length, so that another max_length needs no tokenizer and no second look at the
rows. Lengths are tokens.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from math import ceil, log2
from typing import Any

from pydantic import BaseModel

from core.methods import WRITTEN_FORMS

PERCENTILES = (50, 90, 95, 99)
_ENOUGH = 0.99
_SHORTEST_SUGGESTION = 128
_MOST_BINS = 24
_LOG_FROM = 40
"""Lengths that differ by this factor are drawn on a logarithmic scale."""


class Tally(BaseModel):
    """What was counted in the train rows of a data set, with one model's tokenizer and template.

    `lengths` has for each of total, prompt, answer (or chosen and rejected) how many rows have
    which length; total is that of the longer side of a pair. `sides` are the lengths of both.
    `begins` says where the first token with loss stands, in as many rows.
    """

    form: str
    rows: int = 0
    rows_total: int = 0
    limit: int | None = None
    lengths: dict[str, Counter[int]] = {}
    sides: Counter[int] = Counter()
    begins: Counter[int] = Counter()
    never: int = 0
    """Rows none of whose tokens carries loss, however long they may be."""
    unusable: int = 0
    reason: str | None = None
    """Why the first unusable row is so."""
    turns: Counter[int] = Counter()
    labels: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    duplicates: int = 0

    @property
    def complete(self) -> bool:
        return self.rows == self.rows_total


def summarize(
    tally: Tally, max_length: int | None, assistant_only_loss: bool = True
) -> dict[str, Any]:
    """The statistics of a data set as a page shows them; see `core.data.statistics`."""
    total = tally.lengths.get("total", Counter())
    rows, tokens = total.total(), _sum(tally.sides)
    cut_rows = sum(n for length, n in total.items() if _over(length, max_length))
    cut_tokens = sum(_over(length, max_length) * n for length, n in tally.sides.items())
    epoch_tokens = tokens - cut_tokens
    return {
        "form": tally.form,
        "rows": tally.rows,
        "rows_total": tally.rows_total,
        "complete": tally.complete,
        "max_length": max_length,
        "model_limit": tally.limit,
        "lengths": {name: distribution(counts) for name, counts in tally.lengths.items()},
        "cut_rows": cut_rows,
        "cut_rows_share": cut_rows / max(rows, 1),
        "cut_tokens": cut_tokens,
        "cut_tokens_share": cut_tokens / max(tokens, 1),
        "epoch": {
            "tokens": round(epoch_tokens * tally.rows_total / max(tally.rows, 1)),
            "packed_rows": _scaled(tally, ceil(epoch_tokens / max_length)) if max_length else None,
        },
        "rows_without_loss": _without_loss(tally, max_length, assistant_only_loss),
        "unusable_rows": tally.unusable,
        "unusable_reason": tally.reason,
        "turns": sorted([turns, n] for turns, n in tally.turns.items()),
        "labels": [[label, n] for label, n in tally.labels.most_common()],
        "languages": [[code, n] for code, n in tally.languages.most_common()],
        "duplicates": tally.duplicates,
        "suggested": suggested_max_length(tally),
    }


def _scaled(tally: Tally, count: int) -> int:
    """A count of the rows that were looked at, for all rows."""
    return count if tally.complete else ceil(count * tally.rows_total / max(tally.rows, 1))


def _sum(counts: Counter[int]) -> int:
    return sum(length * n for length, n in counts.items())


def _over(length: int, most: int | None) -> int:
    """By how much a length is more than the most."""
    return max(length - most, 0) if most else 0


def _without_loss(tally: Tally, max_length: int | None, assistant_only_loss: bool) -> int:
    if tally.form in WRITTEN_FORMS and not assistant_only_loss:
        return 0
    behind = sum(n for begin, n in tally.begins.items() if max_length and begin >= max_length)
    return tally.never + behind


def distribution(counts: Counter[int]) -> dict[str, Any]:
    """A histogram and its figures: `counts[i]` rows have a length from `edges[i]` up to, but not
    at, `edges[i + 1]`; `scale` says how to draw it (linear or log)."""
    if not counts:
        return {"edges": [], "counts": [], "scale": "linear", "mean": 0.0, "percentiles": {}}
    low, high = min(counts), max(counts)
    scale = "log" if high > _LOG_FROM * max(low, 8) else "linear"
    edges = _log_edges(max(low, 1), high) if scale == "log" else _even_edges(low, high)
    bins = [0] * (len(edges) - 1)
    for length, n in counts.items():
        bins[max(bisect_right(edges, length) - 1, 0)] += n
    return {
        "edges": edges,
        "counts": bins,
        "scale": scale,
        "mean": round(_sum(counts) / counts.total(), 1),
        "percentiles": {**_percentiles(counts), "max": high},
    }


def _even_edges(low: int, high: int) -> list[int]:
    """Edges at round numbers."""
    span = max(high - low, 1)
    steps = (base * 10**power for power in range(10) for base in (1, 2, 5))
    step = next(step for step in steps if span / step <= _MOST_BINS - 2)
    first = low // step * step
    return list(range(first, high + step + 1, step))


def _log_edges(low: int, high: int) -> list[int]:
    """Powers of two, and half-way between them where that is not too many."""
    first, last = int(log2(low)), int(log2(high)) + 1
    halves = 2 * (last - first) <= _MOST_BINS
    powers = range(2 * first, 2 * last + 1, 1 if halves else 2)
    return sorted({round(2 ** (power / 2)) for power in powers})


def _percentiles(counts: Counter[int]) -> dict[str, int]:
    """By nearest rank: so many percent of the rows are no longer than this."""
    found: dict[str, int] = {}
    wanted = list(PERCENTILES)
    total, seen = counts.total(), 0
    for length in sorted(counts):
        seen += counts[length]
        while wanted and seen * 100 >= wanted[0] * total:
            found[str(wanted.pop(0))] = length
    return found


def suggested_max_length(tally: Tally) -> dict[str, Any] | None:
    """The smallest of 128, 256, 512, ... that leaves 99 of 100 rows whole and keeps 99 % of the
    tokens (of plain text only the latter), never above what the model reads; with the reason.

    value, reason, rows_whole and tokens_kept (shares). None without rows.
    """
    total = tally.lengths.get("total", Counter())
    if not total:
        return None
    longest, value = max(total), _SHORTEST_SUGGESTION
    while value < longest and not _keeps_enough(tally, value):
        value *= 2
    whole, kept = _kept(tally, value)
    reason = f"It keeps {_percent(whole)} of the rows whole and {_percent(kept)} of the tokens."
    if longest <= value:
        reason = f"No row is longer than {longest:,} tokens."
    if tally.limit and value > tally.limit:
        value = tally.limit
        whole, kept = _kept(tally, value)
        reason = (
            f"The model reads no more than {value:,} tokens; {_percent(1 - whole)} of the rows "
            "are longer. Cut or drop them."
        )
        if longest <= value:
            reason = f"No row is longer than {longest:,} tokens, and the model reads {value:,}."
    return {"value": value, "reason": reason, "rows_whole": whole, "tokens_kept": kept}


def _keeps_enough(tally: Tally, max_length: int) -> bool:
    whole, kept = _kept(tally, max_length)
    return kept >= _ENOUGH and (tally.form == "text" or whole >= _ENOUGH)


def _kept(tally: Tally, max_length: int) -> tuple[float, float]:
    """Shares of rows that stay whole and of tokens that are kept."""
    total = tally.lengths["total"]
    cut = sum(n for length, n in total.items() if length > max_length)
    lost = sum(_over(length, max_length) * n for length, n in tally.sides.items())
    return 1 - cut / total.total(), 1 - lost / max(_sum(tally.sides), 1)


def _percent(share: float) -> str:
    """A share for a sentence: never 100 % where something is missing, never 0 % of something."""
    shown = round(share * 100, 1)
    if share < 1 and shown == 100:
        return "more than 99.9 %"
    if share > 0 and shown == 0:
        return "less than 0.1 %"
    return f"{shown:g} %"
