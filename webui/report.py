"""An evaluation's report as HTML: the verdict, then numbers with intervals, then rows; of a
classifier each label's numbers, and what was taken for what."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from core.evaluation.answer_rows import read_answers
from core.evaluation.document import ENDINGS
from core.evaluation.general import AREAS
from core.evaluation.intervals import Estimate
from core.evaluation.metrics import METRICS
from core.evaluation.report import GENERAL, KnownText, LabelNumbers, Report, Row, Skill
from core.evaluation.verdict import notes, verdict
from core.language import _, n_
from webui import messages
from webui.label_curves import drawn_curves

SHOWN_ROWS = 20
# The others open at a click.
_OPEN_ROWS = 6


def report(found: Report, rows_shown: int = SHOWN_ROWS, folder: Path | None = None) -> str:
    """The whole report; of an evaluation that kept its rows in its `folder`, without them: the page
    shows those below (`webui.answers`)."""
    told = "".join(messages.note(text) for text in notes(found))
    if found.measured == "texts":
        rows = _texts(found)
    else:
        rows = "" if folder and read_answers(folder) else _rows(found, rows_shown)
    return (
        f'<p class="verdict">{messages.escape(verdict(found))}</p>{_context(found)}{told}'
        f"{_others(found)}"
        f'<div class="card">{_numbers(found)}</div>{_general(found, folder)}{label_parts(found)}'
        f"{rows}{_downloads(folder) if folder else ''}"
    )


def _others(found: Report) -> str:
    """What each other model says against the tuned one."""
    told = []
    for other in found.others:
        rows, apart = other.compared, (other.difference or {}).get("score")
        if rows is None or apart is None:
            continue
        said = _(
            "Against {model}: better on {wins} rows, worse on {losses}, by {points:+.1f} points.",
            model=other.title,
            wins=rows.wins,
            losses=rows.losses,
            points=100 * apart.value,
        )
        told.append(f"<li>{messages.escape(said)}</li>")
    return f"<ul class='against'>{''.join(told)}</ul>" if told else ""


def _general(found: Report, folder: Path | None) -> str:
    """What every model should still do, before and after; and what the tuned one does no more."""
    if not found.general:
        return ""
    lines = []
    for area, title in AREAS.items():
        cells = "".join(_skill(one) for one in found.general if one.area == area)
        lines.append(f"<tr><th scope='row'>{_(title)}</th>{cells}</tr>")
    heads = "".join(f"<th class='num'>{name}</th>" for name in (_("English"), _("Chinese")))
    lost = [one for one in _general_rows(folder) if one.get("base_kept") and not one["tuned_kept"]]
    items = "".join(
        f"<li><b>{messages.escape(one['prompt'])}</b><div class='reply'>"
        f"{messages.escape(one['tuned'])}</div></li>"
        for one in lost
    )
    told = n_("{n} answer got worse", "{n} answers got worse", len(lost))
    more = f"<details><summary>{told}</summary><ul class='lost'>{items}</ul></details>"
    meaning = _(
        "Forty short prompts that have nothing to do with the data set, answered well before and "
        "after."
    )
    return (
        f"<h3>{_('What it still can do')}</h3><div class='card'><p class='soft'>{meaning}</p>"
        f"<div class='table-scroll'><table><thead><tr><td></td>{heads}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>{more if lost else ''}</div>"
    )


def _skill(one: Skill) -> str:
    if one.base is None:
        return f"<td class='num'>{one.tuned}/{one.prompts}</td>"
    kind = "finished" if one.tuned > one.base else "failed" if one.tuned < one.base else ""
    badge = f"<span class='badge badge-{kind}'>{one.tuned - one.base:+d}</span>" if kind else ""
    return f"<td class='num'>{one.base} → {one.tuned} / {one.prompts} {badge}</td>"


def _general_rows(folder: Path | None) -> list[dict[str, Any]]:
    try:
        lines = (folder / GENERAL).read_text(encoding="utf-8").splitlines() if folder else []
    except OSError:
        return []
    return [json.loads(line) for line in lines]


def _downloads(folder: Path) -> str:
    """Links to the report in each of its forms."""
    run = quote(folder.parents[1].name)
    links = " ".join(
        f"<a class='small' download='{folder.name}{ending}' "
        f"href='tunesmith/evaluations/{run}/{quote(folder.name)}{ending}'><code>{ending}</code></a>"
        for ending in ENDINGS
    )
    return (
        f"<p class='downloads'><span class='soft'>{_('Take the report along:')}</span> {links}</p>"
    )


def _context(found: Report) -> str:
    if found.part == "other":
        rows = n_("{n} row", "{n} rows", found.rows)
    elif found.part == "eval":
        rows = n_("{n} row of the held-out part", "{n} rows of the held-out part", found.rows)
    else:
        rows = n_("{n} row of the training part", "{n} rows of the training part", found.rows)
    told = _(
        "{rows} of {dataset}, {model}, {dtype} on {device}, {time}. Intervals are 95 %.",
        rows=rows,
        dataset=found.dataset.name,
        model=messages.checkpoint(found.checkpoint),
        dtype=found.settings.dtype,
        device=found.settings.device,
        time=messages.duration(found.seconds),
    )
    return f'<p class="soft">{messages.escape(told)}</p>'


def _numbers(found: Report) -> str:
    before_name, before = baseline(found) or (_("Base"), found.base)
    heads = [before_name] if before else []
    heads += [other.title for other in found.others] + [_("Tuned")]
    sides: list[Mapping[str, Any]] = [before] if before else []
    sides += [*(other.numbers for other in found.others), found.tuned]
    kinds = {rule.name: rule.score for rule in found.rules}
    first: list[str] = []
    more: list[str] = []
    for key, metric in METRICS.items():
        number, lines = found.tuned.get(key), more if metric.of else first
        cells = [side.get(key) for side in sides]
        if isinstance(number, Estimate):
            lines.append(_line(metric.title, metric.meaning, cells, metric.is_share))
        for name in number if isinstance(number, dict) else ():
            is_near = key == "fields" and kinds.get(name) == "token_f1"
            meaning = _("Right means half of the words or more") if is_near else metric.meaning
            label = _("{metric} {field}", metric=metric.title, field=name)
            parts = [cell.get(name) if isinstance(cell, dict) else None for cell in cells]
            lines.append(_line(label, meaning, parts, metric.is_share))
    table = _number_table(heads, first)
    if more:
        told = n_("{n} more number", "{n} more numbers", len(more))
        table += f"<details><summary>{told}</summary>{_number_table(heads, more)}</details>"
    return table


def _number_table(heads: list[str], lines: list[str]) -> str:
    head = "".join(f"<th>{messages.escape(name)}</th>" for name in heads)
    return (
        '<div class="table-scroll"><table class="numbers"><thead><tr><td></td>'
        f"{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _line(label: str, meaning: str, sides: list[Any], share: bool) -> str:
    kinds = ["base"] * (len(sides) - 1) + ["tuned"]
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
        interval = f"<small>{_('{low} to {high}', low=text(low), high=text(high))}</small>"
        span = f'<b style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></b>'
    if share:
        filled = f'<i style="width:{100 * number.value:.1f}%"></i>'
        bar = f'<span class="share {kind}">{filled}{span}</span>'
    return f'<td class="num"><strong>{text(number.value)}{unit}</strong> {interval}{bar}</td>'


def _texts(found: Report) -> str:
    """The texts that the tuned model knows least, with the perplexity of each."""
    title = _("Texts that the tuned model knows least")
    texts = messages.folded([_text(text) for text in found.texts], _OPEN_ROWS)
    return f"<h3>{title}</h3>{texts}"


def _text(text: KnownText) -> str:
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
    return _compared(text.index, text.text, f'<p class="soft">{messages.escape(told)}</p>')


def _rows(found: Report, shown: int) -> str:
    """The rows that tell most, or in words that there are none."""
    rows = found.differences
    if found.measured == "answers" and not {"token_f1", "all_fields"} & set(found.tuned):
        return ""  # nothing was asked: there are no answers to compare
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
        return messages.note(empty[found.measured], "finished") if found.measured in empty else ""
    draw = _pair if found.measured == "pairs" else _row
    drawn = messages.folded([draw(row) for row in rows[:shown]], _OPEN_ROWS)
    return f"<h3>{titles[found.measured]}</h3>{drawn}"


def _pair(row: Row) -> str:
    """Two answers that a reward model put in the wrong order, each behind its score."""
    both = ((_("Better answer"), row.expected), (_("Worse answer"), row.tuned))
    return _columns(row, [(label, _answer(text, None, None)) for label, text in both])


def _row(row: Row) -> str:
    sides: list[tuple[str, str | None, list[str] | None]] = [(_("Expected"), row.expected, None)]
    base, tuned = _rewarded(_("Base"), row.base_reward), _rewarded(_("Tuned"), row.tuned_reward)
    sides += [(base, row.base, row.base_fields_right), (tuned, row.tuned, row.tuned_fields_right)]
    columns: list[tuple[str, str]] = [
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
        f"{_('Row {row}', row=index + 1)}</span> {messages.escape(text)}</p>{below}</article>"
    )


def _rewarded(model: str, reward: float | None) -> str:
    """Who wrote an answer, and what it got."""
    if reward is None:
        return model
    return _("{model}, reward {reward:.3g}", model=model, reward=reward)


def _answer(text: str | None, expected: str | None, right: Iterable[str] | None) -> str:
    """An answer; where it is JSON like the expected one, a line for each field, marked."""
    fields = field_list(text, expected, right)
    return fields or f'<div class="reply">{messages.escape(text or "")}</div>'


def field_list(text: str | None, expected: str | None, right: Iterable[str] | None) -> str:
    """A line for each field of an answer that is JSON like the expected one; else empty."""
    fields, wanted = _object(text), _object(expected)
    if fields is None or wanted is None:
        return ""
    lines = ""
    for name, value in fields.items():
        mark = sign = ""
        if right is not None and name in wanted:
            kind, word = ("right", _("right")) if name in right else ("wrong", _("wrong"))
            mark = f' class="{kind}" title="{word}"'
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
    name = ", ".join(usual.labels) or _("no label")
    numbers = {"accuracy": Estimate(usual.accuracy), "f1_macro": Estimate(usual.f1_macro)}
    return _("Always {label}", label=name), numbers


def label_parts(found: Report) -> str:
    """What stands between a classifier's numbers and its mistakes; empty for other reports."""
    if found.measured != "labels":
        return ""
    return _table(found.by_label) + _confusions(found) + drawn_curves(found) + _speed(found)


def _speed(found: Report) -> str:
    if found.speed is None:
        return ""
    speed = found.speed
    told = _(
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
    return f"<h3>{_('Speed')}</h3><p class='soft'>{told}</p>"


def _table(labels: list[LabelNumbers]) -> str:
    """Each label's precision, recall, F1 and rows, the hardest first."""
    ordered = sorted(labels, key=lambda label: (label.f1, label.label))
    first, rest = ordered[:SHOWN_LABELS], ordered[SHOWN_LABELS:]
    more = ""
    if rest:
        told = n_("{n} more label", "{n} more labels", len(rest))
        more = f"<details><summary>{told}</summary>{_by_label(rest)}</details>"
    title = _("Each label, the hardest first")
    return f'<h3>{title}</h3><div class="card">{_by_label(first)}{more}</div>'


def _by_label(labels: list[LabelNumbers]) -> str:
    lines = "".join(
        f'<tr><th scope="row">{messages.escape(label.label)}</th>'
        f"{_share(label.f1, bar=True)}{_share(label.precision)}{_share(label.recall)}"
        f'<td class="num">{messages.count(label.rows)}</td>'
        f'<td class="num">{messages.count(label.given)}</td></tr>'
        for label in labels
    )
    heads = (
        ("F1", _("Precision and recall together")),
        (_("Precision (P)"), _("Of rows given the label, the share that has it")),
        (_("Recall (R)"), _("Of rows that have the label, the share given it")),
        (_("Rows"), _("Rows that have the label")),
        (_("Given"), _("Rows that were given the label")),
    )
    head = "".join(f'<th class="num" title="{text}">{name}</th>' for name, text in heads)
    return (
        '<div class="table-scroll"><table class="label-numbers"><thead><tr>'
        f"<th>{_('Label')}</th>{head}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _share(value: float, *, bar: bool = False) -> str:
    drawn = f'<span class="share tuned"><i style="width:{100 * value:.1f}%"></i></span>'
    return f'<td class="num">{100 * value:.0f} %{drawn if bar else ""}</td>'


def _confusions(found: Report) -> str:
    """The map of what was taken for what, and in words the most frequent mistakes."""
    counts, labels = found.confusion, found.labels
    if counts is None:
        return messages.note(
            _("A row may have several labels here, so that no label is taken for one other.")
        )
    drawn = _map(counts, labels) if len(labels) <= MOST_IN_MAP else ""
    words = _pairs(counts, labels)
    title = _("What was taken for what")
    return f'<h3>{title}</h3><div class="card">{words}{drawn}</div>'


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
        return f'<p class="soft">{_("No label was taken for another.")}</p>'
    items = "".join(
        f"<li>{_mistaken(wanted, said, -count, rows)}</li>"
        for count, _share_of_row, wanted, said, rows in found[:_MOST_PAIRS]
    )
    return f'<ul class="pairs">{items}</ul>'


def _mistaken(wanted: str, said: str, count: int, rows: int) -> str:
    return _(
        "{label} for {given}: {count} of {rows} rows",
        label=f"<b>{messages.escape(wanted)}</b>",
        given=f"<b>{messages.escape(said)}</b>",
        count=count,
        rows=rows,
    )


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
    told = _(
        "Down: the label a text has. Across: the one it was given. The colour is the share of the "
        "row."
    )
    return (
        '<div class="confusion-scroll"><table class="confusion"><thead><tr>'
        f"<td></td>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
        f'<p class="soft">{told}</p>'
    )


def _cells(row: list[int], wanted: int, labels: list[str]) -> list[str]:
    total = sum(row)
    cells = []
    for said, count in enumerate(row):
        kind = "right" if said == wanted else "wrong"
        strength = _STRONGEST * count / total if total else 0
        told = {"label": labels[wanted], "given": labels[said], "count": count, "rows": total}
        if said == wanted:
            title = _("{label}, right: {count} of {rows}", **told)
        else:
            title = _("{label}, taken for {given}: {count} of {rows}", **told)
        cells.append(
            f'<td class="{kind}" style="--strength:{strength:.0f}%" '
            f'title="{messages.escape(title)}">'
            f"{count or ''}</td>"
        )
    return cells
