"""Rows of every standard form as the model gets them: what supervised fine-tuning learns from,
both answers of a preference, a prompt alone, a text with its labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import DataError, TunesmithError
from core.language import N_, _
from core.tokens.learn import Learn
from core.tokens.prompts import prompt_text
from core.tokens.spans import ChatRenderer, Rendered
from core.tokens.tokenize import (
    TokenizedRow,
    encode_batches,
    form_of,
    no_loss_reason,
    render_row,
    with_system_prompt,
)

_DEFAULT = Learn()
_BOTH = ((N_("Chosen"), "chosen"), (N_("Rejected"), "rejected"))


@dataclass(frozen=True)
class Side:
    """One text that the model gets of a row, or why it cannot be made.

    `learns`: whether something of it must carry loss, or the row teaches nothing.
    """

    title: str
    tokens: TokenizedRow | DataError
    learns: bool = True

    def problem(self) -> str | None:
        """Why nothing can be learned from it; None when it can, or need not."""
        if isinstance(self.tokens, DataError):
            return str(self.tokens)
        if self.learns and not self.tokens.has_loss:
            return no_loss_reason(self.tokens)
        return None


def sides_of_rows(
    rows: Sequence[dict[str, Any]],
    tokenizer: Any,
    *,
    max_length: int | None,
    learn: Learn = _DEFAULT,
    system_prompt: str = "",
    progress: Callable[[float], None] | None = None,
) -> list[list[Side]]:
    """The sides of each row, in order: two for a preference, one for every other form.

    A judged answer (preference, unpaired-preference) carries loss on all of the answer and nothing
    else, whatever `learn` says. A prompt ends where the model is to write on. Prompts and labelled
    texts carry no loss.
    """
    marks: list[list[tuple[str, bool]]] = []  # of the sides of each row: (title, learns)

    def draw(row: dict[str, Any], chat: ChatRenderer | None) -> list[Rendered | DataError]:
        sides = _drawn(row, tokenizer, chat, learn, system_prompt)
        marks.append([(title, learns) for title, _item, learns in sides])
        return [item for _title, item, _learns in sides]

    found: list[list[Side]] = []
    for tokens in encode_batches(rows, tokenizer, draw, max_length=max_length, progress=progress):
        sides = zip(tokens, marks[len(found)], strict=True)
        found.append([Side(title, one, learns) for one, (title, learns) in sides])
    return found


def label_of(row: dict[str, Any]) -> str | None:
    """The judgement or the labels that a row carries, in words; None for other forms."""
    if "labels" in row:
        return ", ".join(row["labels"])
    if "label" in row and "completion" in row:
        return _("desirable") if row["label"] else _("undesirable")
    return None


def _drawn(
    row: dict[str, Any],
    tokenizer: Any,
    chat: ChatRenderer | None,
    learn: Learn,
    system_prompt: str,
) -> list[tuple[str, Rendered | DataError, bool]]:
    """(title, text, whether it must carry loss) of each side."""

    def judged(column: str) -> Rendered | DataError:
        pair = {"prompt": row["prompt"], "completion": row[column], "tools": row.get("tools")}
        return _tried(lambda: render_row(pair, tokenizer, chat, system_prompt))

    try:
        form = form_of(row)
    except DataError as error:
        return [("", error, True)]
    if form == "preference":
        return [(_(title), judged(column), True) for title, column in _BOTH]
    if form == "unpaired-preference":
        return [(_("Answer"), judged("completion"), True)]
    if form == "labelled-text":
        return [(_("Text"), Rendered(row["text"], (), add_special_tokens=True), False)]
    if form == "prompt-only":
        return [(_("Prompt"), _tried(lambda: _prompt(row, tokenizer, system_prompt)), False)]
    item = _tried(lambda: render_row(row, tokenizer, chat, system_prompt, learn))
    return [(_("Text") if form == "text" else _("Conversation"), item, True)]


def _tried(render: Callable[[], Rendered]) -> Rendered | DataError:
    try:
        return render()
    except DataError as error:
        return error
    except TunesmithError as error:
        return DataError(error.message, error.hint)


def _prompt(row: dict[str, Any], tokenizer: Any, system_prompt: str) -> Rendered:
    turns = with_system_prompt(list(row["prompt"]), system_prompt)
    text, special = prompt_text(turns, tokenizer, tools=row.get("tools"))
    return Rendered(text, (), add_special_tokens=special)
