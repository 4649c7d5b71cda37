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


class ChatRenderer:
    """Renders conversations with one tokenizer's chat template."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.values()
        specials = {*tokenizer.all_special_tokens, *(str(t) for t in added if t.special)}
        # Longest first: one special token may begin like another.
        self._specials = tuple(sorted(specials - {""}, key=len, reverse=True))

    def render(self, messages: list[Message], learned_from: int) -> Rendered:
        """The conversation as text, with the spans of the assistant turns from index
        `learned_from` on, each with its end-of-turn token.

        Raises DataError when the template refuses the conversation or hides a turn.
        """
        text = self._apply(messages)
        spans: list[Span] = []
        for index, message in enumerate(messages):
            if message["role"] != "assistant" or index < learned_from:
                continue
            floor = spans[-1][1] if spans else 0
            span = self._by_prefix(text, messages, index)
            if span is None or span[0] < floor:
                span = self._by_marker(text, messages, index)
            if span is None or span[0] < floor:
                raise DataError(
                    f"The model's chat template changes turn {index + 1} (assistant), so that "
                    "its words cannot be found again and the loss cannot be put on them.",
                    "Choose a model with another chat template, or train on single-turn rows.",
                )
            spans.append(span)
        if spans and messages[-1]["role"] == "assistant":
            text, spans[-1] = self._closed(text, spans[-1])
        return Rendered(text, tuple(spans))

    def _closed(self, text: str, span: Span) -> tuple[str, Span]:
        """A last turn that the template leaves open gets the end-of-text token: without one,
        the model would never learn to stop."""
        eos = self._tokenizer.eos_token
        if not eos or text[: span[1]].rstrip().endswith(self._specials):
            return text, span
        text = text[: span[1]] + eos
        return text, (span[0], len(text))

    def _apply(self, messages: list[Message], *, generation: bool = False) -> str:
        try:
            rendered = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=generation
            )
        except Exception as error:  # a template is a program: it raises what it likes
            raise DataError(
                f"The model's chat template refuses this row: {str(error).rstrip('.')}.",
                "Change the row, or choose a model whose template knows its roles.",
            ) from error
        return str(rendered)

    def _by_prefix(self, text: str, messages: list[Message], index: int) -> Span | None:
        """From the generation prompt before the turn to what the turn adds, if both are part of
        the whole text."""
        is_last = index == len(messages) - 1
        try:
            before = self._apply(messages[:index], generation=True)
            through = text if is_last else self._apply(messages[: index + 1])
        except DataError:
            return None
        if not text.startswith(before) or not text.startswith(through):
            return None
        # A template may set earlier reasoning apart, but it leaves the answer behind it alone.
        answer = messages[index]["content"].rpartition("</think>")[2].strip()
        place = text.rfind(answer, len(before), len(through))
        if place < 0:
            return None
        return len(before), self._end_of_turn(text, place + len(answer), len(through))

    def _by_marker(self, text: str, messages: list[Message], index: int) -> Span | None:
        """From where the text parts from the one with a marker as this turn to where both meet."""
        marked = [*messages]
        marked[index] = {**messages[index], "content": _MARKER}
        try:
            before, found, after = self._apply(marked).partition(_MARKER)
        except DataError:
            return None
        begin, end = len(before), len(text) - len(after)
        if not found or begin >= end or not text.startswith(before) or not text.endswith(after):
            return None
        if text[begin:end].strip() not in messages[index]["content"]:
            return None
        # A turn further on may begin with a special token of its own: only the next one counts.
        return begin, self._end_of_turn(text, end, end)

    def _end_of_turn(self, text: str, words_end: int, turn_end: int) -> int:
        """The end of the special tokens that close the turn, behind white space at most; where
        there are none, `turn_end`."""
        place = words_end
        while place < turn_end and text[place].isspace():
            place += 1
        closed = self._special_at(text, place)
        if not closed:
            return turn_end
        while closed < turn_end and self._special_at(text, closed):
            closed = self._special_at(text, closed)
        return closed

    def _special_at(self, text: str, place: int) -> int:
        """The end of the special token that begins at `place`, or 0."""
        if not text.startswith(self._specials, place):  # fast, for some have thousands
            return 0
        return place + next(len(t) for t in self._specials if text.startswith(t, place))
