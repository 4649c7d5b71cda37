"""An evaluation's report as HTML: the verdict, then numbers with intervals, then rows; of a
classifier each label's numbers, and what was taken for what."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from core.evaluation.intervals import Estimate
from core.evaluation.metrics import METRICS
from core.evaluation.report import KnownText, LabelNumbers, Report, Row
from core.evaluation.verdict import notes, verdict
from webui import messages

SHOWN_ROWS = 20


def report(found: Report, rows_shown: int = SHOWN_ROWS) -> str:
    """The whole report."""
    told = "".join(messages.note(text) for text in notes(found))
    rows = _texts(found) if found.measured == "texts" else _rows(found, rows_shown)
    return (
        f'<p class="verdict">{messages.escape(verdict(found))}</p>{_context(found)}{told}'
        f'<div class="card">{_numbers(found)}</div>{label_parts(found)}{rows}'
    )


def _context(found: Report) -> str:
    rows = f"{found.rows} rows" if found.rows != 1 else "1 row"
    part = "held-out" if found.part == "eval" else "training"
    name = "finished model" if found.checkpoint == "final" else found.checkpoint
    told = (
        f"{rows} of the {part} part of {found.dataset.name}, {name}, "
        f"{found.settings.dtype} on {found.settings.device}, "
        f"{messages.duration(found.seconds)}. Intervals are 95 %."
    )
    return f'<p class="soft">{messages.escape(told)}</p>'


def _numbers(found: Report) -> str:
    before_name, base = baseline(found) or ("Base", found.base)
    kinds = {rule.name: rule.score for rule in found.rules}
    lines = []
    for key, metric in METRICS.items():
        number, before = found.tuned.get(key), (base or {}).get(key)
        if isinstance(number, Estimate):
            sides = [number] if base is None else [before, number]
            lines.append(_line(metric.title, metric.meaning, sides, metric.is_share))
        for name, part in (number if isinstance(number, dict) else {}).items():
            is_near = key == "fields" and kinds.get(name) == "token_f1"
            meaning = "Right means half of the words or more" if is_near else metric.meaning
            sides = [part] if base is None else [(before or {}).get(name), part]
            lines.append(_line(f"{metric.title} {name}", meaning, sides, metric.is_share))
    head = f"<th>{messages.escape(before_name)}</th>" if base else ""
    return (
        '<div class="table-scroll"><table class="numbers"><thead><tr><th></th>'
        f"{head}<th>Tuned</th></tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _line(label: str, meaning: str, sides: list[Estimate | None], share: bool) -> str:
    kinds = ("base", "tuned")[-len(sides) :]
    cells = "".join(_cell(side, share, kind) for side, kind in zip(sides, kinds, strict=True))
    head = f'<th scope="row" title="{messages.escape(meaning)}">{messages.escape(label)}</th>'
    return f"<tr>{head}{cells}</tr>"


def _cell(number: Estimate | None, share: bool, kind: str) -> str:
    """A number, its interval in small print and, for a share, as a bar."""
    if number is None:
        return "<td></td>"

    def text(value: float) -> str:
        return f"{100 * value:.0f}" if share else f"{value:.3f}" if value < 100 else f"{value:,.0f}"

    unit = " %" if share else ""
    low, high = number.low, number.high
    interval = span = bar = ""
    if low is not None and high is not None:
        interval = f"<small>{text(low)} to {text(high)}</small>"
        span = f'<b style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></b>'
    if share:
        filled = f'<i style="width:{100 * number.value:.1f}%"></i>'
        bar = f'<span class="share {kind}">{filled}{span}</span>'
    return f'<td class="num"><strong>{text(number.value)}{unit}</strong> {interval}{bar}</td>'


def _texts(found: Report) -> str:
    """The texts that the tuned model knows least, with the perplexity of each."""
    title = "<h3>Texts that the tuned model knows least</h3>"
    return title + "".join(map(_text, found.texts))


def _text(text: KnownText) -> str:
    told = f"Tokens {text.tokens:,}"
    if text.base is not None:
        told += f", Perplexity of the base {messages.loss(text.base)}"
    told += f", of the tuned model {messages.loss(text.tuned)}"
    return _compared(text.index, text.text, f'<p class="soft">{messages.escape(told)}</p>')


def _rows(found: Report, shown: int) -> str:
    """The rows that tell most, or in words that there are none."""
    rows = found.differences
    if found.measured == "answers" and not {"token_f1", "all_fields"} & set(found.tuned):
        return ""  # nothing was asked: there are no answers to compare
    titles = {
        "answers": f"Rows where they differ or the tuned model is wrong ({len(rows)})",
        "labels": f"Mistakes, the surest first ({len(rows)})",
        "pairs": f"Pairs in the wrong order, the surest mistakes first ({len(rows)})",
        "rewards": "Rows, those with the lowest reward first",
    }
    empty = {
        "answers": "Both models give the expected answer to every row.",
        "labels": "Every row was given its labels.",
        "pairs": "Every better answer scores higher.",
    }
    if not rows:
        return messages.note(empty[found.measured], "finished") if found.measured in empty else ""
    draw = _pair if found.measured == "pairs" else _row
    return f"<h3>{titles[found.measured]}</h3>" + "".join(map(draw, rows[:shown]))


def _pair(row: Row) -> str:
    """Two answers that a reward model put in the wrong order, each behind its score."""
    both = (("Better answer", row.expected), ("Worse answer", row.tuned))
    return _columns(row, [(label, _answer(text, None, None)) for label, text in both])


def _row(row: Row) -> str:
    sides = [("Expected", row.expected, None)]
    base, tuned = f"Base{_reward(row.base_reward)}", f"Tuned{_reward(row.tuned_reward)}"
    sides += [(base, row.base, row.base_fields_right), (tuned, row.tuned, row.tuned_fields_right)]
    columns = [
        (label, _answer(text, row.expected, right))
        for label, text, right in sides
        if text is not None
    ]
    return _columns(row, columns)


def _columns(row: Row, columns: list[tuple[str, str]]) -> str:
    """A row's question, and answers beside each other."""
    asked = [turn for turn in row.prompt or [] if turn.get("role") != "system"]
    question = "\n".join(str(turn.get("content", "")) for turn in asked)
    cells = "".join(f"<div><h4>{label}</h4>{answer}</div>" for label, answer in columns)
    return _compared(row.index, question, f'<div class="columns">{cells}</div>')


def _compared(index: int, text: str, below: str) -> str:
    return (
        '<article class="card compared"><p class="question"><span class="soft">'
        f"Row {index + 1}</span> {messages.escape(text)}</p>{below}</article>"
    )


def _reward(value: float | None) -> str:
    """What an answer got, behind the name of who wrote it."""
    return "" if value is None else f", reward {value:.3g}"


def _answer(text: str | None, expected: str | None, right: Iterable[str] | None) -> str:
    """An answer; where it is JSON like the expected one, a line for each field, marked."""
    fields, wanted = _object(text), _object(expected)
    if fields is None or wanted is None:
        return f'<div class="reply">{messages.escape(text or "")}</div>'
    lines = ""
    for name, value in fields.items():
        mark = sign = ""
        if right is not None and name in wanted:
            word = "right" if name in right else "wrong"
            mark = f' class="{word}" title="{word}"'
            sign = f'<span class="sr-only">({word})</span>'
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        value = f"<dd>{messages.escape(shown)}{sign}</dd>"
        lines += f"<div{mark}><dt>{messages.escape(name)}</dt>{value}</div>"
    return f'<dl class="fields">{lines}</dl>'


def _object(text: str | None) -> dict[str, Any] | None:
    try:
        value = json.loads(text or "")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


# More labels than this fold away in the table, and make the map of confusions unreadable.
SHOWN_LABELS, MOST_IN_MAP = 12, 30
_MOST_PAIRS = 5
# The strongest colour of a cell, in percent, on which its number can still be read.
_STRONGEST = 45


def baseline(found: Report) -> tuple[str, dict[str, Estimate]] | None:
    """(what it is called, its numbers) of always giving the most frequent label."""
    usual = found.majority
    if usual is None:
        return None
    name = ", ".join(usual.labels) or "no label"
    numbers = {"accuracy": Estimate(usual.accuracy), "f1_macro": Estimate(usual.f1_macro)}
    return f"Always {name}", numbers


def label_parts(found: Report) -> str:
    """What stands between a classifier's numbers and its mistakes; empty for other reports."""
    if found.measured != "labels":
        return ""
    return _table(found.by_label) + _confusions(found)


def _table(labels: list[LabelNumbers]) -> str:
    """Each label's precision, recall, F1 and rows, the hardest first."""
    ordered = sorted(labels, key=lambda label: (label.f1, label.label))
    first, rest = ordered[:SHOWN_LABELS], ordered[SHOWN_LABELS:]
    more = ""
    if rest:
        more = f"<details><summary>{len(rest)} more labels</summary>{_by_label(rest)}</details>"
    return f'<h3>Each label, the hardest first</h3><div class="card">{_by_label(first)}{more}</div>'


def _by_label(labels: list[LabelNumbers]) -> str:
    lines = "".join(
        f'<tr><th scope="row">{messages.escape(label.label)}</th>'
        f"{_share(label.f1, bar=True)}{_share(label.precision)}{_share(label.recall)}"
        f'<td class="num">{messages.count(label.rows)}</td>'
        f'<td class="num">{messages.count(label.given)}</td></tr>'
        for label in labels
    )
    heads = (
        ("F1", "Precision and recall together"),
        ("Precision", "Of rows given the label, the share that has it"),
        ("Recall", "Of rows that have the label, the share given it"),
        ("Rows", "Rows that have the label"),
        ("Given", "Rows that were given the label"),
    )
    head = "".join(f'<th class="num" title="{text}">{name}</th>' for name, text in heads)
    return (
        '<div class="table-scroll"><table class="label-numbers"><thead><tr><th>Label</th>'
        f"{head}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _share(value: float, *, bar: bool = False) -> str:
    drawn = f'<span class="share tuned"><i style="width:{100 * value:.1f}%"></i></span>'
    return f'<td class="num">{100 * value:.0f} %{drawn if bar else ""}</td>'


def _confusions(found: Report) -> str:
    """The map of what was taken for what, and in words the most frequent mistakes."""
    counts, labels = found.confusion, found.labels
    if counts is None:
        return messages.note(
            "A row may have several labels here, so that no label is taken for one other."
        )
    drawn = _map(counts, labels) if len(labels) <= MOST_IN_MAP else ""
    words = _pairs(counts, labels)
    return f'<h3>What was taken for what</h3><div class="card">{words}{drawn}</div>'


def _pairs(counts: list[list[int]], labels: list[str]) -> str:
    found = sorted(
        (
            (-count, -count / sum(row), labels[wanted], labels[said], sum(row))
            for wanted, row in enumerate(counts)
            for said, count in enumerate(row)
            if wanted != said and count
        )
    )
    if not found:
        return '<p class="soft">No label was taken for another.</p>'
    items = "".join(
        f"<li><b>{messages.escape(wanted)}</b> for <b>{messages.escape(said)}</b>: "
        f"{-count} of {rows} rows</li>"
        for count, _, wanted, said, rows in found[:_MOST_PAIRS]
    )
    return f'<ul class="pairs">{items}</ul>'


def _map(counts: list[list[int]], labels: list[str]) -> str:
    """A table whose rows are the labels that texts have and whose columns those they were given;
    columns go by the number of their label, so that long names fit a phone."""
    heads = "".join(
        f'<th scope="col" title="{messages.escape(name)}">{place}</th>'
        for place, name in enumerate(labels, 1)
    )
    rows = "".join(
        f'<tr><th scope="row"><span>{place}</span> {messages.escape(name)}</th>'
        f"{''.join(_cells(row, place - 1, labels))}</tr>"
        for place, (name, row) in enumerate(zip(labels, counts, strict=True), 1)
    )
    return (
        '<div class="confusion-scroll"><table class="confusion"><thead><tr>'
        f"<td></td>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
        '<p class="soft">Down: the label a text has. Across: the one it was given. The colour is '
        "the share of the row.</p>"
    )


def _cells(row: list[int], wanted: int, labels: list[str]) -> list[str]:
    total = sum(row)
    cells = []
    for said, count in enumerate(row):
        kind = "right" if said == wanted else "wrong"
        strength = _STRONGEST * count / total if total else 0
        what = "right" if said == wanted else f"taken for {labels[said]}"
        told = messages.escape(f"{labels[wanted]}, {what}: {count} of {total}")
        cells.append(
            f'<td class="{kind}" style="--strength:{strength:.0f}%" title="{told}">'
            f"{count or ''}</td>"
        )
    return cells
