"""A conversation as HTML: a column for each model; answers as Markdown, thoughts and calls folded
away, with buttons to mark them. Whatever a model writes is text: no HTML of its own is kept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from markdown_it import MarkdownIt

from core.chat.conversations import Lane, Turn
from core.chat.session import ColumnState
from core.language import N_, _, n_
from webui import messages

_THOUGHT = re.compile(r"\s*<think>\n?(.*?)(?:</think>\s*|$)", re.DOTALL)
_CALL = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|$)", re.DOTALL)
_ENDS = {"length": N_("cut at the longest answer"), "stopped": N_("stopped")}


def lanes(columns: Sequence[Lane], states: Sequence[ColumnState] | None = None) -> str:
    """The conversation; `states` are answers that are being written."""
    drawn = "".join(
        _lane(lane, place, len(columns) > 1, states[place] if states else None)
        for place, lane in enumerate(columns)
    )
    return f'<div class="lanes" aria-live="polite">{drawn}</div>'


def _lane(lane: Lane, number: int, several: bool, state: ColumnState | None) -> str:
    last = len(lane.turns) - 1
    turns = "".join(
        _turn(turn, f"{number}.{place}", several, state is None, place >= last - 1)
        for place, turn in enumerate(lane.turns)
    )
    if state is not None:
        text = state.text if state.text or state.done else "..."
        wrong = messages.error(state.error) if state.error else ""
        turns += (
            f'<div class="said said-assistant">{words(text)}{wrong}{_small(speed(state))}</div>'
        )
    return (
        f'<section class="lane"><h3>{messages.escape(lane.column.label)}</h3>'
        f'<div class="turns">{turns}</div></section>'
    )


def _turn(turn: Turn, place: str, several: bool, is_idle: bool, is_last: bool) -> str:
    if turn.role != "assistant":
        again = _button("again", place, _("Ask again")) if is_idle and is_last else ""
        edit = _button("rewrite", place, _("Edit")) if is_idle else ""
        text = f'<div class="words">{messages.escape(turn.content)}</div>'
        return f'<div class="said said-user">{text}<span class="acts">{edit}{again}</span></div>'
    shown = words(turn.content)
    if turn.edited:
        told = _("As it should have been")
        shown += f'<div class="edited"><h4>{told}</h4>{words(turn.edited)}</div>'
    acts = ""
    if is_idle:
        acts = _button("up", place, _("Good"), pressed=turn.mark == "up")
        acts += _button("down", place, _("Bad"), pressed=turn.mark == "down")
        if several:
            acts += _button("better", place, _("This one is better"), pressed=turn.better)
        acts += _button("edit", place, _("Correct"), _("Write how it should have been"))
    acts = f'<span class="acts">{acts}</span>'
    return f'<div class="said said-assistant">{shown}{_small(turn.note)}{acts}</div>'


def _button(act: str, place: str, text: str, title: str = "", pressed: bool | None = None) -> str:
    label = f' title="{title}"' if title else ""
    state = "" if pressed is None else f' aria-pressed="{str(pressed).lower()}"'
    return (
        f'<button type="button" class="small" data-act="{act}" data-id="{place}"{label}{state}>'
        f"{text}</button>"
    )


def _small(note: str) -> str:
    return f"<small>{messages.escape(note)}</small>" if note else ""


def words(text: str) -> str:
    """What a model wrote: its thoughts folded, its calls as such, the rest as Markdown."""
    thought = _THOUGHT.match(text)
    drawn = ""
    if thought and thought[1].strip():
        told = _("Thoughts")
        inside = f"<div class='words'>{messages.escape(thought[1].strip())}</div>"
        drawn = f'<details class="thought"><summary>{told}</summary>{inside}</details>'
    rest = text[thought.end() :] if thought else text
    for at, part in enumerate(_CALL.split(rest)):
        if at % 2:
            drawn += (
                f'<div class="call"><b>{_("Call of a tool")}</b>'
                f"<pre>{messages.escape(part)}</pre></div>"
            )
        elif part.strip():
            drawn += f'<div class="words markdown">{_markdown().render(part)}</div>'
    return drawn


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
