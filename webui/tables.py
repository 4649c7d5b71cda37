"""Tables of what the workspace holds: in the order of a column, a page at a time, with ticks that
outlast the page. What a click on them does is in assets/page.js (`tunesmith.table`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import gradio as gr
from markupsafe import Markup

from webui.html import html

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


def page(items: Sequence[Item], first: int, size: int = PAGE) -> tuple[Sequence[Item], Markup]:
    """The page on which the item at `first` is, and the buttons to the other pages."""
    total = len(items)
    if total <= size:
        return items, Markup()
    first = max(0, min(first, total - 1)) // size * size
    last = min(first + size, total)
    return items[first:last], html.tables.pager(first, last, total, size)


def heads(titles: Iterable[tuple[str, str]], by: str, descending: bool) -> Markup:
    """The headings of the columns, by the key that a click on them sorts by."""
    return html.tables.heads(titles, by, "descending" if descending else "ascending")
