"""A report to take along: as HTML and Markdown with its rows, as JSON, and its rows as JSONL."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from markupsafe import Markup

from core.errors import DataError
from core.evaluation.answer_rows import BASE, AnswerRow, chosen, columns, read_answers, slices
from core.evaluation.general import AREAS
from core.evaluation.intervals import Estimate
from core.evaluation.metrics import METRICS
from core.evaluation.report import ANSWERS, Report, read_report
from core.evaluation.verdict import notes, shown, verdict
from core.html import Templates
from core.language import _, language
from core.workspace import write_atomic

ENDINGS = (".html", ".md", ".json", ".jsonl")
_ROWS = 50

html = Templates(Path(__file__).parent)

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


def _html(report: Report, rows: Sequence[AnswerRow]) -> Markup:
    names = titles(report).items()
    answered = [
        (row, [(title, row.sides[name]) for name, title in names if name in row.sides])
        for row in chosen(rows, "all", "", BASE)[:_ROWS]
    ]
    tables = _tables(report, rows)
    drawn = html.document.document(language(), _told(report), _drawn(report), tables, answered)
    return drawn + "\n"


def _drawn(report: Report) -> list[dict[str, Any]]:
    """What is drawn of each share: its name, the points of the models, and how far down it goes."""
    drawn, names = [], titles(report).values()
    shares = {METRICS[key].title for key in report.tuned if METRICS[key].is_share}
    y = 8
    for name, cells in numbers_of_all(report):
        if name not in shares:
            continue
        sides = zip(cells, cycle(_COLOURS), names, strict=False)
        known = [side for side in sides if side[0] is not None]
        points = [(y + 18 * at, *side) for at, side in enumerate(known)]
        below = y + 18 * len(points) + 6
        drawn.append({"name": name, "y": y, "points": points, "below": below})
        y = below
    return drawn


_COLOURS = ("#8a959c", "#0f6f78", "#c2571a", "#5b4a9e", "#3b7a2a")
