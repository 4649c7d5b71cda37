"""An evaluation's report as HTML: the verdict, then numbers with intervals, then rows; of a
classifier each label's numbers, and what was taken for what."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from core.evaluation.answer_rows import read_answers
from core.evaluation.document import ENDINGS
from core.evaluation.general import AREAS
from core.evaluation.intervals import Estimate
from core.evaluation.metrics import METRICS
from core.evaluation.report import GENERAL, KnownText, Report, Row
from core.evaluation.verdict import notes, verdict
from core.language import _, n_
from core.workspace import read_json_lines
from webui import messages
from webui.html import html
from webui.label_curves import drawn_curves

SHOWN_ROWS = 20
# The others open at a click.
_OPEN_ROWS = 6


def report(found: Report, rows_shown: int = SHOWN_ROWS, folder: Path | None = None) -> Markup:
    """The whole report; of an evaluation that kept its rows in its `folder`, without them: the page
    shows those below (`webui.answers`)."""
    if found.measured == "texts":
        rows = _texts(found)
    else:
        rows = Markup() if folder and read_answers(folder) else _rows(found, rows_shown)
    return html.report.report(
        verdict=verdict(found),
        context=_context(found),
        notes=[messages.note(text) for text in notes(found)],
        against=_others(found),
        numbers=_numbers(found),
        general=_general(found, folder),
        labels=label_parts(found),
        rows=rows,
        downloads=_downloads(folder) if folder else Markup(),
    )


def _others(found: Report) -> Sequence[str]:
    """What each other model says against the tuned one."""
    told = []
    for other in found.others:
        rows, apart = other.compared, (other.difference or {}).get("score")
        if rows is None or apart is None:
            continue
        said = n_(
            "Against {model}: better on {n} row, worse on {losses}, by {points:+.1f} points.",
            "Against {model}: better on {n} rows, worse on {losses}, by {points:+.1f} points.",
            rows.wins,
            model=other.title,
            losses=rows.losses,
            points=100 * apart.value,
        )
        told.append(said)
    return told


def _general(found: Report, folder: Path | None) -> Markup:
    """What every model should still do, before and after; and what the tuned one does no more."""
    if not found.general:
        return Markup()
    areas = [
        (_(title), [one for one in found.general if one.area == area])
        for area, title in AREAS.items()
    ]
    lost = [one for one in _general_rows(folder) if one.get("base_kept") and not one["tuned_kept"]]
    return html.report.general(areas, lost)


def _general_rows(folder: Path | None) -> list[dict[str, Any]]:
    return read_json_lines(folder / GENERAL) if folder else []


def _downloads(folder: Path) -> Markup:
    """Links to the report in each of its forms."""
    place = f"tunesmith/evaluations/{quote(folder.parents[1].name)}/{quote(folder.name)}"
    return html.report.downloads(_("Take the report along:"), ENDINGS, place, folder.name)


def _context(found: Report) -> str:
    """What was measured, where, and how long it took."""
    if found.part == "other":
        rows = n_("{n} row", "{n} rows", found.rows)
    elif found.part == "eval":
        rows = n_("{n} row of the held-out part", "{n} rows of the held-out part", found.rows)
    else:
        rows = n_("{n} row of the training part", "{n} rows of the training part", found.rows)
    return _(
        "{rows} of {dataset}, {model}, {dtype} on {device}, {time}. Intervals are 95 %.",
        rows=rows,
        dataset=found.dataset.name,
        model=messages.checkpoint(found.checkpoint),
        dtype=found.settings.dtype,
        device=found.settings.device,
        time=messages.duration(found.seconds),
    )


def _numbers(found: Report) -> Markup:
    before_name, before = baseline(found) or (_("Base"), found.base)
    heads = [before_name] if before else []
    heads += [other.title for other in found.others] + [_("Tuned")]
    sides: list[Mapping[str, Any]] = [before] if before else []
    sides += [*(other.numbers for other in found.others), found.tuned]
    kinds = {rule.name: rule.score for rule in found.rules}
    first: list[tuple[str, str, list[Any], bool]] = []
    more: list[tuple[str, str, list[Any], bool]] = []
    for key, metric in METRICS.items():
        number, lines = found.tuned.get(key), more if metric.of else first
        cells = [side.get(key) for side in sides]
        if isinstance(number, Estimate):
            lines.append((metric.title, metric.meaning, cells, metric.is_share))
        for name in number if isinstance(number, dict) else ():
            is_near = key == "fields" and kinds.get(name) == "token_f1"
            meaning = _("Right means half of the words or more") if is_near else metric.meaning
            label = _("{metric} {field}", metric=metric.title, field=name)
            parts = [cell.get(name) if isinstance(cell, dict) else None for cell in cells]
            lines.append((label, meaning, parts, metric.is_share))
    return html.report.numbers(heads, first, more)


def _texts(found: Report) -> Markup:
    """The texts that the tuned model knows least, with the perplexity of each."""
    title = _("Texts that the tuned model knows least")
    texts = messages.folded([_text(text) for text in found.texts], _OPEN_ROWS)
    return html.report.titled(title, texts)


def _text(text: KnownText) -> Markup:
    if text.base is None:
        told = _(
            "Tokens {tokens:,}, perplexity of the tuned model {tuned}",
            tokens=text.tokens,
            tuned=messages.loss(text.tuned),
        )
    else:
        told = _(
            "Tokens {tokens:,}, perplexity of the base {base}, of the tuned model {tuned}",
            tokens=text.tokens,
            base=messages.loss(text.base),
            tuned=messages.loss(text.tuned),
        )
    return html.report.compared(text.index, text.text, told, [])


def _rows(found: Report, shown: int) -> Markup:
    """The rows that tell most, or in words that there are none."""
    rows = found.differences
    if found.measured == "answers" and not {"token_f1", "all_fields"} & set(found.tuned):
        return Markup()  # nothing was asked: there are no answers to compare
    titles = {
        "answers": _("Rows where they differ or the tuned model is wrong ({rows})", rows=len(rows)),
        "labels": _("Mistakes, the surest first ({rows})", rows=len(rows)),
        "pairs": _("Pairs in the wrong order, the surest mistakes first ({rows})", rows=len(rows)),
        "rewards": _("Rows, those with the lowest reward first"),
        "questions": _("Questions that the tuned model has wrong ({rows})", rows=len(rows)),
    }
    empty = {
        "answers": _("Both models give the expected answer to every row."),
        "labels": _("Every row was given its labels."),
        "pairs": _("Every better answer scores higher."),
        "questions": _("The tuned model has every question right."),
    }
    if not rows:
        told = empty.get(found.measured)
        return messages.note(told, "finished") if told else Markup()
    draw = _pair if found.measured == "pairs" else _row
    drawn = messages.folded([draw(row) for row in rows[:shown]], _OPEN_ROWS)
    return html.report.titled(titles[found.measured], drawn)


def _pair(row: Row) -> Markup:
    """Two answers that a reward model put in the wrong order, each behind its score."""
    both = ((_("Better answer"), row.expected), (_("Worse answer"), row.tuned))
    return _columns(row, [(label, _answer(text, None, None)) for label, text in both])


def _row(row: Row) -> Markup:
    sides: list[tuple[str, str | None, list[str] | None]] = [(_("Expected"), row.expected, None)]
    base, tuned = _rewarded(_("Base"), row.base_reward), _rewarded(_("Tuned"), row.tuned_reward)
    sides += [(base, row.base, row.base_fields_right), (tuned, row.tuned, row.tuned_fields_right)]
    columns = [
        (label, _answer(text, row.expected, right))
        for label, text, right in sides
        if text is not None
    ]
    return _columns(row, columns)


def _columns(row: Row, columns: list[tuple[str, Markup]]) -> Markup:
    """A row's question, and answers beside each other."""
    asked = [turn for turn in row.prompt or [] if turn.get("role") != "system"]
    question = "\n".join(str(turn.get("content", "")) for turn in asked)
    return html.report.compared(row.index, question, "", columns)


def _rewarded(model: str, reward: float | None) -> str:
    """Who wrote an answer, and what it got."""
    if reward is None:
        return model
    return _("{model}, reward {reward:.3g}", model=model, reward=reward)


def _answer(text: str | None, expected: str | None, right: Iterable[str] | None) -> Markup:
    """An answer; where it is JSON like the expected one, a line for each field, marked."""
    return field_list(text, expected, right) or html.report.reply(text or "")


def field_list(text: str | None, expected: str | None, right: Iterable[str] | None) -> Markup:
    """A line for each field of an answer that is JSON like the expected one; else empty."""
    fields, wanted = _object(text), _object(expected)
    if fields is None or wanted is None:
        return Markup()
    lines = [
        (
            name,
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False),
            name in right if right is not None and name in wanted else None,
        )
        for name, value in fields.items()
    ]
    return html.report.fields(lines)


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
    name = ", ".join(usual.labels) or _("no label")
    numbers = {"accuracy": Estimate(usual.accuracy), "f1_macro": Estimate(usual.f1_macro)}
    return _("Always {label}", label=name), numbers


def label_parts(found: Report) -> Markup:
    """What stands between a classifier's numbers and its mistakes: each label's precision, recall,
    F1 and rows, the hardest first, and so on. Empty for other reports."""
    if found.measured != "labels":
        return Markup()
    ordered = sorted(found.by_label, key=lambda label: (label.f1, label.label))
    return html.report.label_parts(
        first=ordered[:SHOWN_LABELS],
        rest=ordered[SHOWN_LABELS:],
        confusions=_confusions(found),
        curves=drawn_curves(found),
        speed=_speed(found),
    )


def _speed(found: Report) -> str:
    if found.speed is None:
        return ""
    speed = found.speed
    return _(
        "One text alone takes {mean:.1f} ms (half of them {p50:.1f}, 95 % {p95:.1f}, 99 % "
        "{p99:.1f}); in batches it reads {batched:,.0f} texts a second, {times:.1f} times as many "
        "as one by one.",
        mean=1000 * speed.mean,
        p50=1000 * speed.p50,
        p95=1000 * speed.p95,
        p99=1000 * speed.p99,
        batched=speed.batched,
        times=speed.batched / speed.alone,
    )


def _confusions(found: Report) -> Markup:
    """The map of what was taken for what, and in words the most frequent mistakes."""
    counts, labels = found.confusion, found.labels
    if counts is None:
        return messages.note(
            _("A row may have several labels here, so that no label is taken for one other.")
        )
    rows = None
    if len(labels) <= MOST_IN_MAP:
        rows = [_cells(row, place, labels) for place, row in enumerate(counts)]
    return html.report.confusions(_mistakes(counts, labels), labels, rows)


def _mistakes(counts: list[list[int]], labels: list[str]) -> list[Markup]:
    """The most frequent ones, each as a sentence."""
    found = sorted(
        (-count, -count / sum(row), labels[wanted], labels[said], sum(row))
        for wanted, row in enumerate(counts)
        for said, count in enumerate(row)
        if wanted != said and count
    )
    return [
        # Each value is Markup or a number.
        Markup(
            n_(
                "{label} for {given}: {count} of {n} row",
                "{label} for {given}: {count} of {n} rows",
                rows,
                label=html.report.bold(wanted),
                given=html.report.bold(said),
                count=-count,
            )
        )
        for count, _share, wanted, said, rows in found[:_MOST_PAIRS]
    ]


def _cells(row: list[int], wanted: int, labels: list[str]) -> Sequence[tuple[str, float, str, int]]:
    """A label's row of the map: (kind, strength of its colour in percent, what it says, count)."""
    total = sum(row)
    cells = []
    for said, count in enumerate(row):
        strength = _STRONGEST * count / total if total else 0
        told = {"label": labels[wanted], "given": labels[said], "count": count, "rows": total}
        if said == wanted:
            title = _("{label}, right: {count} of {rows}", **told)
        else:
            title = _("{label}, taken for {given}: {count} of {rows}", **told)
        cells.append(("right" if said == wanted else "wrong", strength, title, count))
    return cells
