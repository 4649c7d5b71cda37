"""The rows of an evaluation: chosen by what became of them, found by words, each with its prompt as
the model read it and every model's answer beside the expected one; and counted by a column."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from core.evaluation.answer_rows import (
    KINDS,
    TUNED,
    AnswerRow,
    Side,
    chosen,
    columns,
    is_of,
    read_answers,
    slices,
)
from core.evaluation.document import titles
from core.evaluation.marks import agreement, mark, read_judged, read_marks
from core.evaluation.report import Evaluation, Report, load_evaluation
from core.language import _, n_, unpack
from webui import messages, tables
from webui.choice import Dropdown, Radio
from webui.context import CHOICE, App
from webui.html import html
from webui.report import field_list

PAGE = 20
_SHORT = 120  # characters of a question that stand in a row's line
_PIECE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|\s+|[^\w\s]")
# Longer texts are shown without marks: comparing takes the square of their length.
_MOST_PIECES = 2000
# Of texts that have less in common every word would be marked.
_ALIKE = 0.4

Updates = dict[Component, Any]


class AnswersView:
    """Its components, handlers and wiring. `shown` holds which evaluation it shows."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.shown = gr.State(("", ""))  # run, evaluation
        self.first = gr.State(0)
        with gr.Column(visible=False, elem_id="answers") as self.box:
            gr.HTML(html.answers.heading())
            with gr.Row(elem_classes="toolbar"):
                self.kind = Radio(
                    [(_(title), kind) for kind, title in KINDS.items()],
                    value="all",
                    label=_("Show"),
                    info=_("By each answer's score. Failed: it is below the full one."),
                    elem_id="answers-kind",
                    elem_classes="pills",
                    scale=4,
                    min_width=280,
                )
                self.against = Dropdown(
                    [], label=_("Against"), elem_id="answers-against", min_width=140, visible=False
                )
                self.by = Dropdown(
                    [], label=_("Count by"), elem_id="answers-by", min_width=140, visible=False
                )
                self.words = gr.Textbox(
                    label=_("Find"),
                    placeholder=_("Words in prompt or answer"),
                    elem_id="answers-find",
                    max_lines=1,
                    min_width=180,
                    scale=2,
                )
            self.table = gr.HTML(
                elem_id="answers-rows", apply_default_css=False, js_on_load=tables.CLICKS
            )

    @property
    def outputs(self) -> set[Any]:
        return {
            self.shown, self.first, self.box, self.kind, self.against, self.by, self.words,
            self.table,
        }  # fmt: skip

    def show(self, run_id: str, found: Evaluation | None) -> Updates:
        """Another evaluation, or none: from its first row, all of them."""
        report = found.report if found else None
        rows = read_answers(found.folder) if found and report else []
        if not found or report is None or not rows:
            return {self.box: gr.Column(visible=False), self.shown: ("", ""), self.table: ""}
        others = [name for name in titles(report) if name != TUNED]
        named = [(_("nothing"), ""), *((name, name) for name in columns(rows))]
        against = others[0] if others else ""
        return {
            self.box: gr.Column(visible=True),
            self.shown: (run_id, found.id),
            self.first: 0,
            self.kind: gr.Radio(_kinds(rows, against), value="all"),
            self.against: gr.Dropdown(
                [(titles(report)[name], name) for name in others],
                value=against or None,
                visible=len(others) > 1,
            ),
            self.by: gr.Dropdown(named, value="", visible=len(named) > 1),
            self.words: "",
            self.table: drawn(found.folder, report, rows, "all", "", against, "", 0),
        }

    def choose(self, data: Updates) -> Updates:
        """What was chosen, from its first row."""
        found = self._found(data)
        if found is None:
            return {self.box: gr.Column(visible=False)}
        kinds = _kinds(read_answers(found.folder), data[self.against] or "")
        table = self._drawn(data, found, 0)
        return {self.kind: gr.Radio(kinds), self.first: 0, self.table: table}

    def turn(self, data: Updates, event: gr.EventData) -> Updates:
        """Another page."""
        found = self._found(data)
        if found is None:
            return {self.box: gr.Column(visible=False)}
        first = int(getattr(event, "first", 0))
        return {self.first: first, self.table: self._drawn(data, found, first)}

    def mark(self, data: Updates, event: gr.EventData) -> Updates:
        """A person's own verdict on a row, which stays where it is."""
        found = self._found(data)
        if found is None:
            return {self.box: gr.Column(visible=False)}
        mark(found.folder, int(event.id), str(event.act))
        drawn = self._drawn(data, found, data[self.first], opened=int(event.id))
        return {self.table: drawn}

    def _drawn(self, data: Updates, found: Evaluation, first: int, opened: int = -1) -> Markup:
        rows = read_answers(found.folder)
        asked = data[self.kind], data[self.words], data[self.against] or "", data[self.by] or ""
        assert found.report is not None, "it was shown"
        return drawn(found.folder, found.report, rows, *asked, first, opened)

    def _found(self, data: Updates) -> Evaluation | None:
        """The evaluation that is shown, if it is still there."""
        run_id, name = data[self.shown]
        if not name:
            return None
        found = load_evaluation(self.app.workspace.run(run_id).evaluations / name)
        return found if found.report else None

    def wire(self) -> None:
        inputs = {self.shown, self.kind, self.against, self.by, self.words, self.first}
        events = [self.kind.input, self.against.input, self.by.input, self.words.input]
        chosen = {self.kind, self.first, self.table, self.box}
        gr.on(events, self.choose, inputs, chosen, **CHOICE)
        self.table.input(self.turn, inputs, {self.table, self.first, self.box}, **CHOICE)
        self.table.apply(self.mark, inputs, {self.table, self.box}, **CHOICE)


def _kinds(rows: Sequence[AnswerRow], against: str) -> list[tuple[str, str]]:
    """What there is to choose, with how many rows each is; without a model to compare with, what
    compares is left out."""
    counts = {kind: sum(is_of(kind, row, against) for row in rows) for kind in KINDS}
    there = [kind for kind in KINDS if against or kind in ("all", "failed")]
    return [(_("{kind} ({rows})", kind=_(KINDS[kind]), rows=counts[kind]), kind) for kind in there]


def drawn(
    folder: Path,
    report: Report,
    rows: Sequence[AnswerRow],
    kind: str,
    words: str,
    against: str,
    by: str,
    first: int,
    opened: int = -1,
) -> Markup:
    """The rows that are asked for, twenty at a time, above them counted by a column. The row with
    the index `opened` is open, else the first one."""
    found = chosen(rows, kind, words, against)
    shown, pager = tables.page(found, first, PAGE)
    open_row = opened if any(row.index == opened for row in shown) else next(iter(shown), None)
    names, marks, judged = titles(report), read_marks(folder), read_judged(folder)
    lines = [
        _line(
            row,
            names,
            against,
            _verdicts(names, against, row.index, marks.get(row.index), judged.get(row.index)),
            row is open_row or row.index == open_row,
        )
        for row in shown
    ]
    return html.answers.answers(
        agreed=_agreed(folder) if marks and judged else Markup(),
        counted=_counted(rows, names, against, by),
        rows=lines or [messages.note(_("No row is so."))],
        pager=pager,
    )


def _line(
    row: AnswerRow, names: dict[str, str], against: str, verdicts: Markup, is_open: bool
) -> Markup:
    """A row, folded: its number, what became of it, and its question."""
    question = next((str(turn.get("content") or "") for turn in reversed(row.prompt)), row.rendered)
    has_fields = row.sides[TUNED].right is not None
    fields = field_list(row.expected, row.expected, None) if has_fields else Markup()
    columns = [(_("Expected"), fields or html.report.reply(row.expected))]
    for name, title in names.items():
        if name in row.sides:
            side = row.sides[name]
            label = _("{model}: {score:.0%}", model=title, score=side.score)
            columns.append((label, answer(side, row.expected)))
    return html.answers.row(
        number=row.index + 1,
        gain=row.gain(against),
        score=row.sides[TUNED].score,
        question=question if len(question) <= _SHORT else f"{question[:_SHORT]}…",
        prompt=row.rendered,
        columns=columns,
        verdicts=verdicts,
        is_open=is_open,
    )


def _verdicts(
    names: dict[str, str],
    against: str,
    index: int,
    marked: str | None,
    judged: dict[str, Any] | None,
) -> Markup:
    """Buttons for a person's own verdict, and the judge's."""
    if not against:
        return Markup()
    words = {
        "win": _("{model} is better", model=names[TUNED]),
        "tie": _("As good"),
        "loss": _("{model} is better", model=names[against]),
    }
    said, orders = "", []
    if judged is not None:
        said = words.get(judged["verdict"], _("no verdict"))
        orders = [
            (order.get("reply") or "", unpack(order.get("why_not", "")))
            for order in judged.get("orders", [])
        ]
    return html.answers.verdicts(index, words, marked, said, orders)


def _agreed(folder: Path) -> Markup:
    """How far the judge says what the person says."""
    found = agreement(folder)
    if found is None:
        return Markup()
    said = n_(
        "The judge agrees with you on {share:.0%} of {n} row.",
        "The judge agrees with you on {share:.0%} of {n} rows.",
        found.rows,
        share=found.share,
    )
    if found.tau is not None:
        said = _("{told} Kendall's tau is {tau:.2f}.", told=said, tau=found.tau)
    return messages.note(said)


def answer(side: Side, expected: str) -> Markup:
    """An answer: of JSON a line for each field, else its words, those marked that differ from the
    expected ones."""
    fields = field_list(side.text, expected, side.right) if side.right is not None else Markup()
    if fields:
        return fields
    given, wanted = _PIECE.findall(side.text), _PIECE.findall(expected)
    if max(len(given), len(wanted)) > _MOST_PIECES:
        return html.report.reply(side.text)
    parts: list[tuple[str, str]] = []
    matcher = difflib.SequenceMatcher(None, wanted, given, autojunk=False)
    if matcher.ratio() < _ALIKE:
        return html.report.reply(side.text)
    for kind, a, b, c, d in matcher.get_opcodes():
        lost, got = "".join(wanted[a:b]), "".join(given[c:d])
        if kind != "equal" and lost.strip():
            parts.append(("lost", lost))
        parts.append(("given" if kind != "equal" and got.strip() else "", got))
    return html.report.reply(html.answers.marked(parts))


def _counted(rows: Sequence[AnswerRow], names: dict[str, str], against: str, column: str) -> Markup:
    """The mean score of the rows with each value of a column."""
    if not column:
        return Markup()
    models = {name: names[name] for name in (against, TUNED) if name in names}
    return html.answers.counted(column, models, slices(rows, column, against), bool(against))
