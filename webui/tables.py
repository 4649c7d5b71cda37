"""Tables of what the workspace holds: in the order of a column, a page at a time, with ticks that
outlast the page. What a click on them does is in assets/page.js (`tunesmith.table`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import gradio as gr

from core.language import _

Item = TypeVar("Item")
PAGE = 25
CLICKS = "tunesmith.table(element, trigger);"
NEWEST = {"by": "created", "descending": True, "first": 0}


def reorder(order: dict[str, Any], event: gr.EventData) -> dict[str, Any]:
    """The order after a click: another page, or another column from its first page."""
    first = getattr(event, "first", None)
    if first is not None:
        return {**order, "first": int(first)}
    same = order["by"] == event.sort
    return {"by": event.sort, "descending": not order["descending"] if same else True, "first": 0}


def tick(before: Sequence[str], event: gr.EventData) -> list[str]:
    """What is ticked now; the ticks of other pages stay."""
    return [one for one in before if one not in event.shown] + list(event.ticked)


def page(items: Sequence[Item], first: int, size: int = PAGE) -> tuple[Sequence[Item], str]:
    """The page on which the item at `first` is, and the buttons to the other pages."""
    total = len(items)
    if total <= size:
        return items, ""
    first = max(0, min(first, total - 1)) // size * size
    last = min(first + size, total)
    place = _("{first:,} to {last:,} of {total:,}", first=first + 1, last=last, total=total)
    return items[first:last], (
        f'<nav class="pager">{_turn(_("Previous"), first - size, first > 0)}'
        f"{_turn(_('Next'), last, last < total)}<span>{place}</span></nav>"
    )


def _turn(word: str, first: int, there: bool) -> str:
    off = "" if there else "disabled"
    return f'<button type="button" class="small" data-first="{first}" {off}>{word}</button>'


def heads(titles: Iterable[tuple[str, str]], by: str, descending: bool) -> str:
    """The headings of the columns, by the key that a click on them sorts by."""
    return "".join(_head(key, title, by, descending) for key, title in titles)


def _head(key: str, title: str, by: str, descending: bool) -> str:
    order = ("descending" if descending else "ascending") if key == by else "none"
    arrow = {"descending": "\u2193", "ascending": "\u2191", "none": ""}[order]
    return (
        f'<th aria-sort="{order}"><button type="button" class="sort" data-sort="{key}">'
        f"{title} <span aria-hidden='true'>{arrow}</span></button></th>"
    )
