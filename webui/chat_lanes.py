"""A conversation as HTML: a column for each model; answers as Markdown, thoughts and calls folded
away, with buttons to mark them. Whatever a model writes is text: no HTML of its own is kept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from markdown_it import MarkdownIt
from markupsafe import Markup

from core.chat.conversations import Lane, Turn
from core.chat.session import ColumnState
from core.language import N_, _, n_
from webui import messages
from webui.html import html

_THOUGHT = re.compile(r"\s*<think>\n?(.*?)(?:</think>\s*|$)", re.DOTALL)
_CALL = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|$)", re.DOTALL)
_ENDS = {"length": N_("cut at the longest answer"), "stopped": N_("stopped")}


def lanes(columns: Sequence[Lane], states: Sequence[ColumnState] | None = None) -> Markup:
    """The conversation; `states` are answers that are being written."""
    growing = [_growing(state) for state in states] if states else [None] * len(columns)
    drawn = [
        (lane.column.label, [_turn(turn) for turn in lane.turns], answer)
        for lane, answer in zip(columns, growing, strict=True)
    ]
    return html.chat_lanes.lanes(drawn, not states)


def _turn(turn: Turn) -> tuple[Turn, Markup, Markup]:
    """A turn with what a model said in it, and how that should have been."""
    if turn.role != "assistant":
        return turn, Markup(), Markup()
    return turn, words(turn.content), words(turn.edited) if turn.edited else Markup()


def _growing(state: ColumnState) -> dict[str, str]:
    return {
        "answer": words(state.text if state.text or state.done else "..."),
        "error": messages.error(state.error) if state.error else "",
        "speed": speed(state),
    }


def words(text: str) -> Markup:
    """What a model wrote: its thoughts folded, its calls as such, the rest as Markdown."""
    thought = _THOUGHT.match(text)
    rest = text[thought.end() :] if thought else text
    parts: list[tuple[str, bool]] = []
    for at, part in enumerate(_CALL.split(rest)):
        if at % 2:
            parts.append((part, True))
        elif part.strip():
            parts.append((Markup(_markdown().render(part)), False))  # it lets no HTML through
    return html.chat_lanes.words(thought[1].strip() if thought else "", parts)


@lru_cache
def _markdown() -> MarkdownIt:
    """Raw HTML is escaped, pictures are not fetched, links lead to no script (its own rule)."""
    reader = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable("table")
    return reader.disable("image")


def speed(state: ColumnState) -> str:
    """Tokens, tokens per second, time to the first, and why the answer ended if not by itself."""
    if not state.tokens:
        return ""
    told = n_(
        "{n} token, {speed:.0f} tokens/s, first after {first:.1f} s",
        "{n} tokens, {speed:.0f} tokens/s, first after {first:.1f} s",
        state.tokens,
        speed=state.tokens_per_second,
        first=state.first_seconds,
    )
    end = _ENDS.get(state.reason)
    return _("{speed}, {end}", speed=told, end=end) if end else told
