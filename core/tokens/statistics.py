"""Statistics of a data set with a model's own tokenizer.

Counts are kept by length beside the rows, so that another max_length needs no tokenizer and no
second look. `count_statistics` and `read_statistics` give a dict of plain values:

- form, rows (looked at), rows_total, complete (all were looked at), max_length, model_limit
- lengths: for total, and where the form has them prompt, answer, chosen and rejected: {edges,
  counts, scale (linear or log), mean, percentiles {50, 90, 95, 99, max}}; tokens with the marks of
  the template. Total is that of the longer side of a pair
- cut_rows, cut_rows_share, cut_tokens, cut_tokens_share: what max_length takes away
- epoch: tokens after the cut and packed_rows, in all rows (scaled up from those looked at)
- rows_without_loss, unusable_rows, unusable_reason: rows from which nothing is learned
- turns: [[turns, rows], ...]; labels: [[label, rows], ...]; languages: [[code, rows], ...] of at
  most 2,000 rows, "?" where the guess is unsure; duplicates: rows that repeat one looked at
- lost_thoughts: [of earlier turns, of last turns]: thoughts that the chat template takes out
- suggested: {value, reason, rows_whole, tokens_kept} or None

Only the rows of the train part are counted.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from math import ceil, log2
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from core.data.languages import guess
from core.data.read.row import Row
from core.data.record import DatasetInfo
from core.data.rowfile import ROWS_A_GROUP, iter_rows, read_slice
from core.data.rowtext import row_text
from core.data.steps.duplicates import row_digest
from core.errors import DataError
from core.language import N_, _
from core.methods import WRITTEN_FORMS
from core.sentence import Sentence
from core.tokens.learn import Learn
from core.tokens.lens import Lens
from core.tokens.sides import Side, sides_of_rows
from core.tokens.tokenize import NO_LOSS, TokenizedRow
from core.workspace import Workspace, write_atomic

_DEFAULT = Learn()
LANGUAGE_ROWS = 2000
_SURE = 0.5
_NO_LABEL = N_("no label")
_UNSURE = "?"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
_SPLIT_FORMS = ("prompt-completion", "messages", "unpaired-preference")
"""Forms with one answer: prompt and answer are told apart by where the loss is."""
PERCENTILES = (50, 90, 95, 99)
_ENOUGH = 0.99
_SHORTEST_SUGGESTION = 128
# So large a share of rows that no length makes whole may be left out of account.
_FEW = 0.05
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
    reason: Sentence | None = None
    """Why the first unusable row is so."""
    turns: Counter[int] = Counter()
    labels: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    duplicates: int = 0
    lost_thoughts: tuple[int, int] = (0, 0)
    """Thoughts that the template takes out of (earlier turns, last turns)."""

    @property
    def complete(self) -> bool:
        return self.rows == self.rows_total


def count_statistics(
    workspace: Workspace,
    info: DatasetInfo,
    lens: Lens,
    where: str,
    tokenizer: Any | None,
    *,
    model_limit: int | None = None,
    max_rows: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """The statistics of all train rows, or of `max_rows` from the whole length of the set.

    What was counted of all rows is kept for `read_statistics`, whose `where` this is. Without a
    tokenizer, only what needs none: turns, labels, languages, duplicates.
    """
    tally = Tally(form=info.form, rows_total=info.counts.train, limit=model_limit)
    _count(tally, info, tokenizer, lens, max_rows, progress)
    if tally.complete:
        write_atomic(_place(workspace, info, lens, where), tally.model_dump_json())
    return summarize(tally, lens.max_length, lens.learning)


def read_statistics(
    workspace: Workspace, info: DatasetInfo, lens: Lens, where: str
) -> dict[str, Any] | None:
    """The statistics of all train rows if they were counted before, at any max_length; None if
    not. Reads a small file and loads no tokenizer.

    `where` is the model's folder, a Hub id, or "" for what needs no tokenizer.
    """
    tally = _read(_place(workspace, info, lens, where))
    return None if tally is None else summarize(tally, lens.max_length, lens.learning)


def _place(workspace: Workspace, info: DatasetInfo, lens: Lens, where: str) -> Path:
    """The file of the counts: its name says by which rows, tokenizer and template."""
    key = hashlib.sha256()
    learn = lens.learning.answers
    parts = (
        *("statistics 2", info.fingerprint, lens.system_prompt, lens.template(workspace)),
        *(learn.turns, learn.thoughts),
    )
    for part in parts:
        key.update(hashlib.sha256(part.encode()).digest())
    folder = Path(where)
    names = _TOKENIZER_FILES if where else ()
    files = [folder / name for name in names if (folder / name).is_file()]
    for path in files:
        state = path.stat()
        key.update(_file_digest(path, state.st_mtime_ns, state.st_size))
    if not files:
        key.update(where.encode())
    return info.version_folder / f"statistics-{key.hexdigest()[:16]}.json"


def summarize(tally: Tally, max_length: int | None, learn: Learn = _DEFAULT) -> dict[str, Any]:
    """The statistics of a data set as a page shows them; see the top of this module."""
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
        "rows_without_loss": _without_loss(tally, max_length, learn),
        "unusable_rows": tally.unusable,
        "unusable_reason": tally.reason,
        "turns": sorted([turns, n] for turns, n in tally.turns.items()),
        "labels": [[_label(label, tally.form), n] for label, n in tally.labels.most_common()],
        "languages": [[code, n] for code, n in tally.languages.most_common()],
        "duplicates": tally.duplicates,
        "lost_thoughts": list(tally.lost_thoughts),
        "suggested": suggested_max_length(tally),
    }


def _label(label: str, form: str) -> str:
    """A label as it is shown: that of a judgement, or of rows without one, is our own word."""
    ours = form == "unpaired-preference" or label == _NO_LABEL
    return _(label) if ours else label


def _scaled(tally: Tally, count: int) -> int:
    """A count of the rows that were looked at, for all rows."""
    return count if tally.complete else ceil(count * tally.rows_total / max(tally.rows, 1))


def _sum(counts: Counter[int]) -> int:
    return sum(length * n for length, n in counts.items())


def _over(length: int, most: int | None) -> int:
    """By how much a length is more than the most."""
    return max(length - most, 0) if most else 0


def _without_loss(tally: Tally, max_length: int | None, learn: Learn) -> int:
    if tally.form in WRITTEN_FORMS and learn.everything:
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
    readable = _readable(tally)
    while value < longest and not _keeps_enough(readable, value):
        value *= 2
    whole, kept = _kept(tally, value)
    reason = _(
        "It keeps {rows} of the rows whole and {tokens} of the tokens.",
        rows=_percent(whole),
        tokens=_percent(kept),
    )
    if longest <= value:
        reason = _("No row is longer than {longest:,} tokens.", longest=longest)
    if readable is not tally:
        reason = _(
            "It keeps {rows} of the rows whole. {share} are longer than the {limit:,} tokens that "
            "the model reads: cut or drop those.",
            rows=_percent(whole),
            share=_percent(1 - _kept(tally, tally.limit or longest)[0]),
            limit=tally.limit,
        )
    elif tally.limit and value > tally.limit:
        value = tally.limit
        whole, kept = _kept(tally, value)
        reason = _(
            "The model reads no more than {limit:,} tokens; {share} of the rows are longer. Cut "
            "or drop them.",
            limit=value,
            share=_percent(1 - whole),
        )
        if longest <= value:
            reason = _(
                "No row is longer than {longest:,} tokens, and the model reads {limit:,}.",
                longest=longest,
                limit=value,
            )
    return {"value": value, "reason": reason, "rows_whole": whole, "tokens_kept": kept}


def _readable(tally: Tally) -> Tally:
    """Without rows that the model cannot read whole whatever the length, where they are few: their
    many tokens would ask for its longest, which gains them nothing."""
    limit, total = tally.limit, tally.lengths["total"]
    over = sum(n for length, n in total.items() if limit and length > limit)
    if not limit or not over or tally.form == "text" or over / total.total() > _FEW:
        return tally
    lengths = {**tally.lengths, "total": _up_to(total, limit)}
    return tally.model_copy(update={"lengths": lengths, "sides": _up_to(tally.sides, limit)})


def _up_to(counted: Counter[int], limit: int) -> Counter[int]:
    return Counter({length: n for length, n in counted.items() if length <= limit})


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
        return _("more than 99.9 %")
    if share > 0 and shown == 0:
        return _("less than 0.1 %")
    return f"{shown:g} %"


@lru_cache(maxsize=64)
def _file_digest(path: Path, changed_ns: int, size: int) -> bytes:
    """Remembered while the file stays as it is: a tokenizer has some megabytes."""
    return hashlib.sha256(path.read_bytes()).digest()


def _read(path: Path) -> Tally | None:
    """A file that is missing or damaged is counted anew."""
    try:
        return Tally.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def _count(
    tally: Tally,
    info: DatasetInfo,
    tokenizer: Any,
    lens: Lens,
    max_rows: int | None,
    progress: Callable[[float], None] | None,
) -> None:
    looked_at = min(tally.rows_total, max_rows or tally.rows_total)
    every = max(looked_at // LANGUAGE_ROWS, 1)
    seen: set[bytes] = set()
    for rows in _batches(info, max_rows):
        for row in rows:
            key = row_digest(row)
            tally.duplicates += key in seen
            seen.add(key)
            if tally.rows % every == 0 and tally.languages.total() < LANGUAGE_ROWS:
                tally.languages[_language(row)] += 1
            tally.rows += 1
            _count_columns(tally, row)
        if tokenizer is not None:
            _count_sides(tally, rows, tokenizer, lens)
        if progress:
            progress(tally.rows / max(looked_at, 1))


def _count_sides(tally: Tally, rows: list[Row], tokenizer: Any, lens: Lens) -> None:
    # Where the loss is tells the prompt from the answer, also where a run learns both.
    for sides in sides_of_rows(
        rows,
        tokenizer,
        max_length=None,
        learn=lens.learning.answers,
        system_prompt=lens.system_prompt,
    ):
        _count_tokens(tally, sides)


def _batches(info: DatasetInfo, max_rows: int | None) -> Iterator[list[Row]]:
    """All train rows, or about `max_rows` in stretches from the whole length of the part."""
    path, total = info.rows_path("train"), info.counts.train
    if max_rows is None or total <= max_rows:
        yield from iter_rows(path)
        return
    stretches = max(max_rows // ROWS_A_GROUP, 1)
    size = max_rows // stretches
    for number in range(stretches):
        yield read_slice(path, number * total // stretches, size)


def _language(row: Row) -> str:
    code, confidence = guess(row_text(row))
    return code if code and confidence >= _SURE else _UNSURE


def _count_columns(tally: Tally, row: Row) -> None:
    """What can be seen without a tokenizer: turns and labels."""
    if "labels" in row:
        tally.labels.update(row["labels"] or [_NO_LABEL])
    elif tally.form == "unpaired-preference":
        tally.labels["desirable" if row["label"] else "undesirable"] += 1
    answer = row.get("chosen") or row.get("completion") or ()
    turns = [*(row.get("messages") or row.get("prompt") or ()), *answer]
    if turns:
        tally.turns[sum(turn["role"] != "system" for turn in turns)] += 1


def _count_tokens(tally: Tally, sides: list[Side]) -> None:
    """Adds the lengths of a row's sides."""
    tokens = [side.tokens for side in sides if not isinstance(side.tokens, DataError)]
    if len(tokens) < len(sides):
        tally.unusable += 1
        refused = next(side.tokens for side in sides if isinstance(side.tokens, DataError))
        tally.reason = tally.reason or str(refused)
        return
    earlier, last = tally.lost_thoughts
    lost = tokens[0].lost_thoughts  # both sides of a pair have the same prompt
    tally.lost_thoughts = (earlier + lost[0], last + sum(one.lost_thoughts[1] for one in tokens))
    lengths = [one.full_length for one in tokens]
    learned = [one.loss_tokens for one in tokens]
    found = {"total": max(lengths)}
    if tally.form == "preference":
        found["prompt"] = lengths[0] - learned[0]
        found["chosen"], found["rejected"] = learned[0], learned[1]
    elif tally.form in _SPLIT_FORMS:
        found["prompt"], found["answer"] = lengths[0] - learned[0], learned[0]
    for name, length in found.items():
        tally.lengths.setdefault(name, Counter())[length] += 1
    tally.sides.update(lengths)
    if not all(side.learns for side in sides):
        return
    if all(learned):
        tally.begins[max(_first_loss(one) for one in tokens)] += 1
    else:
        tally.never += 1


def _first_loss(tokens: TokenizedRow) -> int:
    return next(i for i, label in enumerate(tokens.labels) if label != NO_LOSS)
