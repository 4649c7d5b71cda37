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
from core.evaluation.intervals import Estimate
from core.evaluation.marks import agreement, mark, read_judged, read_marks
from core.evaluation.report import Evaluation, Report, load_evaluation
from core.language import _, n_, unpack
from webui import messages, tables
from webui.choice import Dropdown, Radio
from webui.context import CHOICE, App
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
            gr.HTML(f"<h3>{_('Rows')}</h3>")
            with gr.Row(elem_classes="toolbar"):
                self.kind = Radio(
                    [(_(title), kind) for kind, title in KINDS.items()],
                    value="all",
                    label=_("Show"),
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

    def _drawn(self, data: Updates, found: Evaluation, first: int, opened: int = -1) -> str:
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
) -> str:
    """The rows that are asked for, twenty at a time, above them counted by a column. The row with
    the index `opened` is open, else the first one."""
    found = chosen(rows, kind, words, against)
    shown, pager = tables.page(found, first, PAGE)
    open_row = opened if any(row.index == opened for row in shown) else next(iter(shown), None)
    names, marks, judged = titles(report), read_marks(folder), read_judged(folder)
    lines = "".join(
        _line(
            row,
            names,
            against,
            _verdicts(names, against, row.index, marks.get(row.index), judged.get(row.index)),
            row is open_row or row.index == open_row,
        )
        for row in shown
    )
    if not found:
        lines = messages.note(_("No row is so."))
    agreed = _agreed(folder) if marks and judged else ""
    return f"{agreed}{_counted(rows, names, against, by)}<div class='answers'>{lines}</div>{pager}"


def _line(row: AnswerRow, names: dict[str, str], against: str, verdicts: str, is_open: bool) -> str:
    """A row, folded: its number, what became of it, and its question."""
    question = next((str(turn.get("content") or "") for turn in reversed(row.prompt)), row.rendered)
    short = question if len(question) <= _SHORT else f"{question[:_SHORT]}…"
    has_fields = row.sides[TUNED].right is not None
    fields = field_list(row.expected, row.expected, None) if has_fields else ""
    cells = [(_("Expected"), fields or _plain(row.expected))]
    for name, title in names.items():
        if name in row.sides:
            side = row.sides[name]
            label = _("{model}: {score:.0%}", model=title, score=side.score)
            cells.append((label, answer(side, row.expected)))
    drawn = "".join(f"<div><h4>{messages.escape(label)}</h4>{cell}</div>" for label, cell in cells)
    prompt = (
        f"<details class='prompt'><summary>{_('Prompt as the model reads it')}</summary>"
        f"<pre>{messages.escape(row.rendered)}</pre></details>"
    )
    return (
        f"<details class='answer-row card compared'{' open' if is_open else ''}><summary>"
        f"<span class='soft'>{row.index + 1}</span> {_mark(row, against)} "
        f"<span>{messages.escape(short)}</span></summary>{prompt}"
        f'<div class="columns">{drawn}</div>{verdicts}</details>'
    )


def _verdicts(
    names: dict[str, str],
    against: str,
    index: int,
    marked: str | None,
    judged: dict[str, Any] | None,
) -> str:
    """Buttons for a person's own verdict, and the judge's."""
    if not against:
        return ""
    words = {
        "win": _("{model} is better", model=names[TUNED]),
        "tie": _("As good"),
        "loss": _("{model} is better", model=names[against]),
    }
    buttons = "".join(
        f'<button type="button" class="small" data-act="{verdict}" data-id="{index}" '
        f'aria-pressed="{str(verdict == marked).lower()}">{messages.escape(word)}</button>'
        for verdict, word in words.items()
    )
    told = ""
    if judged is not None:
        said = words.get(judged["verdict"], _("no verdict"))
        replies = "".join(
            f"<div class='reply'>{messages.escape(order.get('reply') or '')}</div>"
            f"<p class='soft'>{messages.escape(unpack(order.get('why_not', '')))}</p>"
            for order in judged.get("orders", [])
        )
        told = (
            f"<details class='prompt'><summary>{_('Judge: {verdict}', verdict=said)}</summary>"
            f"{replies}</details>"
        )
    return f"<p class='verdicts'><span class='soft'>{_('You say:')}</span> {buttons}</p>{told}"


def _agreed(folder: Path) -> str:
    """How far the judge says what the person says."""
    found = agreement(folder)
    if found is None:
        return ""
    said = n_(
        "The judge agrees with you on {share:.0%} of {n} row.",
        "The judge agrees with you on {share:.0%} of {n} rows.",
        found.rows,
        share=found.share,
    )
    if found.tau is not None:
        said = _("{told} Kendall's tau is {tau:.2f}.", told=said, tau=found.tau)
    return messages.note(said)


def _mark(row: AnswerRow, against: str) -> str:
    """What became of a row, in a word and a number."""
    gain, score = row.gain(against), row.sides[TUNED].score
    if gain:
        kind, word = ("finished", _("better")) if gain > 0 else ("failed", _("worse"))
        return f'<span class="badge badge-{kind}">{word} {100 * gain:+.0f}</span>'
    if score == 1:
        return f'<span class="badge">{_("right")}</span>'
    return f'<span class="badge badge-stopped">{_("not right")}</span>'


def answer(side: Side, expected: str) -> str:
    """An answer: of JSON a line for each field, else its words, those marked that differ from the
    expected ones."""
    fields = field_list(side.text, expected, side.right) if side.right is not None else ""
    if fields:
        return fields
    given, wanted = _PIECE.findall(side.text), _PIECE.findall(expected)
    if max(len(given), len(wanted)) > _MOST_PIECES:
        return _plain(side.text)
    parts = []
    matcher = difflib.SequenceMatcher(None, wanted, given, autojunk=False)
    if matcher.ratio() < _ALIKE:
        return _plain(side.text)
    for kind, a, b, c, d in matcher.get_opcodes():
        lost, got = "".join(wanted[a:b]), "".join(given[c:d])
        if kind == "equal":
            parts.append(messages.escape(got))
            continue
        if lost.strip():
            parts.append(f"<del>{messages.escape(lost)}</del>")
        parts.append(f"<ins>{messages.escape(got)}</ins>" if got.strip() else got)
    return f'<div class="reply">{"".join(parts)}</div>'


def _plain(text: str) -> str:
    return f'<div class="reply">{messages.escape(text)}</div>'


def _counted(rows: Sequence[AnswerRow], names: dict[str, str], against: str, column: str) -> str:
    """The mean score of the rows with each value of a column."""
    if not column:
        return ""
    models = [name for name in (against, TUNED) if name in names]
    head = "".join(f"<th class='num'>{messages.escape(names[name])}</th>" for name in models)
    last = f"<th class='num'>{_('Difference')}</th>" if against else ""
    lines = "".join(
        f"<tr><th scope='row'>{messages.escape(one.value)}</th>"
        f"<td class='num'>{messages.count(one.rows)}</td>"
        f"{''.join(_share(one.scores[name]) for name in models if name in one.scores)}"
        f"{_points(one.difference) if against else ''}</tr>"
        for one in slices(rows, column, against)
    )
    return (
        "<div class='table-scroll card'><table><thead><tr>"
        f"<th>{messages.escape(column)}</th><th class='num'>{_('Rows')}</th>{head}{last}"
        f"</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _share(number: Estimate) -> str:
    told = f"{100 * number.value:.0f} %"
    if number.low is not None and number.high is not None:
        ends = {"low": f"{100 * number.low:.0f}", "high": f"{100 * number.high:.0f}"}
        told += f" <small>{_('{low} to {high}', **ends)}</small>"
    return f"<td class='num'>{told}</td>"


def _points(number: Estimate | None) -> str:
    if number is None:
        return "<td></td>"
    told = f"{100 * number.value:+.0f}"
    if number.low is not None and number.high is not None:
        ends = {"low": f"{100 * number.low:+.0f}", "high": f"{100 * number.high:+.0f}"}
        told += f" <small>{_('{low} to {high}', **ends)}</small>"
    return f"<td class='num'>{told}</td>"
