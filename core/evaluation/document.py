"""A report to take along: as HTML and Markdown with its rows, as JSON, and its rows as JSONL."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from html import escape
from pathlib import Path

from core.errors import DataError
from core.evaluation.answer_rows import BASE, AnswerRow, chosen, columns, read_answers, slices
from core.evaluation.general import AREAS
from core.evaluation.intervals import Estimate
from core.evaluation.metrics import METRICS
from core.evaluation.report import ANSWERS, Report, read_report
from core.evaluation.verdict import notes, shown, verdict
from core.language import _, language
from core.workspace import write_atomic

ENDINGS = (".html", ".md", ".json", ".jsonl")
_ROWS = 50

Table = list[list[str]]


def write_document(folder: Path, file: Path) -> None:
    """Writes the report of the evaluation in a folder, in the form that the file's ending says.

    Raises DataError for another ending, and where there is no report.
    """
    report = read_report(folder)
    if report is None:
        raise DataError(_("There is no report in {folder}.", folder=folder), _("Evaluate first."))
    if file.suffix == ".jsonl":
        shutil.copyfile(folder / ANSWERS, file)
        return
    write_atomic(file, document(folder, report, file.suffix))


def document(folder: Path, report: Report, ending: str) -> str:
    """The text of it. Raises DataError for an ending that there is not."""
    if ending == ".json":
        return json.dumps(shown(report), ensure_ascii=False, indent=1) + "\n"
    if ending not in ENDINGS:
        raise DataError(
            _("A report cannot be written as {ending}.", ending=ending or "?"),
            _("Take {names}.", names=", ".join(ENDINGS)),
        )
    rows = read_answers(folder)
    return _markdown(report, rows) if ending == ".md" else _html(report, rows)


def titles(report: Report) -> dict[str, str]:
    """What each model is called, by the name of its part: the base first, if it was measured."""
    base = {BASE: _("Base")} if report.base is not None else {}
    others = {f"other{at}": other.title for at, other in enumerate(report.others, 1)}
    return {**base, **others, "tuned": _("Tuned")}


def numbers_of_all(report: Report) -> list[tuple[str, list[Estimate | None]]]:
    """(what is measured, the number of each model in the order of `titles`)."""
    others = [other.numbers for other in report.others]
    sides = [*([report.base] if report.base is not None else []), *others, report.tuned]
    found: list[tuple[str, list[Estimate | None]]] = []
    for key, metric in METRICS.items():
        number = report.tuned.get(key)
        if isinstance(number, dict):
            for name in number:
                line = [_part(side.get(key), name) for side in sides]
                found.append((_("{metric} {field}", metric=metric.title, field=name), line))
        elif number is not None:
            found.append((metric.title, [_whole(side.get(key)) for side in sides]))
    return found


def _part(number: object, name: str) -> Estimate | None:
    return number.get(name) if isinstance(number, dict) else None


def _whole(number: object) -> Estimate | None:
    return number if isinstance(number, Estimate) else None


def spelled(number: Estimate | None) -> str:
    if number is None:
        return ""
    if number.low is None or number.high is None:
        return f"{number.value:.4g}"
    told = {"value": number.value, "low": number.low, "high": number.high}
    return _("{value:.4g} ({low:.4g} to {high:.4g})", **told)


def _tables(report: Report, rows: Sequence[AnswerRow]) -> list[tuple[str, Table]]:
    """(title, lines of cells, the first of them the heads)."""
    head = [_("Number"), *titles(report).values()]
    lines = [[name, *map(spelled, cells)] for name, cells in numbers_of_all(report)]
    found: list[tuple[str, Table]] = [(_("Numbers, with 95 % intervals"), [head, *lines])]
    if report.general:
        head = [_("Area"), _("Language"), _("Prompts"), _("Base"), _("Tuned")]
        skilled = [
            [
                _(AREAS.get(one.area, one.area)),
                one.language,
                str(one.prompts),
                "" if one.base is None else str(one.base),
                str(one.tuned),
            ]
            for one in report.general
        ]
        found.append((_("General prompts answered well"), [head, *skilled]))
    for column in columns(rows):
        head = [column, _("Rows"), _("Base"), _("Tuned")]
        cut = [
            [one.value, str(one.rows), spelled(one.scores.get(BASE)), spelled(one.scores["tuned"])]
            for one in slices(rows, column, BASE)
        ]
        found.append((_("By {column}", column=column), [head, *cut]))
    return found


def _told(report: Report) -> list[str]:
    model = {"model": report.model, "dataset": report.dataset.name, "rows": report.rows}
    what = _("{model} on {rows} rows of {dataset}", **model)
    return [verdict(report), what, *notes(report)]


def _markdown(report: Report, rows: Sequence[AnswerRow]) -> str:
    def cell(text: str) -> str:
        return " ".join(text.split()).replace("|", "\\|")

    def fenced(text: str) -> str:
        fence = "```"
        while fence in text:
            fence += "`"
        return f"{fence}\n{text}\n{fence}"

    parts = [f"# {_('Evaluation')}", *_told(report)]
    for title, (head, *lines) in _tables(report, rows):
        table = [head, ["---"] * len(head), *lines]
        drawn = "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in table)
        parts += [f"## {title}", drawn]
    for row in chosen(rows, "all", "", BASE)[:_ROWS]:
        parts.append(f"## {_('Row {row}', row=row.index + 1)}")
        parts += [fenced(row.rendered), f"{_('Expected')}:", fenced(row.expected)]
        for name, title in titles(report).items():
            if name in row.sides:
                side = row.sides[name]
                parts += [f"{cell(title)} ({side.score:.3g}):", fenced(side.text)]
    return "\n\n".join(parts) + "\n"


_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
    "color:#1c262b;background:#fff}table{border-collapse:collapse;margin:1rem 0}"
    "td,th{border:1px solid #c9d1d6;padding:.3rem .6rem;text-align:left;vertical-align:top}"
    "pre{white-space:pre-wrap;background:#f3f6f7;padding:.6rem;overflow-wrap:anywhere}"
    "article{border-top:1px solid #c9d1d6;margin-top:1.5rem}svg{max-width:100%}"
)


def _html(report: Report, rows: Sequence[AnswerRow]) -> str:
    first, *others = (f"<p>{escape(text)}</p>" for text in _told(report))
    parts = [f"<h1>{_('Evaluation')}</h1><strong>{first}</strong>", *others, _plot(report)]
    for title, (head, *lines) in _tables(report, rows):
        heads = "".join(f"<th>{escape(text)}</th>" for text in head)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in line)}</tr>" for line in lines
        )
        parts.append(f"<h2>{escape(title)}</h2><table><tr>{heads}</tr>{body}</table>")
    for row in chosen(rows, "all", "", BASE)[:_ROWS]:
        answers = "".join(
            f"<h4>{escape(title)} ({row.sides[name].score:.3g})</h4>"
            f"<pre>{escape(row.sides[name].text)}</pre>"
            for name, title in titles(report).items()
            if name in row.sides
        )
        parts.append(
            f"<article><h3>{_('Row {row}', row=row.index + 1)}</h3>"
            f"<pre>{escape(row.rendered)}</pre><h4>{_('Expected')}</h4>"
            f"<pre>{escape(row.expected)}</pre>{answers}</article>"
        )
    return (
        f'<!doctype html><html lang="{language()}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>'
        f"{_('Evaluation')}</title><style>{_STYLE}</style></head><body>{''.join(parts)}"
        "</body></html>\n"
    )


def _plot(report: Report) -> str:
    """Each share of each model as a point with its interval."""
    drawn, names = [], titles(report)
    shares = {METRICS[key].title for key in report.tuned if METRICS[key].is_share}
    y = 8
    for name, cells in numbers_of_all(report):
        if name not in shares:
            continue
        drawn.append(f'<text x="0" y="{y + 12}">{escape(name)}</text>')
        for at, (number, title) in enumerate(zip(cells, names.values(), strict=True)):
            if number is None:
                continue
            low, high = number.low or number.value, number.high or number.value
            colour, middle = _COLOURS[at % len(_COLOURS)], y + 8
            drawn.append(
                f'<line x1="{_x(low)}" x2="{_x(high)}" y1="{middle}" y2="{middle}" '
                f'stroke="{colour}" stroke-width="3"/><circle cx="{_x(number.value)}" '
                f'cy="{middle}" r="5" fill="{colour}"><title>{escape(title)}</title></circle>'
                f'<text x="620" y="{y + 12}" fill="{colour}">{escape(title[:24])}</text>'
            )
            y += 18
        y += 6
    if not drawn:
        return ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 {y + 4}" width="800" '
        f'font-family="sans-serif" font-size="12">{"".join(drawn)}</svg>'
    )


_COLOURS = ("#8a959c", "#0f6f78", "#c2571a", "#5b4a9e", "#3b7a2a")


def _x(value: float) -> str:
    return f"{220 + 380 * value:.1f}"
