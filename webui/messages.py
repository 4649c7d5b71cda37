"""Texts and small pieces of HTML that several tabs use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from markupsafe import Markup

from core.errors import TunesmithError
from core.language import N_, _
from webui.html import html

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


def badge(state: str, signal: int | None = None) -> Markup:
    """A state's word with its colour; a died run names its signal."""
    word = _(STATE_WORDS.get(state, state))
    if state == "died" and signal:
        word = _("{state} (signal {signal})", state=word, signal=signal)
    return html.messages.badge(_STATE_COLOURS.get(state, "queued"), word)


def empty(title: str, text: str = "") -> Markup:
    """An empty state: what belongs here, and the first step."""
    return html.messages.empty(title, text)


def error(problem: TunesmithError | str, hint: str = "") -> Markup:
    """What happened and what to do next, in the colour of failure."""
    if isinstance(problem, TunesmithError):
        return html.messages.error(problem.message, hint or problem.hint)
    return html.messages.error(problem, hint)


def note(text: str, kind: str = "plain") -> Markup:
    """A line of explanation; `kind` is plain, running, stopped, finished or failed."""
    return html.messages.note(text, kind)


def progress(fraction: float | None, text: str) -> Markup:
    """A bar with its text; without a fraction (0 to 1) only that something is going on."""
    percent = None if fraction is None else 100 * max(0.0, min(1.0, fraction))
    return html.messages.progress(percent, text)


def figures(items: Iterable[tuple[str, ...]]) -> Markup:
    """A strip of figures: (label, value) or (label, value, explanation on hover)."""
    return html.messages.figures([(*item, "")[:3] for item in items])


def facts(items: Mapping[str, str]) -> Markup:
    """Label and value in rows, for a card."""
    return html.messages.facts(items)


def folded(pieces: Sequence[Markup], first: int, last: int = 0) -> Markup:
    """Pieces of HTML; what is between the `first` and the `last` of them opens at a click."""
    end = max(first, len(pieces) - last)
    if end - first < 2:
        return Markup().join(pieces)
    return html.messages.folded(pieces[:first], pieces[first:end], pieces[end:])


def turn(role: str, content: Any, extra: str = "") -> Markup:
    """One turn of a conversation; `extra` stands after the role's name."""
    known = role if role in ("system", "user", "assistant", "tool") else "other"
    return html.messages.turn(role, known, content, extra)


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
