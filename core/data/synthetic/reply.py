"""A model's reply to rows: robust against what stands around them, strict about what they say."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from core.data.read.row import Row
from core.data.synthetic.asking import Ask
from core.data.synthetic.draft_rows import checked_row, required_columns
from core.errors import DataError

CUT = "the reply was cut at its longest length"
NO_JSON = "the reply holds no JSON rows"
EMPTY = "the reply is empty"

_THOUGHT = re.compile(r"\s*<think(?:ing)?>.*?(</think(?:ing)?>|\Z)", re.DOTALL)
_NUMBERED = re.compile(r"\b\d+\b")
_MOST_CHARS = 2_000_000
# Each failed attempt reads from its brace to where it fails: a reply of braces alone ends here.
_MOST_ATTEMPTS = 2000
_DECODER = json.JSONDecoder()


@dataclass
class Reading:
    """The rows of a reply, and how many things in it were no rows, by their reason."""

    rows: list[Row] = field(default_factory=list)
    problems: Counter[str] = field(default_factory=Counter)


def read_reply(text: str, ask: Ask, form: str, labels: Sequence[str], *, cut: bool) -> Reading:
    """What a reply gives. `form` is that of the drafts; `cut` says that it ended at its longest
    length. Never raises for what a model wrote."""
    said = without_thoughts(text[:_MOST_CHARS])
    if not said.strip():
        return Reading(problems=Counter([CUT if cut else EMPTY]))
    if ask.expects == "rows":
        return _rows(said, form, labels, cut)
    reading = Reading()
    try:
        if ask.expects == "judged":
            reading.rows.append(_judged(said, ask, cut))
        elif cut and ask.expects == "answer":
            reading.problems[CUT] += 1  # half an answer teaches to stop in the middle
        else:
            reading.rows.append(_answered(said.strip(), ask, form))
    except DataError as error:
        reading.problems[_kind(error)] += 1
    return reading


def without_thoughts(text: str) -> str:
    """The reply of a reasoning model without its thoughts; they may be all there is of it."""
    return _THOUGHT.sub("", text, count=1) if _THOUGHT.match(text) else text


def json_values(text: str) -> tuple[list[Any], bool]:
    """(every outermost JSON array and object in a text, whether one of them was not whole).

    Where an array is cut, the objects in it that are whole are found on their own.
    """
    found: list[Any] = []
    broken = False
    place = attempts = 0
    while attempts < _MOST_ATTEMPTS:
        next_one = re.compile(r"[\[{]").search(text, place)
        if next_one is None:
            break
        try:
            value, place = _DECODER.raw_decode(text, next_one.start())
            found.append(value)
        except (ValueError, RecursionError):
            broken = True
            attempts += 1
            place = next_one.start() + 1
    return found, broken


def _rows(text: str, form: str, labels: Sequence[str], cut: bool) -> Reading:
    reading = Reading()
    values, broken = json_values(text)
    needed = required_columns(form) - {"labels"}
    for item in _items(values, needed):
        # Inside something broken, its parts are found too: those are no rows and no news.
        if broken and not (isinstance(item, dict) and needed <= set(item)):
            continue
        try:
            reading.rows.append(checked_row(item, form, labels))
        except DataError as error:
            reading.problems[_kind(error)] += 1
    if cut and broken:
        reading.problems[CUT] += 1
    elif not reading.rows and not reading.problems:
        reading.problems[CUT if cut else NO_JSON] += 1
    return reading


def _items(values: list[Any], needed: frozenset[str]) -> list[Any]:
    """The rows in what was found: lists are opened, and so is an object that only wraps a list."""
    items: list[Any] = []
    for value in values:
        if isinstance(value, dict) and not needed & set(value):
            lists = [inner for inner in value.values() if isinstance(inner, list)]
            value = lists[0] if len(lists) == 1 else value
        items += value if isinstance(value, list) else [value]
    return items


def _answered(text: str, ask: Ask, form: str) -> Row:
    answer = [{"role": "assistant", "content": text}]
    prompt = list(ask.prompt)
    if ask.expects == "rejected":
        row = {"prompt": prompt, "chosen": list(ask.own), "rejected": answer}
    elif form == "messages":
        row = {"messages": [*prompt, *answer]}
    else:
        row = {"prompt": prompt, "completion": answer}
    return checked_row(row, form)


def _judged(text: str, ask: Ask, cut: bool) -> Row:
    values, _ = json_values(text)
    verdict = next((v for v in values if isinstance(v, dict) and "better" in v), None)
    if verdict is None:
        raise DataError(CUT if cut else "the reply holds no verdict")
    own = "\n\n".join(str(turn["content"]) for turn in ask.own)
    first = list(ask.own) if own else verdict.get("answer_a")
    second = verdict.get("answer_b")
    better = str(verdict["better"]).strip().upper()[:1]
    if better not in ("A", "B"):
        raise DataError("the verdict names neither answer A nor B")
    if better == "B":
        first, second = second, first
    row = {"prompt": list(ask.prompt), "chosen": first, "rejected": second}
    return checked_row(row, "preference")


def _kind(error: DataError) -> str:
    """A problem without the numbers and values that make each one different."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "...", error.message.rstrip("."))
    return _NUMBERED.sub("N", text)
