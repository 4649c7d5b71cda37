"""What Data shows of rows before they are imported: what they are taken for, and what they become.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from core.data.conversion import convert
from core.data.forms import FORMS
from core.data.inspection import SourceReport
from core.data.values import Unusable
from webui import messages, row_cards
from webui.import_sources import Found

SHOWN_ROWS = 3
# Longest text of one cell of a raw row, in characters.
_CELL = 400
_LISTED = 20


def recognised(found: Found) -> str:
    """What the first source is, and why; what else was brought."""
    report = found.report
    title = FORMS[report.form].title if report.form else "Not recognised"
    facts = [_kind(report), _rows(found.total_rows), _columns(report.columns)]
    name = messages.escape(found.sources[0] if report.container == "hub" else report.path.name)
    return (
        f'<div class="recognised"><h3>{name}: {messages.escape(title)}</h3>'
        f"<p>{messages.escape(report.form_reason)} {messages.escape(report.hint)}</p>"
        f"<p class='soft'>{messages.escape('; '.join(facts))}</p></div>"
        + _files(report) + _wrong(found)
    )


def _kind(report: SourceReport) -> str:
    inside = {"gzip": " in gzip", "zip": " in a zip archive", "folder": " in a folder"}
    encoding = f", {report.encoding}" if report.encoding else ""
    if report.container == "hub":
        return "data set of the Hub"
    return report.format + inside.get(report.container, "") + encoding


def _rows(total: int | None) -> str:
    if total is None:
        return "rows not counted yet, only the beginning was looked at"
    return "1 row" if total == 1 else f"{total:,} rows"


def _columns(columns: Sequence[str]) -> str:
    named = ", ".join(columns[:_LISTED])
    return f"columns {named}" + (" and more" if len(columns) > _LISTED else "")


def _files(report: SourceReport) -> str:
    if len(report.files) < 2 and not report.skipped:
        return ""
    count = "1 file" if len(report.files) == 1 else f"{len(report.files):,} files"
    left = f", {len(report.skipped):,} left out" if report.skipped else ""
    items = [f"<li>{messages.escape(name)}</li>" for name in report.files[:_LISTED]]
    items += [f"<li>Left out: {messages.escape(name)}</li>" for name in report.skipped[:_LISTED]]
    return (
        f'<details class="dropped files"><summary>{count}{left}</summary>'
        f"<ul>{''.join(items)}</ul></details>"
    )


def _wrong(found: Found) -> str:
    return "".join(messages.error(f"{name}: {reason}") for name, reason in found.wrong)


def would_drop(report: SourceReport) -> str:
    """The rows that cannot be learned from with this mapping, each with its reason."""
    if not report.problem_count:
        return ""
    several = len(report.files) > 1
    lines = [
        (
            f"{problem['file']} line {problem['line']}" if several else f"line {problem['line']}",
            problem["reason"],
        )
        for problem in report.problems
    ]
    items = "".join(
        f"<li><b>{messages.escape(where)}</b> {messages.escape(reason)}</li>"
        for where, reason in lines
    )
    left = report.problem_count - len(lines)
    more = f"<li>and {left:,} more</li>" if left > 0 else ""
    rows = "1 row" if report.problem_count == 1 else f"{report.problem_count:,} rows"
    return (
        f'<details class="dropped"><summary>{rows} would be dropped: which and why</summary>'
        f"<ul>{items}{more}</ul></details>"
    )


def first_rows(
    rows: Sequence[Mapping[str, Any]], form: str, mapping: Mapping[str, str], system_prompt: str
) -> str:
    """The first rows as they stand in the file, and beside each what is learned from it."""
    pairs = "".join(
        _pair(place, row, form, mapping, system_prompt)
        for place, row in enumerate(rows[:SHOWN_ROWS])
    )
    return (
        '<div class="pairs"><div class="pair-heads"><h4>In the file</h4>'
        f"<h4>As it will be kept</h4></div>{pairs}</div>"
    )


def raw_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """The first rows as they stand in the file, while nothing can be made of them."""
    cards = "".join(f'<article class="row-card">{_raw(row)}</article>' for row in rows[:SHOWN_ROWS])
    return f'<div class="rows">{cards}</div>'


def _pair(
    place: int,
    row: Mapping[str, Any],
    form: str,
    mapping: Mapping[str, str],
    system_prompt: str,
) -> str:
    try:
        kept = row_cards.rows([convert(dict(row), form, mapping, system_prompt)], [place])
    except Unusable as error:
        kept = messages.note(f"Would be dropped: {error}.", "stopped")
    return f'<article class="pair"><div>{_raw(row)}</div><div>{kept}</div></article>'


def _raw(row: Mapping[str, Any]) -> str:
    cells = "".join(
        f"<div><dt>{messages.escape(name)}</dt><dd>{messages.escape(_cut(value))}</dd></div>"
        for name, value in row.items()
    )
    return f'<dl class="cells">{cells}</dl>'


def _cut(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _CELL else f"{text[:_CELL]} ... ({len(text):,} characters)"
