"""The steps of a data set as HTML: what each did, what one would do, and the versions made."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from markupsafe import Markup, escape

from core.data.record import DatasetInfo, StepChange, StepResult, Version
from core.data.steps import known_steps, write_recipe
from core.data.steps.labels import about_alike
from core.data.versions import recipe_of
from core.language import N_, _
from webui import messages
from webui.data.step_form import MADE_ELSEWHERE, offered, section_specs
from webui.html import html

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


def head(info: DatasetInfo) -> Markup:
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


def steps(info: DatasetInfo) -> Markup:
    """A card for each recorded step, in order, below a button that merges labels where some are as
    good as the same."""
    shown = html.step_cards.steps(about_alike(info.labels), [_card(one) for one in info.steps])
    if info.steps:
        return shown
    return shown + messages.empty(
        _("No steps yet"),
        _(
            "Add one to drop duplicates, mask personal data, rename labels or split rows "
            "off. Try it first: it shows which rows it would drop. Every step can be taken "
            "out again."
        ),
    )


def _card(result: StepResult) -> tuple[Any, ...]:
    """Title, whether it can be edited, settings, rows, details."""
    op = result.step.get("op")
    step = known_steps().get(str(op))
    may_edit = step is not None and step.op not in MADE_ELSEWHERE
    return result.title or op, may_edit, settings(result.step), flow(result), details(result)


def settings(record: Mapping[str, Any]) -> Markup:
    """What was set, in one line of HTML: the main settings, and others that were changed."""
    step = known_steps().get(str(record.get("op")))
    if step is None:
        return escape(", ".join(f"{k} {v}" for k, v in record.items() if k != "op"))
    op = step.op
    specs = section_specs(step, op)
    values = {spec.name: record.get(spec.name, spec.default) for spec in specs}
    by_path = {spec.path: values[spec.name] for spec in specs}
    words = []
    for spec in specs:
        value = values[spec.name]
        wanted = spec.level == "basic" or value != spec.default
        is_set = value is not False and value not in ("", None, [], {})  # 0 is a setting
        if wanted and is_set and spec.shown(by_path):
            words.append(_setting(spec.label, spec.name, value))
    return html.step_cards.settings(words)


def _setting(label: str, name: str, value: Any) -> tuple[str, str, list[str], int]:
    """Label, what stands after it, values, and how many more of them there are."""
    if value is True:
        return label, "", [], 0
    if isinstance(value, dict):
        value = [f"{old} → {new or _('left out')}" for old, new in value.items()]
    if isinstance(value, list):
        return label, ": ", [str(one) for one in value[:_NAMED]], max(len(value) - _NAMED, 0)
    text = str(value)[:12] if name == "sha256" else str(value)
    return label, " ", [text if len(text) <= 80 else f"{text[:77]}..."], 0


def flow(result: StepResult) -> Markup:
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
    return html.step_cards.flow(words)


def _rows(part: str, rows: int) -> str:
    return _(_PARTS[part][0]).format(rows=rows)


def details(result: StepResult, *, open_: bool = False) -> Markup:
    """Why a step did nothing, which rows it dropped, with the reasons counted, and rows that it
    changed."""
    makes_rows = _makes_rows(result)
    drops = [(_place(one.part, one.index), one.reason, one.text) for one in result.listed[:LISTED]]
    changes = [_change(one, makes_rows) for one in result.shown[:SHOWN]]
    note = messages.note(result.remark, "stopped") if result.remark else ""
    return html.step_cards.details(note, open_, result, makes_rows, drops, changes)


def _makes_rows(result: StepResult) -> bool:
    """Whether what came out has no one row that it came from."""
    return result.step.get("op") == "cut_text"


def _place(part: str, index: int) -> str:
    return _(_PARTS[part][1]).format(n=index + 1)


def _change(one: StepChange, is_made: bool) -> tuple[str, str, str]:
    """Place, text before, text after."""
    texts = ("", one.after) if is_made else differences(one.before, one.after)
    return _place(one.part, one.index), *texts


def differences(before: str, after: str) -> tuple[Markup, Markup]:
    """Both texts as HTML with the words marked that differ."""
    old, new = _WORD.findall(before), _WORD.findall(after)
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    left: list[tuple[str, str]] = []
    right: list[tuple[str, str]] = []
    for kind, i, j, k, m in matcher.get_opcodes():
        gone, come = "".join(old[i:j]), "".join(new[k:m])
        if kind == "equal":
            same = _shortened(gone, first=i == k == 0)
            left.append(("same", same))
            right.append(("same", same))
            continue
        left += [("lost", gone)] if gone else []
        right += [("given", come)] if come else []
    return html.answers.marked(left), html.answers.marked(right)


def _shortened(text: str, first: bool) -> str:
    """What both rows share, without its middle where that is long."""
    if len(text) <= 3 * _AROUND:
        return text
    begin = "" if first else text[:_AROUND]
    return f"{begin} ... {text[-_AROUND:]}"


def trial(results: Sequence[StepResult], rows: int, there: int) -> Markup:
    """What steps that were only tried would do."""
    told = _("Tried on all {n:,} rows; nothing is changed yet.", n=there)
    if there > rows:
        told = _("Tried on the first {n:,} rows of each part; nothing is changed yet.", n=rows)
    cards = [(one.title, flow(one), details(one, open_=True)) for one in results]
    return html.step_cards.trial(told, cards)


def chooser(form: str) -> Markup:
    """Every kind of step for a form, by what it is for, with its sentence."""
    known = offered(form).items()
    groups = [
        (_(title), [(op, step) for op, step in known if step.kind == kind])
        for kind, title in _GROUPS
    ]
    return html.step_cards.chooser(groups)


def versions(info: DatasetInfo) -> Markup:
    """The states that the data set has been in, the newest first."""
    known = info.versions
    if len(known) < 2:
        told = _(
            "Each change makes a version; runs keep the one they began with. There is only one so "
            "far."
        )
        return html.plain.aside(told)
    return html.step_cards.versions([_version(one) for one in reversed(known)], info.version)


def _version(one: Version) -> tuple[Version, str, str, str, str]:
    """The version, when it was made, its rows, its steps, what was changed."""
    rows = [
        _rows(part, getattr(one.counts, part))
        for part in _PARTS
        if part == "train" or getattr(one.counts, part)
    ]
    titles = ", ".join(str(result.title) for result in one.steps) or _("none")
    note = one.note or (_("Imported") if not one.parent or one.parent == one.number else "")
    return one, _when(one.created_at), ", ".join(rows), titles, note


def _when(created_at: str) -> str:
    try:
        when = datetime.fromisoformat(created_at).astimezone()
        return _("{when:%d %b %H:%M:%S}", when=when)
    except ValueError:
        return ""


def recipe_link(info: DatasetInfo) -> Markup:
    """The steps as a file to save; it is in the page itself."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", info.name).strip("-").lower() or info.id
    return html.step_cards.recipe(write_recipe(recipe_of(info)), f"{name}-recipe.yaml")
