"""Where the assistant's words stand in a rendered conversation.

A chat template says nothing of which characters are whose, so it is asked twice: rendered up to
a turn with the generation prompt, it gives the place where the model starts to write; rendered
with that turn, the place where it is done. Some templates change a turn when more follow (they
strip earlier reasoning, or open a thought in the generation prompt). Then the turn is found by
rendering the conversation again with a marker in its place. A template with generation marks says
itself what the model writes, and is believed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from core.errors import DataError
from core.jobs.process import named
from core.tokens.chat_templates import names_used
from core.tokens.tool_turns import Message, calls_of, rendered_with_calls, template_text

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
        self._specials = special_texts(tokenizer)
        self._tools: list[Any] | None = None

    def render(
        self, messages: list[Message], learned_from: int, tools: list[Any] | None = None
    ) -> Rendered:
        """The conversation as text, with the spans of the assistant turns from index
        `learned_from` on, each with its end-of-turn token. Turns and tools are as
        `tool_turns.for_template` gives them.

        Raises DataError when the template refuses the conversation or hides a turn.
        """
        self._tools = tools
        text = self._apply(messages)
        places = [
            index
            for index, message in enumerate(messages)
            if message["role"] == "assistant" and index >= learned_from
        ]
        marked = self._by_generation_marks(messages, len(places))
        if marked is not None:
            return Rendered(text, marked)
        spans: list[Span] = []
        for index in places:
            floor = spans[-1][1] if spans else 0
            span = self._by_prefix(text, messages, index)
            if span is None or span[0] < floor:
                span = self._by_marker(text, messages, index)
            if span is None or span[0] < floor:
                raise DataError(
                    f"The model's chat template changes turn {index + 1} (assistant), so that "
                    "its words cannot be found again and the loss cannot be put on them.",
                    "Choose another chat template, or train on single-turn rows.",
                )
            spans.append(span)
        if spans and messages[-1]["role"] == "assistant":
            text, spans[-1] = self._closed(text, spans[-1], messages[-1])
        return Rendered(text, tuple(spans))

    def _closed(self, text: str, span: Span, message: Message) -> tuple[str, Span]:
        """A last turn that the template leaves open gets the end-of-text token: without one,
        the model would never learn to stop."""
        eos = self._tokenizer.eos_token
        words_end = None
        if not calls_of(message):
            words_end = _words_end(text, message["content"], *span)
        rest = text[words_end or span[0] : span[1]].rstrip()
        if not eos or rest.endswith(self._specials):
            return text, span
        text = text[: span[1]] + eos
        return text, (span[0], len(text))

    def _apply(self, messages: list[Message], *, generation: bool = False) -> str:
        try:
            return rendered_with_calls(
                messages, self._tokenizer, self._tools, add_generation_prompt=generation
            )
        except Exception as error:  # a template is a program: it raises what it likes
            raise DataError(
                f"The model's chat template refuses this row: {str(error).rstrip('.')}.",
                "Change the row, or choose a chat template that knows its roles.",
            ) from error

    def _by_generation_marks(self, messages: list[Message], wanted: int) -> tuple[Span, ...] | None:
        """What the template's own marks say of the last `wanted` assistant turns; None where it
        has no marks, or not one stretch for each assistant turn."""
        template = template_text(self._tokenizer, with_tools=self._tools is not None)
        if "generation" not in names_used(template):
            return None
        found = self._generated(messages, template)
        spans: list[Span] = [(int(begin), int(end)) for begin, end in found]
        if len(spans) != sum(message["role"] == "assistant" for message in messages):
            return None
        return tuple(spans[len(spans) - wanted :])

    def _generated(self, messages: list[Message], template: str) -> list[tuple[int, int]]:
        marked = named("core.worker.generation_marks:generated")
        try:
            return list(marked(messages, self._tools, template, self._tokenizer))
        except TypeError:  # it wants the arguments of calls as text: its turns are looked for
            return []

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
        begin, limit = len(before), len(through)
        if calls_of(messages[index]):
            if not _names_calls(text[begin:limit], messages[index]):
                return None
            closed = len(text[:limit].rstrip())
            return begin, closed if text[begin:closed].endswith(self._specials) else limit
        words_end = _words_end(text, messages[index]["content"], begin, limit)
        if words_end is None:
            return None
        return begin, self._end_of_turn(text, words_end, limit)

    def _by_marker(self, text: str, messages: list[Message], index: int) -> Span | None:
        """From where the text parts from the one with a marker as this turn to where both meet."""
        marker = _MARKER
        while marker in text:
            marker += "X"
        marked = [*messages]
        marked[index] = {"role": "assistant", "content": marker}
        try:
            before, found, after = self._apply(marked).partition(marker)
        except DataError:
            return None
        has_calls = bool(calls_of(messages[index]))
        if has_calls and not text.startswith(before):
            before = before.rstrip()  # some set a space before words, but none before a call
        begin, end = len(before), len(text) - len(after)
        if not found or begin >= end or not text.startswith(before) or not text.endswith(after):
            return None
        if has_calls:
            results = _results_behind(messages, index)
            if any(words in text[begin:end] and words not in after for words in results):
                return None  # the template sets what the tools said into the same turn
            if not _names_calls(text[begin:end], messages[index]):
                return None
        elif text[begin:end].strip() not in messages[index]["content"]:
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


def special_texts(tokenizer: Any) -> tuple[str, ...]:
    """The texts of a tokenizer's special tokens, the longest first: one may begin like another."""
    added = tokenizer.added_tokens_decoder.values()
    specials = {*tokenizer.all_special_tokens, *(str(t) for t in added if t.special)}
    return tuple(sorted(specials - {""}, key=len, reverse=True))


def _words_end(text: str, content: str, begin: int, limit: int) -> int | None:
    """Where the words of a turn end that stand between `begin` and `limit`; None if they do not.

    They follow at once, or behind what the template sets before them. A template may set earlier
    reasoning apart, but it leaves the answer behind it alone.
    """
    words = content.strip()
    place = begin
    while place < limit and text[place].isspace():
        place += 1
    if text.startswith(words, place):
        return place + len(words)
    answer = words.rpartition("</think>")[2].strip()
    place = text.rfind(answer, begin, limit)
    return None if place < 0 else place + len(answer)


def _names_calls(part: str, message: Message) -> bool:
    """Whether a rendered turn has the names of the tools that it calls."""
    return all(str(call["function"]["name"]) in part for call in calls_of(message))


def _results_behind(messages: list[Message], index: int) -> list[str]:
    """What the tools said that turn `index` called."""
    found = []
    for message in messages[index + 1 :]:
        if message["role"] != "tool":
            break
        found.append(str(message["content"]))
    return found
