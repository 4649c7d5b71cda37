"""The part of a report that only a classifier has: each label's numbers, and what was taken for
what."""

from __future__ import annotations

from core.evaluation.intervals import Estimate
from core.evaluation.report import LabelNumbers, Report
from webui import messages

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
        more = f"<details><summary>{len(rest)} more labels</summary>{_rows(rest)}</details>"
    return f'<h3>Each label, the hardest first</h3><div class="card">{_rows(first)}{more}</div>'


def _rows(labels: list[LabelNumbers]) -> str:
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
