"""Thoughts before an answer: in a field of their own or in its words, and where they stand in a
rendered turn.

A row keeps a thought as `reasoning_content` of its turn. A template that knows a field for it gets
it there, under the name that it knows; for any other it is set before the answer's words in
`<think>`. A thought that stands in the words already ends at `</think>`, or at the end of another
mark that is in use, such as `<reasoning>`. Those marks stay as they are: they may be what a model
is to write.
"""

from __future__ import annotations

import re
from typing import Any

from core.data.turn_keys import OPENED_THOUGHT, THOUGHT_TAGS
from core.language import _, n_
from core.tokens.chat_templates import THOUGHT_KEYS, thought_key

Message = dict[str, Any]

_CLOSE = "</think>"
_PAIRS = (
    (rf"<(?P<tag>{THOUGHT_TAGS})>", "</(?P=tag)>"),
    (r"\[THINK\]", r"\[/THINK\]"),
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),
    ("", _CLOSE),
)
_IN_WORDS = tuple(
    re.compile(
        rf"\A(?P<open>\s*{opening}\s*)(?P<thought>.*?)(?P<close>\s*{closing}\s*)",
        re.DOTALL | re.IGNORECASE,
    )
    for opening, closing in _PAIRS
)
# What a template writes behind a thought: one mark, such as </think> or <|end|>.
_BEHIND = re.compile(r"\s*(?:<[^<>\s]{1,40}>|\[/[A-Z_]{2,20}\])?\s*")
_EMPTY = re.compile(
    rf"<(\|?)({THOUGHT_TAGS})(\|?)>\s*</\2>\s*|\[THINK\]\s*\[/THINK\]\s*"
    r"|<\|begin_of_thought\|>\s*<\|end_of_thought\|>\s*|<\|channel>thought\s*<channel\|>\s*",
    re.IGNORECASE,
)
# An empty thought may begin in what the template writes before a turn's words.
_LONGEST_OPENING = 40


def thought_for(message: Message, template: str) -> Message:
    """The turn with its thought where the template expects it. The turn given stays as it is."""
    if message["role"] != "assistant":
        return {key: value for key, value in message.items() if key != "reasoning_content"}
    rest = dict(message)
    thought = str(rest.pop("reasoning_content", None) or "").strip()
    key = thought_key(template)
    words = str(rest.get("content") or "")
    found = _in_words(words)
    if not thought:
        if not key or not found or not found["thought"] or _CLOSE in template:
            return rest
        if found["close"].strip() != _CLOSE:
            return rest
        # It would be written as words of the answer.
        return {**rest, "content": words[found.end() :], key: found["thought"]}
    if key:
        return {**rest, key: thought}
    if found and found["thought"] == thought:
        return rest
    return {**rest, "content": f"<think>\n{thought}\n{_CLOSE}\n\n{words}"}


def _in_words(words: str) -> re.Match[str] | None:
    """The thought that an answer's words begin with, between its marks."""
    if _CLOSE not in words and not words.lstrip().startswith(("<", "[")):
        return None
    return next((found for mark in _IN_WORDS if (found := mark.match(words))), None)


def open_thought(message: Message) -> str:
    """The mark with which an answer's words begin a thought that they never close; "" for none."""
    words = str(message.get("content") or "")
    if message["role"] != "assistant" or _in_words(words):
        return ""
    found = OPENED_THOUGHT.match(words)
    return found[1] if found else ""


def thought_of(message: Message) -> str:
    """The thought of a turn as it is given to a template; "" where it has none."""
    if message["role"] != "assistant":
        return ""
    found = _in_words(str(message.get("content") or ""))
    return own_thought(message) or (found["thought"] if found else "")


def own_thought(message: Message) -> str:
    """The thought in a field of its own; "" where there is none."""
    return next((str(message[key]) for key in THOUGHT_KEYS if message.get(key)), "")


def with_thought(message: Message, thought: str) -> Message:
    """The turn with another thought in the place of its own."""
    for key in THOUGHT_KEYS:
        if message.get(key):
            return {**message, key: thought}
    words = str(message["content"])
    found = _in_words(words)
    assert found, "only of a turn that has a thought"
    said = f"{found['open']}{thought}{found['close']}{words[found.end() :]}"
    return {**message, "content": said}


def with_words(message: Message, words: str) -> Message:
    """The turn with other words behind its thought, and without calls of tools."""
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    found = None if own_thought(message) else _in_words(rest["content"])
    return {**rest, "content": (found[0] if found else "") + words}


def behind_thought(text: str, thought_end: int, limit: int) -> int:
    """Where the turn goes on behind a thought that ends at `thought_end`, and its closing mark."""
    found = _BEHIND.match(text, thought_end, limit)
    return found.end() if found else thought_end


def behind_empty_thought(text: str, begin: int, limit: int) -> int:
    """Where a turn that begins at `begin` goes on behind empty thoughts, the template's and its
    own; `begin` without any."""
    for found in _EMPTY.finditer(text, max(begin - _LONGEST_OPENING, 0), limit):
        if found.end() > begin:
            if re.sub(r"<[^<>\s]{1,40}>|\s", "", text[begin : found.start()]):
                break
            begin = found.end()
    return begin


def taken_out(earlier: int, last: int) -> str:
    """How many thoughts a template takes out, in a sentence; "" for none."""
    if earlier and last:
        before = n_("{n:,} thought of earlier turns", "{n:,} thoughts of earlier turns", earlier)
        of_last = n_("{n:,} thought of last turns", "{n:,} thoughts of last turns", last)
        return _(
            "{earlier} and {last} are taken out by this template.", earlier=before, last=of_last
        )
    if earlier:
        return n_(
            "{n:,} thought of earlier turns is taken out by this template.",
            "{n:,} thoughts of earlier turns are taken out by this template.",
            earlier,
        )
    if last:
        return n_(
            "{n:,} thought of last turns is taken out by this template.",
            "{n:,} thoughts of last turns are taken out by this template.",
            last,
        )
    return ""
