"""Numbers as people and models write them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

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
