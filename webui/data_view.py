"""The pieces of HTML that Data shows: what was recognised, numbers, rows, tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.data.formats import FORMS
from core.data.record import DatasetInfo
from core.data.sources import SourceReport
from webui import messages

# Longest text of one cell of a raw row, in characters.
CELL = 400


def recognised(report: SourceReport) -> str:
    """What a file is, why, and which of its rows would be dropped."""
    title = FORMS[report.form].title if report.form else "Not recognised"
    total = "more than 64 MB" if report.total_rows is None else f"{report.total_rows:,} rows"
    head = (
        f'<div class="recognised"><h3>{messages.escape(report.path.name)}: '
        f"{messages.escape(title)}</h3><p>{messages.escape(report.form_reason)} "
        f"{messages.escape(report.hint)}</p><p class='soft'>{messages.escape(report.format)}, "
        f"{total}, columns {messages.escape(', '.join(report.columns))}</p></div>"
    )
    if not report.problem_count:
        return head
    lines = [(f"line {problem['line']}", problem["reason"]) for problem in report.problems]
    return head + _dropped(report.problem_count, lines, "would be dropped")


def raw_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """The first rows as they stand in the file."""
    cards = "".join(_raw_row(row) for row in rows)
    return f'<div class="rows">{cards}</div>'


def _raw_row(row: Mapping[str, Any]) -> str:
    cells = "".join(
        f"<div><dt>{messages.escape(name)}</dt><dd>{messages.escape(_cut(value))}</dd></div>"
        for name, value in row.items()
    )
    return f'<article class="row-card"><dl class="cells">{cells}</dl></article>'


def _cut(value: Any) -> str:
    text = str(value)
    return text if len(text) <= CELL else f"{text[:CELL]} ... ({len(text):,} characters)"


def numbers(info: DatasetInfo, counts: Mapping[str, Any] | None, counting: bool) -> str:
    """Rows kept, held out and dropped; tokens and the longest row when they are counted."""
    known = counts or {}
    waiting = "counting" if counting else "-"
    tokens = known.get("train_tokens")
    longest = known.get("longest")
    items = [
        ("Rows to learn", messages.count(info.counts.train)),
        ("Held out", messages.count(info.counts.eval), "For evaluation; never trained on"),
        ("Dropped", messages.count(info.counts.dropped), "Rows that cannot be learned from"),
        ("Tokens", waiting if tokens is None else messages.count(tokens), "In one pass"),
        (
            "Longest row",
            waiting if longest is None else f"{messages.count(longest)} tokens",
            "Before the cut",
        ),
        ("Cut", waiting if tokens is None else f"{messages.count(known.get('cut_rows'))} rows"),
    ]
    return messages.figures(items) + _losses(known) + _dropped_of(info)


def _losses(counts: Mapping[str, Any]) -> str:
    """Rows that the model cannot use, which is no fault of the file."""
    lost = counts.get("rows_without_loss", 0) + counts.get("unusable_rows", 0)
    if not lost:
        return ""
    rows = "1 row is" if lost == 1 else f"{lost:,} rows are"
    reason = counts.get("first_reason") or ""
    return messages.note(f"{rows} left out with this model: {reason}", "stopped")


def _dropped_of(info: DatasetInfo) -> str:
    if not info.counts.dropped:
        return ""
    lines = [
        (f"{row.file} line {row.line}".strip(), f"{row.reason} ({row.part})")
        for row in info.dropped
    ]
    return _dropped(info.counts.dropped, lines, "dropped")


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


def rows(found: Sequence[Mapping[str, Any]], first: int) -> str:
    """Prepared rows as cards of turns, numbered from `first` (0 is the first row)."""
    cards = "".join(_card(first + place, _turns(row)) for place, row in enumerate(found))
    return f'<div class="rows">{cards}</div>'


def _card(number: int, body: str, note: str = "") -> str:
    small = f"<span>{messages.escape(note)}</span>" if note else ""
    return (
        f'<article class="row-card"><header>Row {number + 1}{small}</header>{body}</article>'
    )


def _turns(row: Mapping[str, Any]) -> str:
    if "text" in row:
        return messages.turn("text", row["text"])
    turns = row.get("messages") or [*row.get("prompt", []), *row.get("completion", [])]
    return "".join(messages.turn(str(turn["role"]), turn["content"]) for turn in turns)


def tokens(seen: Sequence[Mapping[str, Any]], first: int, max_length: int) -> str:
    """Rows as the model sees them: each token a chip, those that carry loss in the accent."""
    cards = "".join(
        _card(first + place, _chips(row, max_length), _lengths(row))
        for place, row in enumerate(seen)
    )
    return f'<div class="rows">{cards}</div>'


def _lengths(row: Mapping[str, Any]) -> str:
    return f"{row['full_length']:,} tokens, {row['loss_tokens']:,} carry loss"


def _chips(row: Mapping[str, Any], max_length: int) -> str:
    error = messages.note(str(row["error"]), "failed") if row["error"] else ""
    chips = "".join(_chip(str(text), int(token), bool(loss)) for text, token, loss in row["tokens"])
    left = row["full_length"] - row["length"]
    cut = ""
    if left > 0:
        rows_left = "1 token" if left == 1 else f"{left:,} tokens"
        cut = f'<div class="cut">cut at {max_length:,}: {rows_left} not seen</div>'
    return f'{error}<div class="tokens">{chips}</div>{cut}'


def _chip(text: str, token: int, loss: bool) -> str:
    shown = messages.escape(text).replace("\n", "&#8629;").replace("\t", "&#8677;")
    kind = "t loss" if loss else "t"
    line = "<br>" * min(text.count("\n"), 2)
    return f'<span class="{kind}" title="token {token}">{shown}</span>{line}'


def legend(model: str, max_length: int) -> str:
    """What the chips mean, and whose tokens they are."""
    return (
        f'<p class="aside legend">Tokens of {messages.escape(model)}, cut at {max_length:,} '
        '(both from Configure). <span class="t loss">Learned from</span> '
        '<span class="t">only read</span></p>'
    )
