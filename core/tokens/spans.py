"""Where the assistant's words stand in a rendered conversation.

A chat template says nothing of which characters are whose, so it is asked twice: rendered up to
a turn with the generation prompt, it gives the place where the model starts to write; rendered
with that turn, the place where it is done. Some templates change a turn when more follow (they
strip earlier reasoning, or open a thought in the generation prompt). Then the turn is found by
rendering the conversation again with a marker in its place. A template with generation marks says
itself what the model writes, and is believed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from core.errors import DataError
from core.jobs.process import named
from core.language import _
from core.tokens.chat_templates import names_used
from core.tokens.thoughts import (
    behind_empty_thought,
    behind_thought,
    open_thought,
    own_thought,
    thought_of,
    with_thought,
    with_words,
)
from core.tokens.tool_turns import Message, calls_of, rendered_with_calls, template_text

Span = tuple[int, int]

_MARKER = "TUNESMITHMARKER"
_OPENED_THOUGHT = re.compile(r"<think>\s*(?:</think>\s*)?\Z")
# So many characters before a thought tell its place.
_CONTEXT = 40


@dataclass(frozen=True, slots=True)
class Rendered:
    """A row as one text. `spans` are the (begin, end) characters that carry loss, sorted; None
    means all. `end` asks for the end-of-text token behind the last one. `lost_thoughts` are those
    that the template took out of (earlier turns, the last turn)."""

    text: str
    spans: tuple[Span, ...] | None
    add_special_tokens: bool = False
    end: bool = False
    lost_thoughts: tuple[int, int] = (0, 0)

    def with_loss_everywhere(self) -> Rendered:
        return replace(self, spans=None)


def render_plain(
    messages: list[Message], learned: Sequence[bool], eos: str, thoughts: str = "all"
) -> Rendered:
    """Each turn on lines of its own, answers ended with `eos`: for models without a template.
    `learned` and `thoughts` are as in `ChatRenderer.render`."""
    text = ""
    spans: list[Span] = []
    for index, message in enumerate(messages):
        begin = len(text)
        text += message["content"] + (eos if message["role"] == "assistant" else "")
        if learned[index]:
            if thoughts == "none":
                _refuse_open_thought(message, index)
            thought = thought_of(message)
            thought_end = text.index(thought, begin) + len(thought) if thought else None
            spans.append(_without_thought(text, (begin, len(text)), thought_end, thoughts))
        if index < len(messages) - 1:
            text += "\n"
    return Rendered(text, tuple(spans), add_special_tokens=True)


class ChatRenderer:
    """Renders conversations with one tokenizer's chat template."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._specials = special_texts(tokenizer)
        self._tools: list[Any] | None = None
        self._opening: str | None = None

    def render(
        self,
        messages: list[Message],
        learned: Sequence[bool],
        tools: list[Any] | None = None,
        thoughts: str = "all",
    ) -> Rendered:
        """The conversation as text, with the spans of the assistant turns that are `learned`,
        each with its end-of-turn token and as much of its thought as `thoughts` says (all,
        not_empty, none). Turns and tools are as `tool_turns.for_template` gives them.

        Raises DataError when the template refuses the conversation or hides a turn.
        """
        self._tools = tools
        text = self._apply(messages)
        places = [index for index, flag in enumerate(learned) if flag]
        spans = self._by_generation_marks(text, messages, places)
        if spans is None:
            spans = self._by_turns(text, messages, places)
        stops = zip(spans, places, strict=True)
        spans = [self._with_stop(text, span, messages[index]) for span, index in stops]
        if places and places[-1] == len(messages) - 1:
            text, spans[-1] = self._closed(text, spans[-1], messages[-1])
        ends = self._thought_ends(text, messages)
        if thoughts == "none":
            for index in places:
                _refuse_open_thought(messages[index], index)
                if ends.get(index) == -1:
                    raise _changed(index)
        kept = [
            _without_thought(text, span, ends.get(index), thoughts)
            for index, span in zip(places, spans, strict=True)
        ]
        last = max((i for i, turn in enumerate(messages) if turn["role"] == "assistant"), default=0)
        lost = [index for index, end in ends.items() if end is None]
        return Rendered(
            text, tuple(kept), lost_thoughts=(sum(i < last for i in lost), lost.count(last))
        )

    def _by_turns(self, text: str, messages: list[Message], places: list[int]) -> list[Span]:
        """The span of each turn, looked for by itself."""
        spans: list[Span] = []
        for index in places:
            floor = spans[-1][1] if spans else 0
            span = self._by_prefix(text, messages, index)
            if span is None or span[0] < floor:
                span = self._by_marker(text, messages, index)
            if span is None or span[0] < floor:
                raise _changed(index)
            spans.append(span)
        return spans

    def _thought_ends(self, text: str, messages: list[Message]) -> dict[int, int | None]:
        """For each turn with a thought, where that ends in the text; None where the template took
        it out, -1 where it changed it. It is asked again, with a marker in the place of each."""
        thoughts = {i: found for i, turn in enumerate(messages) if (found := thought_of(turn))}
        if not thoughts:
            return {}
        marker = _free_marker(text)
        marked = self._apply(
            [
                with_thought(turn, f"{marker}{index}Z") if index in thoughts else turn
                for index, turn in enumerate(messages)
            ]
        )
        parts = re.split(f"{marker}([0-9]+)Z", marked)
        ends: dict[int, int | None] = dict.fromkeys(thoughts)
        floor = 0
        for before, number in zip(parts[:-1:2], parts[1::2], strict=True):
            thought = thoughts[int(number)]
            found = before[-_CONTEXT:] + thought
            place = text.find(found, floor)
            end = place + len(found) if place >= 0 else text.find(thought, floor) + len(thought)
            if end < len(thought):
                ends[int(number)] = -1
                continue
            ends[int(number)] = floor = end
        return ends

    def _closed(self, text: str, span: Span, message: Message) -> tuple[str, Span]:
        """A last turn that the template leaves open gets the end-of-text token: without one,
        the model would never learn to stop."""
        eos = self._tokenizer.eos_token
        if not eos or self._is_closed(text, span, message):
            return text, span
        text = text[: span[1]] + eos
        return text, (span[0], len(text))

    def _is_closed(self, text: str, span: Span, message: Message) -> bool:
        """Whether a span ends with a special token that is none of the turn's own words."""
        words_end = None if calls_of(message) else _words_end(text, message, *span)
        return text[words_end or span[0] : span[1]].rstrip().endswith(self._specials)

    def _apply(self, messages: list[Message], *, generation: bool = False) -> str:
        try:
            return rendered_with_calls(
                messages, self._tokenizer, self._tools, add_generation_prompt=generation
            )
        except MemoryError:
            raise
        except Exception as error:  # a template is a program: it raises what it likes
            raise DataError(
                _(
                    "The model's chat template refuses this row: {error}.",
                    error=str(error).rstrip("."),
                ),
                _("Change the row, or choose a chat template that knows its roles."),
            ) from error

    def _by_generation_marks(
        self, text: str, messages: list[Message], places: list[int]
    ) -> list[Span] | None:
        """What the template's own marks say of these turns; None where it has no marks, not one
        stretch with something in it for each assistant turn, or calls of tools are missing in
        them."""
        template = template_text(self._tokenizer, with_tools=self._tools is not None)
        if "generation" not in names_used(template):
            return None
        found = self._generated(messages, template)
        answers = [i for i, turn in enumerate(messages) if turn["role"] == "assistant"]
        if len(found) != len(answers) or not all(text[slice(*one)].strip() for one in found):
            return None
        marked = {i: (int(begin), int(end)) for i, (begin, end) in zip(answers, found, strict=True)}
        if not all(_names_calls(text[slice(*marked[i])], messages[i]) for i in places):
            return None
        return [self._behind_opening(text, *marked[index]) for index in places]

    def _behind_opening(self, text: str, begin: int, end: int) -> Span:
        """A turn behind what opens it, where the template's marks hold that too: the model is given
        it, and would learn to write it again. A thought that is opened with it stays."""
        if self._opening is None:
            asked = [{"role": "user", "content": _MARKER}]
            try:
                before, prompt = (self._apply(asked, generation=flag) for flag in (False, True))
                self._opening = _OPENED_THOUGHT.sub("", prompt.removeprefix(before))
            except DataError:
                self._opening = ""
        if self._opening and text.startswith(self._opening, begin):
            begin += len(self._opening)
        return min(begin, end), end

    def _with_stop(self, text: str, span: Span, message: Message) -> Span:
        """A turn up to the special token that ends it, also where the template's marks leave that
        out: a model that learns the words alone never stops."""
        begin, end = span
        if self._is_closed(text, span, message):
            return span
        place = end
        while place < len(text) and text[place].isspace():
            place += 1
        return begin, self._special_at(text, place) or end

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
        words_end = _words_end(text, messages[index], begin, limit)
        if words_end is None:
            return None
        return begin, self._end_of_turn(text, words_end, limit)

    def _by_marker(self, text: str, messages: list[Message], index: int) -> Span | None:
        """From where the text parts from the one with a marker as this turn to where both meet.
        Where the template keeps the turn's thought, that needs a marker, too."""
        marker = _free_marker(text)
        turns: list[Message] = [{"role": "assistant", "content": marker}]
        if thought_of(messages[index]):
            turns.append(with_words(with_thought(messages[index], marker), marker))
        for turn in turns:
            try:
                marked = self._apply([*messages[:index], turn, *messages[index + 1 :]])
            except DataError:
                continue
            if marker in marked:
                ends = marked.partition(marker)[0], marked.rpartition(marker)[2]
                span = self._between(text, messages, index, *ends)
                if span:
                    return span
        return None

    def _between(
        self, text: str, messages: list[Message], index: int, before: str, after: str
    ) -> Span | None:
        """The place of a turn between what the template writes before and behind it; None where
        something else than the turn stands there."""
        has_calls = bool(calls_of(messages[index]))
        if has_calls and not text.startswith(before):
            before = before.rstrip()  # some set a space before words, but none before a call
        begin, end = len(before), len(text) - len(after)
        if begin >= end or not text.startswith(before) or not text.endswith(after):
            return None
        if has_calls:
            results = _results_behind(messages, index)
            if any(words in text[begin:end] and words not in after for words in results):
                return None  # the template sets what the tools said into the same turn
            if not _names_calls(text[begin:end], messages[index]):
                return None
        elif not _says(text[begin:end].strip(), messages[index]):
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


def _free_marker(text: str) -> str:
    """A word that does not stand in the text."""
    marker = _MARKER
    while marker in text:
        marker += "X"
    return marker


def _changed(index: int) -> DataError:
    return DataError(
        _(
            "The model's chat template changes turn {turn} (assistant), so that its words "
            "cannot be found again and the loss cannot be put on them.",
            turn=index + 1,
        ),
        _("Choose another chat template, or train on single-turn rows."),
    )


def _refuse_open_thought(message: Message, index: int) -> None:
    mark = open_thought(message)
    if mark:
        raise DataError(
            _(
                "Turn {turn} (assistant) begins a thought with {mark} and never closes it, so "
                "that nobody can say where its answer begins.",
                turn=index + 1,
                mark=mark,
            ),
            _("Change the row, or learn thoughts, too (data.learn_thoughts)."),
        )


def _without_thought(text: str, span: Span, thought_end: int | None, thoughts: str) -> Span:
    """What of a turn is learned. `thought_end` is where its thought ends, None where it has none;
    `thoughts` is as in `ChatRenderer.render`."""
    begin, end = span
    if thoughts == "none" and thought_end is not None:
        return min(max(begin, behind_thought(text, thought_end, end)), end), end
    if thoughts != "all":
        return min(behind_empty_thought(text, begin, end), end), end
    return span


def _words_end(text: str, message: Message, begin: int, limit: int) -> int | None:
    """Where the words of a turn end that stand between `begin` and `limit`; None if they do not.

    They follow at once, or behind what the template sets before them. A template may set
    reasoning apart, but it leaves the answer behind it alone.
    """
    words = message["content"].strip()
    if not own_thought(message):
        place = begin
        while place < limit and text[place].isspace():
            place += 1
        if text.startswith(words, place):
            return place + len(words)
    answer = words.rpartition("</think>")[2].strip()
    place = text.rfind(answer, begin, limit) if answer else -1
    return None if place < 0 else place + len(answer)


def _says(part: str, message: Message) -> bool:
    """Whether a rendered turn is the turn's words, or its thought and its words."""
    words, thought = message["content"], thought_of(message)
    if part in words:
        return True
    return bool(thought) and thought in part and part.endswith(words.strip())


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
