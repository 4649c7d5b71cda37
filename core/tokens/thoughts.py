"""Thoughts before an answer: in a field of their own or in its words, and where they stand in a
rendered turn.

A row keeps a thought as `reasoning_content` of its turn. A template that knows a field for it gets
it there, under the name that it knows; for any other it is set before the answer's words in
`<think>`. A thought that stands in the words already ends at `</think>`.
"""

from __future__ import annotations

import re
from typing import Any

from core.tokens.chat_templates import THOUGHT_KEYS, thought_key

Message = dict[str, Any]

_CLOSE = "</think>"
_IN_WORDS = re.compile(r"\A(\s*(?:<think>)?\s*)(.*?)(\s*</think>\s*)", re.DOTALL)
# What a template writes behind a thought: one mark, such as </think> or <|end|>.
_BEHIND = re.compile(r"\s*(?:<[^<>\s]{1,40}>|\[/[A-Z_]{2,20}\])?\s*")
_EMPTY = re.compile(
    r"<(\|?)(think|thinking|thought|reasoning|seed:think)(\|?)>\s*</\2>\s*"
    r"|\[THINK\]\s*\[/THINK\]\s*|<\|channel>thought\s*<channel\|>\s*"
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
    found = _IN_WORDS.match(words)
    if not thought:
        if not key or not found or not found[2] or _CLOSE in template:
            return rest
        # It would be written as words of the answer.
        return {**rest, "content": words[found.end() :], key: found[2]}
    if key:
        return {**rest, key: thought}
    if found and found[2] == thought:
        return rest
    return {**rest, "content": f"<think>\n{thought}\n{_CLOSE}\n\n{words}"}


def thought_of(message: Message) -> str:
    """The thought of a turn as it is given to a template; "" where it has none."""
    if message["role"] != "assistant":
        return ""
    found = _IN_WORDS.match(str(message.get("content") or ""))
    return own_thought(message) or (found[2] if found else "")


def own_thought(message: Message) -> str:
    """The thought in a field of its own; "" where there is none."""
    return next((str(message[key]) for key in THOUGHT_KEYS if message.get(key)), "")


def with_thought(message: Message, thought: str) -> Message:
    """The turn with another thought in the place of its own."""
    for key in THOUGHT_KEYS:
        if message.get(key):
            return {**message, key: thought}
    words = str(message["content"])
    found = _IN_WORDS.match(words)
    assert found, "only of a turn that has a thought"
    return {**message, "content": f"{found[1]}{thought}{found[3]}{words[found.end():]}"}


def with_words(message: Message, words: str) -> Message:
    """The turn with other words behind its thought, and without calls of tools."""
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    found = None if own_thought(message) else _IN_WORDS.match(rest["content"])
    return {**rest, "content": (found[0] if found else "") + words}


def behind_thought(text: str, thought_end: int, limit: int) -> int:
    """Where the turn goes on behind a thought that ends at `thought_end`, and its closing mark."""
    found = _BEHIND.match(text, thought_end, limit)
    return found.end() if found else thought_end


def behind_empty_thought(text: str, begin: int, limit: int) -> int:
    """Where a turn that begins at `begin` goes on behind an empty thought; `begin` without one."""
    for found in _EMPTY.finditer(text, max(begin - _LONGEST_OPENING, 0), limit):
        if found.end() > begin:
            before = text[begin : found.start()]
            return found.end() if not re.sub(r"<[^<>\s]{1,40}>|\s", "", before) else begin
    return begin


def taken_out(earlier: int, last: int) -> str:
    """How many thoughts a template takes out, in a sentence; "" for none."""
    parts = []
    if earlier:
        parts.append(f"{_thoughts(earlier)} of earlier turns")
    if last:
        parts.append(f"{_thoughts(last)} of last turns")
    if not parts:
        return ""
    verb = "is" if earlier + last == 1 else "are"
    return f"{' and '.join(parts)} {verb} taken out by this template."


def _thoughts(count: int) -> str:
    return "1 thought" if count == 1 else f"{count:,} thoughts"
