"""What of an answer is judged: its text, without the thinking, the part that is looked for, and
numbers as people and models write them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


_PLAIN = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:(?<=\d)\.\d+|\.\d+|(?<=\d))(?:[eE][-+]?\d+)?"
# A sign belongs to the number unless a number or a word ends right before it: 10-5 ends with 5.
_NUMBER = re.compile(
    rf"(?<![A-Za-z0-9_])(?P<sign>[-+−]?)\s?[$€£¥]?(?:(?P<whole>\d+)\s+(?=\d+\s?/\s?\d))?"
    rf"(?P<value>{_PLAIN})(?:\s?/\s?(?P<under>{_PLAIN}))?(?P<percent>\s?%)?",
    re.ASCII,
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]+)\}\s*\{([^{}]+)\}")
# How LaTeX writes signs and spaces that belong to a number.
_LATEX = {r"\%": "%", r"\$": "$", r"\!": "", r"\,": "", r"\ ": " ", "{,}": ","}


@dataclass(frozen=True)
class Number:
    """A value; `percent` when a percent sign follows it (the value is that before the sign)."""

    value: float
    percent: bool = False

    def readings(self) -> tuple[float, ...]:
        """What it may mean: 50% is 0.5, and answers how many percent with 50."""
        return (self.value, self.value / 100) if self.percent else (self.value,)


def numbers_in(text: str) -> list[Number]:
    """The numbers of a text in their order. A comma parts thousands, a point decimals."""
    for written, plain in _LATEX.items():
        text = text.replace(written, plain)
    found = (_number(match) for match in _NUMBER.finditer(_FRACTION.sub(r" \1/\2", text)))
    return [number for number in found if number is not None]


def same_number(given: Number, wanted: Number, tolerance: float) -> bool:
    """Whether they differ by no more than `tolerance` of the wanted one (of 1 where it is 0)."""
    return any(
        abs(one - other) <= tolerance * (abs(other) or 1.0)
        for one in given.readings()
        for other in wanted.readings()
    )


def _number(match: re.Match[str]) -> Number | None:
    value = _value(match["value"])
    if match["under"] is not None:
        under = _value(match["under"])
        if under == 0:
            return None
        value /= under
    value += float(match["whole"] or 0)
    if not math.isfinite(value):
        return None
    return Number(-value if match["sign"] in ("-", "−") else value, match["percent"] is not None)


def _value(text: str) -> float:
    return float(text.replace(",", ""))
