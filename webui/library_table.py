"""The table of data sets as HTML: what each is, how large, how old."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from core.data.forms import FORMS
from core.data.record import DatasetInfo
from webui import messages

# Columns that can be sorted: key -> (label, value of a set).
SORT_KEYS: dict[str, tuple[str, Callable[[DatasetInfo], Any]]] = {
    "name": ("Data set", lambda info: info.name.casefold()),
    "form": ("Form", lambda info: info.form),
    "rows": ("Rows to learn", lambda info: info.counts.train),
    "eval": ("Held out", lambda info: info.counts.eval),
    "version": ("Version", lambda info: info.version),
    "size": ("Size", DatasetInfo.size_bytes),
    "created": ("Last change", lambda info: info.created_at),
}
# Clicks on the table: a heading sorts, a tick gathers, a button acts, a row opens.
CLICKS = """
element.addEventListener('click', (event) => {
  const head = event.target.closest('[data-sort]');
  if (head) return trigger('input', {sort: head.dataset.sort});
  const act = event.target.closest('[data-act]');
  if (act) return trigger('apply', {dataset: act.dataset.set});
  if (event.target.closest('label, input')) return;
  const row = event.target.closest('[data-set]');
  if (row) trigger('select', {dataset: row.dataset.set});
});
element.addEventListener('change', (event) => {
  if (!event.target.matches('input[data-tick]')) return;
  const ticked = [...element.querySelectorAll('input[data-tick]:checked')];
  trigger('like', {datasets: ticked.map((box) => box.dataset.tick)});
});
"""


def form_title(form: str) -> str:
    """A standard form as a person reads it."""
    return next((known.title for known in FORMS.values() if known.standard == form), form)


def render(
    sets: Sequence[DatasetInfo],
    damaged: Sequence[tuple[str, str]],
    *,
    by: str,
    descending: bool,
    ticked: Sequence[str],
    selected: str,
) -> str:
    """The table in the order of one column; what cannot be opened stands below, with the reason."""
    value = SORT_KEYS.get(by, SORT_KEYS["created"])[1]
    heads = "".join(_head(key, label, by, descending) for key, (label, _) in SORT_KEYS.items())
    rows = "".join(
        _row(info, info.id in ticked, info.id == selected)
        for info in sorted(sets, key=value, reverse=descending)
    )
    broken = "".join(_damaged(identity, reason) for identity, reason in damaged)
    return (
        '<div class="table-scroll"><table class="runs sets"><thead><tr>'
        f'<th><span class="sr-only">Put together</span></th>{heads}</tr></thead>'
        f"<tbody>{rows}{broken}</tbody></table></div>"
    )


def _head(key: str, label: str, by: str, descending: bool) -> str:
    order = ("descending" if descending else "ascending") if key == by else "none"
    arrow = {"descending": "\u2193", "ascending": "\u2191", "none": ""}[order]
    return (
        f'<th aria-sort="{order}"><button type="button" class="sort" data-sort="{key}">'
        f"{label} <span aria-hidden='true'>{arrow}</span></button></th>"
    )


def _row(info: DatasetInfo, ticked: bool, selected: bool) -> str:
    name, identity = messages.escape(info.name), messages.escape(info.id)
    note = f"<small>{messages.escape(info.description)}</small>" if info.description else ""
    test = f" <small>and {info.counts.test:,} for a test</small>" if info.counts.test else ""
    cells = [
        f'<label><input type="checkbox" data-tick="{identity}" {"checked" if ticked else ""}>'
        f'<span class="sr-only">Put {name} together with others</span></label>',
        f'<button type="button" class="run-name">{name}</button>{note}',
        messages.escape(form_title(info.form)),
        f"{info.counts.train:,}",
        f"{info.counts.eval:,}{test}",
        _version(info),
        messages.size(info.size_bytes()),
        _when(info.created_at),
    ]
    labels = ["", *[label for label, _ in SORT_KEYS.values()]]
    body = "".join(
        f'<td data-label="{label}">{cell}</td>' for label, cell in zip(labels, cells, strict=True)
    )
    return f'<tr data-set="{identity}" class="{"selected" if selected else ""}">{body}</tr>'


def _version(info: DatasetInfo) -> str:
    if not info.version:
        return "-"
    count = len(info.versions)
    return f"{info.version}" + (f" <small>of {count} kept</small>" if count > 1 else "")


def _when(created_at: str) -> str:
    try:
        return datetime.fromisoformat(created_at).strftime("%d %b %Y %H:%M")
    except ValueError:
        return "-"


def _damaged(identity: str, reason: str) -> str:
    shown = messages.escape(identity)
    return (
        f'<tr class="damaged"><td></td><td colspan="{len(SORT_KEYS)}"><b>{shown}</b> '
        f"{messages.escape(reason)} "
        f'<button type="button" class="small" data-act="delete" data-set="{shown}">Delete</button>'
        "</td></tr>"
    )
