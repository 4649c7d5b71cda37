"""Texts and small pieces of HTML that several tabs use.

Everything a user, a file or a model wrote goes through `escape` before it becomes HTML: rows and
answers are not to be trusted. Functions here take plain text and return HTML.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from core.errors import TunesmithError
from core.language import N_, _

# The word beside each colour of state; the colours are in tokens.css as --<state>.
STATE_WORDS = {
    "queued": N_("Queued"),
    "starting": N_("Starting"),
    "running": N_("Running"),
    "stopping": N_("Stopping"),
    "finished": N_("Finished"),
    "stopped": N_("Stopped"),
    "failed": N_("Failed"),
    "died": N_("Died"),
}
_STATE_COLOURS = {
    "queued": "queued",
    "starting": "running",
    "running": "running",
    "stopping": "stopped",
    "finished": "finished",
    "stopped": "stopped",
    "failed": "failed",
    "died": "failed",
}


def escape(text: object) -> str:
    """`text` as harmless HTML, quotes included."""
    return html.escape(str(text), quote=True)


def badge(state: str, signal: int | None = None) -> str:
    """A state's word with its colour; a died run names its signal."""
    word = STATE_WORDS.get(state, state)
    if state == "died" and signal:
        word = _("{state} (signal {signal})", state=word, signal=signal)
    colour = _STATE_COLOURS.get(state, "queued")
    return f'<span class="badge badge-{colour}">{escape(word)}</span>'


def empty(title: str, text: str = "") -> str:
    """An empty state: what belongs here, and the first step."""
    more = f"<p>{escape(text)}</p>" if text else ""
    return f'<div class="empty"><h3>{escape(title)}</h3>{more}</div>'


def error(problem: TunesmithError | str, hint: str = "") -> str:
    """What happened and what to do next, in the colour of failure."""
    if isinstance(problem, TunesmithError):
        message, hint = problem.message, hint or problem.hint
    else:
        message = problem
    more = f"<p>{escape(hint)}</p>" if hint else ""
    what = f"<strong>{escape(message)}</strong>"
    return f'<div class="notice notice-failed" role="alert">{what}{more}</div>'


def note(text: str, kind: str = "plain") -> str:
    """A line of explanation; `kind` is plain, running, stopped, finished or failed."""
    return f'<div class="notice notice-{escape(kind)}">{escape(text)}</div>'


def progress(fraction: float | None, text: str) -> str:
    """A bar with its text; without a fraction (0 to 1) only that something is going on."""
    if fraction is None:
        bar = '<div class="bar bar-unknown"><i></i></div>'
    else:
        percent = max(0.0, min(1.0, fraction)) * 100
        bar = (
            f'<div class="bar" role="progressbar" aria-valuenow="{percent:.0f}" aria-valuemin="0" '
            f'aria-valuemax="100"><i style="width:{percent:.1f}%"></i></div>'
        )
    return f'<div class="progress"><div>{escape(text)}</div>{bar}</div>'


def figures(items: Iterable[tuple[str, ...]]) -> str:
    """A strip of figures: (label, value) or (label, value, explanation on hover)."""
    cells = []
    for label, value, *title in items:
        hint = f' title="{escape(title[0])}"' if title else ""
        cells.append(f"<div{hint}><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>")
    return f'<dl class="figures">{"".join(cells)}</dl>'


def facts(items: Mapping[str, str]) -> str:
    """Label and value in rows, for a card."""
    rows = "".join(
        f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>"
        for label, value in items.items()
    )
    return f'<dl class="facts">{rows}</dl>'


def folded(pieces: Sequence[str], first: int, last: int = 0) -> str:
    """Pieces of HTML; what is between the `first` and the `last` of them opens at a click."""
    end = max(first, len(pieces) - last)
    between = pieces[first:end]
    if len(between) < 2:
        return "".join(pieces)
    more = _("{n:,} more", n=len(between))
    fold = f'<details class="more"><summary>{more}</summary>{"".join(between)}</details>'
    return "".join([*pieces[:first], fold, *pieces[end:]])


def turn(role: str, content: Any, extra: str = "") -> str:
    """One turn of a conversation; `extra` is HTML that stands after the role's name."""
    known = role if role in ("system", "user", "assistant", "tool") else "other"
    return (
        f'<div class="turn turn-{known}"><div class="role">{escape(role)}{extra}</div>'
        f'<div class="content">{escape(content)}</div></div>'
    )


# Numbers with their units, rounded to what is meant.


def duration(seconds: float | None) -> str:
    """75 -> "1 min 15 s"; None -> "-"."""
    if seconds is None:
        return "-"
    whole = max(0, round(seconds))
    if whole < 60:
        return _("{seconds} s", seconds=whole)
    if whole < 3600:
        minutes, rest = divmod(whole, 60)
        if minutes >= 10:
            return _("{minutes} min", minutes=minutes)
        return _("{minutes} min {seconds:02d} s", minutes=minutes, seconds=rest)
    hours, rest = divmod(whole, 3600)
    return _("{hours} h {minutes:02d} min", hours=hours, minutes=rest // 60)


def moment(seconds: float) -> str:
    """When something was, in seconds since the epoch: "29 Nov 15:27"."""
    return _("{when:%d %b %H:%M}", when=datetime.fromtimestamp(seconds))


def checkpoint(name: str) -> str:
    """What a run's checkpoint is called in a sentence."""
    return _("finished model") if name == "final" else name


def size(count: float | None) -> str:
    """Bytes: 1536 -> "1.5 KiB"; None -> "-"."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def count(number: float | None) -> str:
    """Thousands set apart: 12345 -> "12,345"; None -> "-"."""
    return "-" if number is None else f"{number:,.0f}"


def short(number: float | None) -> str:
    """134515008 -> "134.5 M"; None -> "-"."""
    if number is None:
        return "-"
    for bound, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= bound:
            return f"{number / bound:.1f}{unit}"
    return f"{number:,.0f}"


def loss(value: float | None) -> str:
    """A loss to four figures: 0.4321; None -> "-"."""
    return "-" if value is None else f"{value:.4g}"
