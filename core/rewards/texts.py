"""What of an answer is judged: its text, without the thinking, and the part that is looked for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

Completion = str | Sequence[Mapping[str, Any]]
"""An answer as a trainer has it: a text, or the messages that the model wrote."""

_BLOCK = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)


def text_of(completion: Completion) -> str:
    """The text of an answer; of several messages that of the last one the assistant wrote."""
    if isinstance(completion, str):
        return completion
    written = [one for one in completion if one.get("role", "assistant") == "assistant"]
    if not written:
        return ""
    return _content(written[-1])


def prompt_text(prompt: Completion) -> str:
    """A prompt to read: the text, or its turns with their roles."""
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"{turn.get('role', '')}: {_content(turn)}" for turn in prompt)


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))


def without_thinking(text: str) -> str:
    """What follows the last </think>; nothing when the thinking never ended."""
    before, mark, after = text.rpartition("</think>")
    if mark:
        return after
    return "" if "<think>" in text else text


def after_marker(text: str, marker: str) -> str | None:
    """The rest of the line behind the last marker, or the next line when that is empty; None
    without a marker."""
    _, found, rest = text.rpartition(marker)
    if not found:
        return None
    lines = [line for line in rest.splitlines() if line.strip()]
    return lines[0].strip() if lines else ""


def boxed(text: str) -> str | None:
    r"""What stands in the last \boxed{}, with the braces inside it; None without one."""
    start = text.rfind(r"\boxed{")
    if start < 0:
        return None
    begin = start + len(r"\boxed{")
    depth = 1
    for place in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[begin:place]
    return None


def last_line(text: str) -> str:
    """The last line that is not empty."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def only_block(text: str) -> str:
    """The content of the one block between ``` lines; the whole text where there is not one."""
    blocks = _BLOCK.findall(text)
    return str(blocks[0]) if len(blocks) == 1 else text
