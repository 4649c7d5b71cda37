"""The steps of a data set as HTML: what each did, what one would do, and the versions made."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from core.data.record import DatasetInfo, StepChange, StepDrop, StepResult, Version
from core.data.steps import known_steps, write_recipe
from core.data.steps.base import Step
from core.data.steps.labels import about_alike
from core.data.versions import recipe_of
from core.language import N_, _
from webui import messages
from webui.data.step_form import MADE_ELSEWHERE, offered, section_specs

LISTED, SHOWN = 20, 8
_NAMED = 3
# So much of what two texts share stands around what differs, in characters.
_AROUND = 80
# Of each part: its rows, and one of them.
_PARTS = {
    "train": (N_("{rows:,} to learn"), N_("To learn, row {n:,}")),
    "eval": (N_("{rows:,} held out"), N_("Held out, row {n:,}")),
    "test": (N_("{rows:,} test"), N_("Test, row {n:,}")),
}
_WORD = re.compile(r"\s+|\w+|[^\w\s]")
_GROUPS = (("quality", N_("Clean")), ("shape", N_("Shape")))


def head(info: DatasetInfo) -> str:
    """From the rows that were imported to those there are now."""
    counts = info.counts
    items: list[tuple[str, ...]] = [
        (
            _("Imported"),
            messages.count(counts.read - counts.dropped),
            _("Rows as they were read; they stay as they are, whatever the steps do"),
        ),
        (_("Dropped by steps"), messages.count(sum(one.dropped for one in info.steps))),
        (_("To learn"), messages.count(counts.train)),
        (
            _("Held out"),
            messages.count(counts.eval),
            _("For evaluation while training; never learned"),
        ),
    ]
    if counts.test:
        items.append(
            (_("Test"), messages.count(counts.test), _("Nothing looks at it until the end"))
        )
    return messages.figures(items)


def steps(info: DatasetInfo) -> str:
    """A card for each recorded step, in order."""
    alike = _alike(info)
    if not info.steps:
        return alike + messages.empty(
            _("No steps yet"),
            _(
                "Add one to drop duplicates, mask personal data, rename labels or split rows "
                "off. Try it first: it shows which rows it would drop. Every step can be taken "
                "out again."
            ),
        )
    cards = "".join(_card(place, result) for place, result in enumerate(info.steps))
    return f'{alike}<ol class="steps">{cards}</ol>'


def _alike(info: DatasetInfo) -> str:
    """Labels that are as good as the same, and a button that merges them."""
    told = about_alike(info.labels)
    if not told:
        return ""
    return (
        f'<div class="notice notice-stopped">{messages.escape(told)} <button type="button" '
        f'class="small" data-act="merge" data-at="0">{_("Merge them")}</button></div>'
    )


def _card(place: int, result: StepResult) -> str:
    step = known_steps().get(str(result.step.get("op")))
    edit = step is not None and step.op not in MADE_ELSEWHERE
    buttons = "".join(
        f'<button type="button" class="small" data-act="{act}" data-at="{place}" '
        f'aria-label="{label}">{word}</button>'
        for act, word, label in (
            ("edit", _("Edit"), _("Edit step {n}", n=place + 1)),
            ("remove", _("Remove"), _("Remove step {n}", n=place + 1)),
        )
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
    return " · ".join(words) or _("Nothing to set.")


def _setting(label: str, name: str, value: Any) -> str:
    if value is True:
        return messages.escape(label)
    if name == "sha256":
        value = str(value)[:12]
    if isinstance(value, dict):
        pairs = [f"{old} → {new or _('left out')}" for old, new in value.items()]
        return f"{messages.escape(label)}: {_listed(pairs)}"
    if isinstance(value, list):
        return f"{messages.escape(label)}: {_listed([str(item) for item in value])}"
    text = str(value)
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    return f"{messages.escape(label)} <b>{messages.escape(shown)}</b>"


def _listed(items: Sequence[str]) -> str:
    text = ", ".join(f"<b>{messages.escape(item)}</b>" for item in items[:_NAMED])
    more = len(items) - _NAMED
    return _("{items} and {n:,} more", items=text, n=more) if more > 0 else text


def flow(result: StepResult) -> str:
    """Rows in and out, how many it dropped and changed, also when that is none; or how many it
    moved to each part."""
    rows = _("{before:,} → {after:,} rows", before=result.rows_in, after=result.rows_out)
    words: list[tuple[str, str]] = [(rows, "")]
    if result.dropped or not result.parts:
        lost = _("{n:,} dropped", n=result.dropped)
        words.append((lost, "is-lost" if result.dropped else ""))
    if result.changed or not result.parts:
        turned = _("{n:,} changed", n=result.changed)
        words.append((turned, "is-turned" if result.changed else ""))
    moved = {part: rows for part, rows in result.parts.items() if rows or part != "test"}
    words += [(_rows(part, rows), "") for part, rows in moved.items()]
    return "".join(f'<span class="num {tone}">{text}</span>' for text, tone in words)


def _rows(part: str, rows: int) -> str:
    return _(_PARTS[part][0]).format(rows=rows)


def details(result: StepResult, *, open_: bool = False) -> str:
    """Why a step did nothing, which rows it dropped, with the reasons counted, and rows that it
    changed."""
    opened = " open" if open_ else ""
    found = messages.note(result.remark, "stopped") if result.remark else ""
    if result.dropped:
        what = _("Which rows were dropped, and why")
        found += (
            f'<details class="which"{opened}><summary>{what}</summary>'
            f"{_reasons(result)}{_drops(result)}</details>"
        )
    if result.changed:
        what = _("Changed rows, before and after")
        if _makes_rows(result):
            what = _("Rows that it made")
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
    return f'<ul class="drops">{rows}</ul>{_more(result.dropped - len(shown))}'


def _more(count: int) -> str:
    return f'<p class="aside">{_("and {n:,} more", n=count)}</p>' if count > 0 else ""


def _drop(one: StepDrop) -> str:
    return (
        f"<li><span>{_place(one.part, one.index)}: {messages.escape(one.reason)}</span>"
        f"<p>{messages.escape(one.text)}</p></li>"
    )


def _place(part: str, index: int) -> str:
    return _(_PARTS[part][1]).format(n=index + 1)


def _changes(result: StepResult) -> str:
    shown = result.shown[:SHOWN]
    if not shown:
        told = _("What changed stands beside the text of the rows.")
        return f'<p class="aside">{told}</p>'
    make = _made if _makes_rows(result) else _change
    rows = "".join(make(one) for one in shown)
    return f'<div class="changes">{rows}</div>{_more(result.changed - len(shown))}'


def _change(one: StepChange) -> str:
    before, after = differences(one.before, one.after)
    return (
        f'<div class="change"><div class="aside">{_place(one.part, one.index)}</div>'
        f"<div><h5>{_('Before')}</h5><p>{before}</p></div>"
        f"<div><h5>{_('After')}</h5><p>{after}</p></div></div>"
    )


def _made(one: StepChange) -> str:
    return f'<div class="change"><p class="made">{messages.escape(one.after)}</p></div>'


def differences(before: str, after: str) -> tuple[str, str]:
    """Both texts as HTML with the words marked that differ."""
    old, new = _WORD.findall(before), _WORD.findall(after)
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    left: list[str] = []
    right: list[str] = []
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
    told = _("Tried on all {n:,} rows; nothing is changed yet.", n=there)
    if there > rows:
        told = _("Tried on the first {n:,} rows of each part; nothing is changed yet.", n=rows)
    cards = "".join(
        f'<div class="step"><div class="step-head"><div class="step-what">'
        f"<h4>{messages.escape(one.title)}</h4></div>"
        f'<div class="step-flow">{flow(one)}</div></div>{details(one, open_=True)}</div>'
        for one in results
    )
    return f'<div class="trial"><p class="aside">{told}</p>{cards}</div>'


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
        told = _(
            "Each change makes a version; runs keep the one they began with. There is only one so "
            "far."
        )
        return f'<p class="aside">{told}</p>'
    rows = "".join(_version(one, one.number == info.version) for one in reversed(known))
    heads = "".join(f"<th>{_(column)}</th>" for column in _COLUMNS)
    return (
        f'<div class="table-scroll"><table class="versions"><thead><tr>{heads}'
        f"<th><span class='sr-only'>{_('Use')}</span></th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


_COLUMNS = (N_("Version"), N_("Made"), N_("Rows"), N_("Steps"), N_("Change"))


def _version(one: Version, current: bool) -> str:
    counts = one.counts
    rows = [
        _rows(part, getattr(counts, part))
        for part in _PARTS
        if part == "train" or getattr(counts, part)
    ]
    titles = ", ".join(str(result.title) for result in one.steps) or _("none")
    use = (
        f'<span class="badge badge-finished">{_("In use")}</span>'
        if current
        else f'<button type="button" class="small" data-act="use" data-at="{one.number}">'
        f"{_('Use this one')}</button>"
    )
    note = one.note or (_("Imported") if not one.parent or one.parent == one.number else "")
    cells = [
        f"{one.number}",
        messages.escape(_when(one.created_at)),
        messages.escape(", ".join(rows)),
        f'<span title="{messages.escape(titles)}">{len(one.steps)}</span>',
        messages.escape(note),
        use,
    ]
    body = "".join(
        f'<td data-label="{label}">{cell}</td>'
        for label, cell in zip((*_COLUMNS, ""), cells, strict=True)
    )
    return f'<tr class="{"selected" if current else ""}">{body}</tr>'


def _when(created_at: str) -> str:
    try:
        when = datetime.fromisoformat(created_at).astimezone()
        return _("{when:%d %b %H:%M:%S}", when=when)
    except ValueError:
        return ""


def recipe_link(info: DatasetInfo) -> str:
    """The steps as a file to save; it is in the page itself."""
    text = write_recipe(recipe_of(info))
    name = f"{re.sub(r'[^A-Za-z0-9]+', '-', info.name).strip('-').lower() or info.id}-recipe.yaml"
    told = _(
        "The same steps on another file give the same kind of set. The recipe has the form, the "
        "mapping and the steps as YAML; the shell takes it too (data prepare --steps)."
    )
    return (
        f"<p class=\"aside\">{told}</p><pre class='recipe'>{messages.escape(text)}</pre>"
        f'<a class="small" download="{messages.escape(name)}" '
        f'href="data:text/yaml;charset=utf-8,{quote(text)}">{_("Download the recipe")}</a>'
    )
