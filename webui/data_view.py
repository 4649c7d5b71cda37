"""The pieces of HTML that Data shows of a data set: its numbers, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.data.record import DatasetInfo
from webui import messages


def numbers(info: DatasetInfo, counts: Mapping[str, Any] | None, counting: bool) -> str:
    """Rows kept, held out and dropped; tokens and the longest row when they are counted."""
    known = counts or {}
    items = [
        ("Rows to learn", messages.count(info.counts.train)),
        ("Held out", messages.count(info.counts.eval), "For evaluation; never trained on"),
        ("Dropped", messages.count(info.counts.dropped + _by_steps(info)), _dropped_where(info)),
        *_token_figures(known, "counting" if counting else "-"),
    ]
    if info.counts.test:
        items.insert(2, ("Test", messages.count(info.counts.test), "Seen by no run"))
    return messages.figures(items) + _losses(known) + _dropped_of(info)


def _by_steps(info: DatasetInfo) -> int:
    return sum(result.dropped for result in info.steps)


def _dropped_where(info: DatasetInfo) -> str:
    steps = _by_steps(info)
    if not steps:
        return "Rows that cannot be learned from"
    return f"{info.counts.dropped:,} at the import, {steps:,} by steps: see Clean and shape"


def _token_figures(known: Mapping[str, Any], waiting: str) -> list[tuple[str, str, str]]:
    """Tokens, the longest row and rows that are cut; of many rows the first are counted."""
    tokens = longest = cut = waiting
    about, counted = "", ""
    if known.get("estimated"):
        about, counted = "about ", f"; from the first {known['counted_rows']:,} rows"
    if "train_tokens" in known:
        tokens = about + (messages.short if about else messages.count)(known["train_tokens"])
        longest = f"{messages.count(known.get('longest'))} tokens"
        rows = known.get("cut_rows") or 0
        cut = f"{about}{messages.count(rows)} {'row' if rows == 1 else 'rows'}"
    return [
        ("Tokens", tokens, f"In one pass{counted}"),
        ("Longest row", longest, f"Before the cut{counted}"),
        ("Cut", cut, f"Rows that lose their end{counted}"),
    ]


def _losses(counts: Mapping[str, Any]) -> str:
    """Rows that the model cannot use, which is no fault of the file."""
    lost = counts.get("rows_without_loss", 0) + counts.get("unusable_rows", 0)
    if not lost:
        return ""
    about = "About " if counts.get("estimated") else ""
    rows = "1 row is" if lost == 1 else f"{about}{lost:,} rows are"
    reason = counts.get("first_reason") or ""
    return messages.note(f"{rows} left out with this model: {reason}", "stopped")


def _dropped_of(info: DatasetInfo) -> str:
    if not info.counts.dropped:
        return ""
    lines = [
        (f"{row.file} line {row.line}".strip(), f"{row.reason} ({row.part})")
        for row in info.dropped
    ]
    return _dropped(info.counts.dropped, lines, "dropped at the import")


def _dropped(count: int, lines: Sequence[tuple[str, str]], what: str) -> str:
    """A fold that lists rows with their reasons."""
    items = "".join(
        f"<li><b>{messages.escape(where)}</b> {messages.escape(reason)}</li>"
        for where, reason in lines
    )
    more = f"<li>and {count - len(lines):,} more</li>" if count > len(lines) else ""
    rows = "1 row" if count == 1 else f"{count:,} rows"
    return (
        f'<details class="dropped"><summary>{rows} {what}: which and why</summary>'
        f"<ul>{items}{more}</ul></details>"
    )


def about(info: DatasetInfo) -> str:
    """Where the data set comes from and how it was split."""
    files = ", ".join(source.file for source in info.sources)
    split = info.split
    if split.eval_source:
        held_out = f"held out: {split.eval_source}"
    elif info.counts.eval:
        held_out = f"held out: {split.eval_fraction:.0%} by seed {split.seed}"
    else:
        held_out = "nothing held out"
    text = " ".join(part for part in (info.description, info.form_reason) if part)
    return (
        f'<p class="aside">{messages.escape(text)}</p>'
        f'<p class="aside">From {messages.escape(files)}; {messages.escape(held_out)}.</p>'
    )
