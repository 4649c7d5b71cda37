"""What a row is, and what is said of a value that is none."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from core.language import N_, _

Row = dict[str, Any]

MAX_ROW_CHARS = 16 * 2**20
"""No row that a model learns from is this long: a longer one is a mistake in the file."""


class Record(NamedTuple):
    """One row or the problem it has. `line` counts from 1: the line where it begins in JSON
    Lines and CSV, the page of a PDF, else the row's number. `done` is the fraction of the file
    that has been read."""

    line: int
    row: Row | None
    problem: str
    done: float


def as_row(value: Any, *, checked: bool = False) -> tuple[Row | None, str]:
    """A JSON value as a row: an object as it is, a plain text under the name `text`, a list of
    turns under the name `messages`.

    `checked` says that its texts are known to be valid.
    """
    if isinstance(value, str):
        value = {"text": value}
    elif are_turns(value):
        value = {"messages": value}
    if not isinstance(value, dict):
        return None, _(
            "a row is an object with named values, this is {kind}", kind=json_type(value)
        )
    try:
        bad = "" if checked else invalid_text(json.dumps(value, ensure_ascii=False))
    except RecursionError:
        bad = _("nested too deeply")
    return (None, bad) if bad else (value, "")


def are_turns(value: Any) -> bool:
    """Whether a list holds the turns of one conversation, rather than rows."""
    if not isinstance(value, list) or not value:
        return False
    return all(
        isinstance(turn, dict) and ("from" in turn or ("role" in turn and turn.keys() & _SAID))
        for turn in value
    )


_SAID = {"content", "parts", "value", "tool_calls"}


def json_type(value: Any) -> str:
    """What JSON calls a value, for messages."""
    kind = type(value)
    return _(_JSON[kind]) if kind in _JSON else _("a value of type {name}", name=kind.__name__)


_JSON = {
    bool: N_("true or false"),
    **dict.fromkeys((int, float), N_("a number")),
    str: N_("text"),
    list: N_("a list"),
    dict: N_("an object"),
    type(None): N_("null"),
}


def invalid_text(text: str) -> str:
    """The reason why a text cannot be written as UTF-8, or nothing."""
    if text.isascii():
        return ""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        if 0xDC80 <= code <= 0xDCFF:
            return _(
                "not valid UTF-8 (byte 0x{code:02x}); save the file as UTF-8", code=code - 0xDC00
            )
        return _("holds half a character (a lone surrogate)")
    return ""
