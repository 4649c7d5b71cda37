"""The steps of a data set as HTML: what each did, what one would do, and the versions made."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from core.data.record import DatasetInfo, StepChange, StepDrop, StepResult, Version
from core.data.steps import known_steps, write_recipe
from core.data.steps.base import Step
from core.data.steps.labels import about_alike
from core.data.versions import recipe_of
from webui import messages
from webui.data.step_form import MADE_ELSEWHERE, offered, section_specs

LISTED, SHOWN = 20, 8
_NAMED = 3
# So much of what two texts share stands around what differs, in characters.
_AROUND = 80
_PARTS = {"train": "to learn", "eval": "held out", "test": "test"}
_WORD = re.compile(r"\s+|\w+|[^\w\s]")
_GROUPS = (("quality", "Clean"), ("shape", "Shape"))


def head(info: DatasetInfo) -> str:
    """From the rows that were imported to those there are now."""
    counts = info.counts
    items = [
        (
            "Imported",
            messages.count(counts.read - counts.dropped),
            "Rows as they were read; they stay as they are, whatever the steps do",
        ),
        ("Dropped by steps", messages.count(sum(one.dropped for one in info.steps))),
        ("To learn", messages.count(counts.train)),
        ("Held out", messages.count(counts.eval), "For evaluation while training; never learned"),
    ]
    if counts.test:
        items.append(("Test", messages.count(counts.test), "Nothing looks at it until the end"))
    return messages.figures(items)


def steps(info: DatasetInfo) -> str:
    """A card for each recorded step, in order."""
    alike = _alike(info)
    if not info.steps:
        return alike + messages.empty(
            "No steps yet",
            "Add one to drop duplicates, mask personal data, rename labels or split rows off. "
            "Try it first: it shows which rows it would drop. Every step can be taken out again.",
        )
    cards = "".join(_card(place, result) for place, result in enumerate(info.steps))
    return f'{alike}<ol class="steps">{cards}</ol>'


def _alike(info: DatasetInfo) -> str:
    """Labels that are as good as the same, and a button that merges them."""
    told = about_alike(info.labels)
    if not told:
        return ""
    button = '<button type="button" class="small" data-act="merge" data-at="0">Merge them</button>'
    return f'<div class="notice notice-stopped">{messages.escape(told)} {button}</div>'


def _card(place: int, result: StepResult) -> str:
    step = known_steps().get(str(result.step.get("op")))
    edit = step is not None and step.op not in MADE_ELSEWHERE
    buttons = "".join(
        f'<button type="button" class="small" data-act="{act}" data-at="{place}" '
        f'aria-label="{word} step {place + 1}">{word}</button>'
        for act, word in (("edit", "Edit"), ("remove", "Remove"))
        if act != "edit" or edit
    )
    title = messages.escape(result.title or result.step.get("op"))
    return (
        f'<li class="step"><div class="step-head"><span class="step-number">{place + 1}</span>'
        f'<div class="step-what"><h4>{title}</h4><p class="aside">{settings(result.step)}</p></div>'
        f'<div class="step-flow">{flow(result)}</div><div class="step-buttons">{buttons}</div>'
        f"</div>{details(result)}</li>"
    )


def settings(record: Mapping[str, Any]) -> str:
    """What was set, in one line of HTML: the main settings, and others that were changed."""
    step = known_steps().get(str(record.get("op")))
    if step is None:
        return messages.escape(", ".join(f"{k} {v}" for k, v in record.items() if k != "op"))
    op = step.op
    specs = section_specs(step, op)
    values = {spec.name: record.get(spec.name, spec.default) for spec in specs}
    by_path = {spec.path: values[spec.name] for spec in specs}
    words = []
    for spec in specs:
        value = values[spec.name]
        wanted = spec.level == "basic" or value != spec.default
        if wanted and spec.shown(by_path) and value not in ("", None, [], {}, False):
            words.append(_setting(spec.label, spec.name, value))
    return " · ".join(words) or "Nothing to set."


def _setting(label: str, name: str, value: Any) -> str:
    if value is True:
        return messages.escape(label)
    if name == "sha256":
        value = str(value)[:12]
    if isinstance(value, dict):
        pairs = [f"{old} → {new or 'left out'}" for old, new in value.items()]
        return f"{messages.escape(label)}: {_listed(pairs)}"
    if isinstance(value, list):
        return f"{messages.escape(label)}: {_listed([str(item) for item in value])}"
    text = str(value)
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    return f"{messages.escape(label)} <b>{messages.escape(shown)}</b>"


def _listed(items: Sequence[str]) -> str:
    text = ", ".join(f"<b>{messages.escape(item)}</b>" for item in items[:_NAMED])
    return text if len(items) <= _NAMED else f"{text} and {len(items) - _NAMED:,} more"


def flow(result: StepResult) -> str:
    """Rows in and out, how many it dropped and changed, also when that is none; or how many it
    moved to each part."""
    words = [(f"{result.rows_in:,} → {result.rows_out:,} rows", "")]
    if result.dropped or not result.parts:
        words.append((f"{result.dropped:,} dropped", "is-lost" if result.dropped else ""))
    if result.changed or not result.parts:
        words.append((f"{result.changed:,} changed", "is-turned" if result.changed else ""))
    moved = {part: rows for part, rows in result.parts.items() if rows or part != "test"}
    words += [(f"{rows:,} {_PARTS.get(part, part)}", "") for part, rows in moved.items()]
    return "".join(f'<span class="num {tone}">{text}</span>' for text, tone in words)


def details(result: StepResult, *, open_: bool = False) -> str:
    """Why a step did nothing, which rows it dropped, with the reasons counted, and rows that it
    changed."""
    opened = " open" if open_ else ""
    found = messages.note(result.remark, "stopped") if result.remark else ""
    if result.dropped:
        found += (
            f'<details class="which"{opened}><summary>Which rows were dropped, and why</summary>'
            f"{_reasons(result)}{_drops(result)}</details>"
        )
    if result.changed:
        what = "Rows that it made" if _makes_rows(result) else "Changed rows, before and after"
        found += (
            f'<details class="which"{opened}><summary>{what}</summary>{_changes(result)}</details>'
        )
    return found


def _makes_rows(result: StepResult) -> bool:
    """Whether what came out has no one row that it came from."""
    return result.step.get("op") == "cut_text"


def _reasons(result: StepResult) -> str:
    ordered = sorted(result.reasons.items(), key=lambda item: -item[1])
    rows = "".join(
        f'<li><span class="num">{count:,}</span> {messages.escape(reason)}</li>'
        for reason, count in ordered
    )
    return f'<ul class="reasons">{rows}</ul>'


def _drops(result: StepResult) -> str:
    shown = result.listed[:LISTED]
    if not shown:
        return ""
    rows = "".join(_drop(one) for one in shown)
    more = result.dropped - len(shown)
    note = f'<p class="aside">and {more:,} more</p>' if more > 0 else ""
    return f'<ul class="drops">{rows}</ul>{note}'


def _drop(one: StepDrop) -> str:
    return (
        f"<li><span>{_place(one.part, one.index)}: {messages.escape(one.reason)}</span>"
        f"<p>{messages.escape(one.text)}</p></li>"
    )


def _place(part: str, index: int) -> str:
    return messages.escape(f"{_PARTS.get(part, part).capitalize()}, row {index + 1:,}")


def _changes(result: StepResult) -> str:
    shown = result.shown[:SHOWN]
    if not shown:
        return '<p class="aside">What changed stands beside the text of the rows.</p>'
    make = _made if _makes_rows(result) else _change
    rows = "".join(make(one) for one in shown)
    more = result.changed - len(shown)
    note = f'<p class="aside">and {more:,} more</p>' if more > 0 else ""
    return f'<div class="changes">{rows}</div>{note}'


def _change(one: StepChange) -> str:
    before, after = differences(one.before, one.after)
    return (
        f'<div class="change"><div class="aside">{_place(one.part, one.index)}</div>'
        f"<div><h5>Before</h5><p>{before}</p></div><div><h5>After</h5><p>{after}</p></div></div>"
    )


def _made(one: StepChange) -> str:
    return f'<div class="change"><p class="made">{messages.escape(one.after)}</p></div>'


def differences(before: str, after: str) -> tuple[str, str]:
    """Both texts as HTML with the words marked that differ."""
    old, new = _WORD.findall(before), _WORD.findall(after)
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    left, right = [], []
    for kind, i, j, k, m in matcher.get_opcodes():
        if kind == "equal":
            same = messages.escape(_shortened("".join(old[i:j]), first=not left))
            left.append(same)
            right.append(same)
            continue
        gone, come = messages.escape("".join(old[i:j])), messages.escape("".join(new[k:m]))
        left.append(f"<del>{gone}</del>" if gone else "")
        right.append(f"<ins>{come}</ins>" if come else "")
    return "".join(left), "".join(right)


def _shortened(text: str, first: bool) -> str:
    """What both rows share, without its middle where that is long."""
    if len(text) <= 3 * _AROUND:
        return text
    begin = "" if first else text[:_AROUND]
    return f"{begin} ... {text[-_AROUND:]}"


def trial(results: Sequence[StepResult], rows: int, there: int) -> str:
    """What steps that were only tried would do."""
    tried = f"the first {rows:,} rows of each part" if there > rows else f"all {there:,} rows"
    cards = "".join(
        f'<div class="step"><div class="step-head"><div class="step-what">'
        f"<h4>{messages.escape(one.title)}</h4></div>"
        f'<div class="step-flow">{flow(one)}</div></div>{details(one, open_=True)}</div>'
        for one in results
    )
    return (
        f'<div class="trial"><p class="aside">Tried on {tried}; nothing is changed yet.</p>'
        f"{cards}</div>"
    )


def chooser(form: str) -> str:
    """Every kind of step for a form, by what it is for, with its sentence."""
    known = offered(form)
    parts = []
    for kind, title in _GROUPS:
        buttons = "".join(_choice(op, step) for op, step in known.items() if step.kind == kind)
        parts.append(f'<h4>{title}</h4><div class="step-choices">{buttons}</div>')
    return "".join(parts)


def _choice(op: str, step: type[Step]) -> str:
    return (
        f'<button type="button" data-act="choose" data-at="{op}"><b>'
        f"{messages.escape(step.title)}</b><span>{messages.escape(step.about())}</span></button>"
    )


def versions(info: DatasetInfo) -> str:
    """The states that the data set has been in, the newest first."""
    known = info.versions
    if len(known) < 2:
        return (
            '<p class="aside">Each change makes a version; runs keep the one they began with. '
            "There is only one so far.</p>"
        )
    rows = "".join(_version(one, one.number == info.version) for one in reversed(known))
    return (
        '<div class="table-scroll"><table class="versions"><thead><tr><th>Version</th><th>Made</th>'
        "<th>Rows</th><th>Steps</th><th>Change</th><th><span class='sr-only'>Use</span></th></tr>"
        f"</thead><tbody>{rows}</tbody></table></div>"
    )


def _version(one: Version, current: bool) -> str:
    counts = one.counts
    rows = [
        f"{getattr(counts, part):,} {title}"
        for part, title in _PARTS.items()
        if part == "train" or getattr(counts, part)
    ]
    titles = ", ".join(result.title for result in one.steps) or "none"
    use = (
        '<span class="badge badge-finished">In use</span>'
        if current
        else f'<button type="button" class="small" data-act="use" data-at="{one.number}">'
        "Use this one</button>"
    )
    note = one.note or ("Imported" if not one.parent or one.parent == one.number else "")
    cells: Iterable[tuple[str, str]] = (
        ("Version", f"{one.number}"),
        ("Made", messages.escape(_when(one.created_at))),
        ("Rows", messages.escape(", ".join(rows))),
        ("Steps", f'<span title="{messages.escape(titles)}">{len(one.steps)}</span>'),
        ("Change", messages.escape(note)),
        ("", use),
    )
    body = "".join(f'<td data-label="{label}">{cell}</td>' for label, cell in cells)
    return f'<tr class="{"selected" if current else ""}">{body}</tr>'


def _when(created_at: str) -> str:
    try:
        return datetime.fromisoformat(created_at).astimezone().strftime("%d %b %H:%M:%S")
    except ValueError:
        return ""


def recipe_link(info: DatasetInfo) -> str:
    """The steps as a file to save; it is in the page itself."""
    text = write_recipe(recipe_of(info))
    name = f"{re.sub(r'[^A-Za-z0-9]+', '-', info.name).strip('-').lower() or info.id}-recipe.yaml"
    return (
        '<p class="aside">The same steps on another file give the same kind of set. The recipe has '
        "the form, the mapping and the steps as YAML; the shell takes it too "
        f"(data prepare --steps).</p><pre class='recipe'>{messages.escape(text)}</pre>"
        f'<a class="small" download="{messages.escape(name)}" '
        f'href="data:text/yaml;charset=utf-8,{quote(text)}">Download the recipe</a>'
    )
