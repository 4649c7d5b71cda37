"""Rows as the model sees them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from core.data.record import DatasetInfo
from core.data.rowfile import rows_at
from core.data.rowtext import texts
from core.errors import DataError
from core.language import _
from core.tokens.chat_templates import left_out_stop, names_used, split_marks, thought_key
from core.tokens.lens import Lens
from core.tokens.sides import Side, label_of, sides_of_rows
from core.tokens.spans import special_texts
from core.tokens.thoughts import open_thought, taken_out
from core.tokens.tokenize import TokenizedRow, pieces
from core.tokens.tool_turns import template_text

CUT_TOKENS = 200
"""So many tokens behind the cut are shown."""

_MOST_NAMED = 5


def preview_rows(
    info: DatasetInfo, part: str, indices: Sequence[int], tokenizer: Any, lens: Lens
) -> list[dict[str, Any]]:
    """For each index of a part ("train", "eval", "test"), what the model sees of that row.

    tokens: [[text, id, carries loss, is special], ...] up to the cut; cut_tokens: up to 200
    behind it; length and full_length: tokens up to the cut and in all; loss_tokens; error: why
    the row cannot be learned from, or None. These are of the first side; `sides` has one dict of
    the same with a `title` for each text that the model gets: two for a preference. label: the
    judgement or labels in words, answer: the reference answer of a prompt, or None. notes: what
    else a person should know of how the row is rendered.
    """
    split = split_marks(template_text(tokenizer), tokenizer)
    found = rows_at(info.rows_path(part), indices)
    shown = []
    for index in indices:
        row = found.get(index)
        if row is None:
            missing = DataError(
                _("There is no row {row} in the {part} part.", row=index, part=part)
            )
            shown.append(_seen({}, [Side("", missing)], tokenizer, lens.max_length))
            continue
        sides = sides_of_rows(
            [row],
            tokenizer,
            max_length=None,
            learn=lens.learning,
            system_prompt=lens.system_prompt,
        )[0]
        seen = _seen(row, sides, tokenizer, lens.max_length)
        seen["notes"] = [
            *_notes(row, tokenizer, split),
            *_notes_on_loss(row, lens),
            *_notes_on_thoughts(row, sides, tokenizer),
        ]
        shown.append(seen)
    return shown


def _seen(
    row: dict[str, Any], sides: list[Side], tokenizer: Any, max_length: int | None
) -> dict[str, Any]:
    """A row as the page shows it. `sides` hold all tokens, so that those behind the cut show."""
    drawn = [_drawn(side, tokenizer, max_length) for side in sides]
    errors = [
        _("{side}: {problem}", side=side["title"], problem=side["error"])
        if len(drawn) > 1
        else side["error"]
        for side in drawn
        if side["error"]
    ]
    return {
        **drawn[0],
        "error": " ".join(errors) or None,
        "sides": drawn,
        "label": label_of(row),
        "answer": row.get("answer"),
        "notes": [],
    }


def _drawn(side: Side, tokenizer: Any, max_length: int | None) -> dict[str, Any]:
    if isinstance(side.tokens, DataError):
        empty = {"tokens": [], "cut_tokens": [], "length": 0, "full_length": 0, "loss_tokens": 0}
        return {"title": side.title, **empty, "error": side.problem()}
    cut = side.tokens.cut(max_length)
    shown = side.tokens.cut(None if max_length is None else max_length + CUT_TOKENS)
    found = [list(piece) for piece in pieces(shown, tokenizer)]
    return {
        "title": side.title,
        "tokens": found[: cut.length],
        "cut_tokens": found[cut.length :],
        "length": cut.length,
        "full_length": cut.full_length,
        "loss_tokens": cut.loss_tokens,
        "error": Side(side.title, cut, side.learns).problem(),
    }


def _notes(row: dict[str, Any], tokenizer: Any, split: list[str]) -> Iterator[str]:
    """What the tokens alone do not say."""
    if "text" not in row:
        if not tokenizer.chat_template:
            yield _("The model has no chat template: each turn stands on lines of its own.")
        elif split:
            more = ["..."] if len(split) > _MOST_NAMED else []
            yield _(
                "The chat template has marks that the model does not know: {marks}. Choose a "
                "template whose marks it knows.",
                marks=", ".join([*split[:_MOST_NAMED], *more]),
            )
        stop = left_out_stop(template_text(tokenizer, with_tools=bool(row.get("tools"))))
        if stop:
            yield _(
                "The generation marks of the chat template leave out {stop}, which ends an "
                "answer. It is learned nevertheless.",
                stop=stop,
            )
        yield from _notes_on_tools(row, tokenizer)
    marks = [mark for mark in special_texts(tokenizer) if any(mark in text for text in texts(row))]
    if marks:
        named = ", ".join(marks[:_MOST_NAMED])
        yield _("The row's own words contain {mark}, which the model reads as a mark.", mark=named)


def _turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    columns = [value for value in row.values() if isinstance(value, list)]
    return [turn for value in columns for turn in value if isinstance(turn, dict)]


def _notes_on_loss(row: dict[str, Any], lens: Lens) -> Iterator[str]:
    """What becomes of the turns' own loss weights."""
    weighted = [turn for turn in _turns(row) if "weight" in turn]
    parts = sorted({w for turn in weighted if 0 < (w := turn["weight"]) != 1})
    if parts:
        named = ", ".join(f"{weight:g}" for weight in parts[:_MOST_NAMED])
        yield _(
            "The loss weight {weight} of a turn counts as 1: it is learned in full.", weight=named
        )
    asked = [turn for turn in weighted if turn["role"] != "assistant" and turn["weight"] > 0]
    if asked and not lens.learning.everything:
        yield _(
            "A turn of the {role} is marked to be learned. Only answers can be, or everything: "
            "it is read.",
            role=asked[0]["role"],
        )


def _notes_on_thoughts(row: dict[str, Any], sides: list[Side], tokenizer: Any) -> Iterator[str]:
    template = template_text(tokenizer, with_tools=bool(row.get("tools")))
    own = any(turn.get("reasoning_content") for turn in _turns(row))
    if own and not thought_key(template):
        yield _(
            "The chat template knows no thoughts: they stand in <think> before the words of the "
            "answer."
        )
    unclosed = next((mark for turn in _turns(row) if (mark := open_thought(turn))), "")
    if unclosed:
        yield _(
            "A thought begins with {mark} and is never closed: all that follows is taken for the "
            "answer.",
            mark=unclosed,
        )
    tokens = [side.tokens for side in sides if isinstance(side.tokens, TokenizedRow)]
    lost = taken_out(*next((one.lost_thoughts for one in tokens if any(one.lost_thoughts)), (0, 0)))
    if lost:
        yield _("{lost} Nothing of them is learned.", lost=lost)


def _notes_on_tools(row: dict[str, Any], tokenizer: Any) -> Iterator[str]:
    used = names_used(template_text(tokenizer, with_tools=bool(row.get("tools"))))
    if row.get("tools") and "tools" not in used:
        yield _("The chat template knows no tools: they stand as text in the system turn.")
    calls = any(turn.get("tool_calls") for turn in _turns(row))
    if calls and "tool_calls" not in used:
        yield _("The chat template knows no calls of tools: they stand as text in the answers.")
