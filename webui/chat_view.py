"""A conversation in columns of equal width as HTML, one column for each model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from core.chat.settings import Column, ColumnState, LoadedModels
from webui import messages

_ENDS = {"length": "cut at the longest answer", "stopped": "stopped"}


@dataclass
class Lane:
    """One column of the conversation. `turns` are {role, content, note}; note is small print."""

    column: Column
    turns: list[dict[str, str]] = field(default_factory=list)

    def conversation(self, system: str) -> list[dict[str, str]]:
        """The turns as the model takes them, with the system prompt in front if there is one."""
        first = [{"role": "system", "content": system}] if system.strip() else []
        return first + [{"role": t["role"], "content": t["content"]} for t in self.turns]


def lanes(columns: Sequence[Lane], states: Sequence[ColumnState] | None = None) -> str:
    """The conversation; `states` are answers that are being written."""
    drawn = "".join(
        _lane(lane, states[place] if states else None) for place, lane in enumerate(columns)
    )
    return f'<div class="lanes" aria-live="polite">{drawn}</div>'


def _lane(lane: Lane, state: ColumnState | None) -> str:
    turns = "".join(
        _turn(turn["role"], turn["content"], turn.get("note", "")) for turn in lane.turns
    )
    if state is not None:
        text = state.text if state.text or state.done else "..."
        turns += _turn("assistant", text, speed(state), state.error)
    return (
        f'<section class="lane"><h3>{messages.escape(lane.column.label)}</h3>'
        f'<div class="turns">{turns}</div></section>'
    )


def _turn(role: str, content: str, note: str = "", error: str = "") -> str:
    wrong = messages.error(error) if error else ""
    small = f"<small>{messages.escape(note)}</small>" if note else ""
    return (
        f'<div class="said said-{messages.escape(role)}">'
        f'<div class="words">{messages.escape(content)}</div>{wrong}{small}</div>'
    )


def speed(state: ColumnState) -> str:
    """Tokens, tokens per second, and why the answer ended if not by itself."""
    if not state.tokens:
        return ""
    told = f"{state.tokens} tokens, {state.tokens_per_second:.0f} tokens/s"
    end = _ENDS.get(state.reason)
    return f"{told}, {end}" if end else told


def loaded(models: LoadedModels | None) -> str:
    """What is in memory."""
    if models is None:
        return '<p class="soft">No model is in memory. The first question loads them.</p>'
    kinds = ", ".join(dict.fromkeys(models.dtypes))
    memory = messages.size(models.gpu_memory_bytes or models.memory_bytes)
    how_many = "one column" if len(models.columns) == 1 else f"{len(models.columns)} columns"
    return (
        f'<p class="soft">In memory: {memory} for {how_many}, '
        f"{messages.escape(kinds)} on {messages.escape(models.device)}.</p>"
    )


def first_words(rows: Sequence[dict[str, Any]]) -> tuple[str, list[str]]:
    """(system prompt, questions) of data set rows, to try a model on what it was trained for."""
    system, questions = "", []
    for row in rows:
        if "labels" in row and row.get("text"):
            questions.append(str(row["text"]))
        turns = row.get("messages") or row.get("prompt") or []
        for turn in turns if isinstance(turns, list) else []:
            if turn.get("role") == "system" and not system:
                system = str(turn.get("content", ""))
            if turn.get("role") == "user":
                questions.append(str(turn.get("content", "")))
                break
    return system, questions
