"""Where the assistant's words stand in a rendered conversation.

A chat template says nothing of which characters are whose, so it is asked twice: rendered up to
a turn with the generation prompt, it gives the place where the model starts to write; rendered
with that turn, the place where it is done. Some templates change a turn when more follow (they
strip earlier reasoning, or open a thought in the generation prompt). Then the turn is found by
rendering the conversation again with a marker in its place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from core.errors import DataError

Message = dict[str, Any]
Span = tuple[int, int]

_MARKER = "TUNESMITHMARKER"


@dataclass(frozen=True, slots=True)
class Rendered:
    """A row as one text. `spans` are the (begin, end) characters that carry loss, sorted; None
    means all. `end` asks for the end-of-text token behind the last one."""

    text: str
    spans: tuple[Span, ...] | None
    add_special_tokens: bool = False
    end: bool = False

    def with_loss_everywhere(self) -> Rendered:
        return replace(self, spans=None)


def render_plain(messages: list[Message], learned_from: int, eos: str) -> Rendered:
    """Each turn on lines of its own, answers ended with `eos`: for models without a template."""
    text = ""
    spans: list[Span] = []
    for index, message in enumerate(messages):
        is_answer = message["role"] == "assistant"
        begin = len(text)
        text += message["content"] + (eos if is_answer else "")
        if is_answer and index >= learned_from:
            spans.append((begin, len(text)))
        if index < len(messages) - 1:
            text += "\n"
    return Rendered(text, tuple(spans), add_special_tokens=True)


def render_chat(messages: list[Message], learned_from: int, tokenizer: Any) -> Rendered:
    """The conversation by the tokenizer's template, with the spans of the assistant turns from
    index `learned_from` on, each with its end-of-turn token.

    Raises DataError when the template refuses the conversation or hides a turn.
    """
    text = _apply(tokenizer, messages)
    specials = tuple(tokenizer.all_special_tokens)
    spans: list[Span] = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant" or index < learned_from:
            continue
        span = _span_by_prefix(text, messages, index, tokenizer, specials)
        if span is None or (spans and span[0] < spans[-1][1]):
            span = _span_by_marker(text, messages, index, tokenizer, specials)
        if span is None or (spans and span[0] < spans[-1][1]):
            raise DataError(
                f"The model's chat template changes turn {index + 1} (assistant), so that its "
                "words cannot be found again and the loss cannot be put on them.",
                "Choose a model with another chat template, or train on single-turn rows.",
            )
        spans.append(span)
    return Rendered(text, tuple(spans))


def _apply(tokenizer: Any, messages: list[Message], *, generation: bool = False) -> str:
    try:
        return str(
            tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=generation
            )
        )
    except Exception as error:  # a template is a program: it raises what it likes
        raise DataError(
            f"The model's chat template refuses this row: {error}.".replace("..", "."),
            "Change the row, or choose a model whose template knows its roles.",
        ) from error


def _span_by_prefix(
    text: str, messages: list[Message], index: int, tokenizer: Any, specials: tuple[str, ...]
) -> Span | None:
    try:
        before = _apply(tokenizer, messages[:index], generation=True)
        is_last = index == len(messages) - 1
        through = text if is_last else _apply(tokenizer, messages[: index + 1])
    except DataError:
        return None
    if not text.startswith(before) or not text.startswith(through) or len(through) < len(before):
        return None
    words = messages[index]["content"].strip()
    if words not in text[len(before) : len(through)]:
        return None
    return len(before), _without_gap(text, len(before), len(through), specials)


def _span_by_marker(
    text: str, messages: list[Message], index: int, tokenizer: Any, specials: tuple[str, ...]
) -> Span | None:
    marked = [*messages]
    marked[index] = {**messages[index], "content": _MARKER}
    try:
        before, found, after = _apply(tokenizer, marked).partition(_MARKER)
    except DataError:
        return None
    begin, end = len(before), len(text) - len(after)
    if not found or not text.startswith(before) or not text.endswith(after) or begin >= end:
        return None
    if text[begin:end].strip() not in messages[index]["content"]:
        return None
    mark = next((token for token in specials if after.startswith(token)), "")
    return begin, end + len(mark)


def _without_gap(text: str, begin: int, end: int, specials: tuple[str, ...]) -> int:
    """`end`, moved before the white space between the end-of-turn token and the next turn."""
    stripped = text[begin:end].rstrip()
    return begin + len(stripped) if stripped.endswith(specials) else end
