"""JSON documents read piece by piece: an array's elements, or the rows inside one object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TextIO

from core.errors import DataError

_CHUNK = 1 << 20
_DECODER = json.JSONDecoder()


class _Window:
    """The part of a text that is being decoded, and the line it begins at."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.text = ""
        self.place = 0
        self.line = 1
        self.at_end = False

    def more(self) -> None:
        """Reads on, as much again as is waiting, so that a long value is not tried too often."""
        chunk = self._file.read(max(_CHUNK, len(self.text) - self.place))
        self.at_end = not chunk
        self.text, self.place = self.text[self.place :] + chunk, 0

    def advance(self, place: int) -> None:
        self.line += self.text.count("\n", self.place, place)
        self.place = place

    def next_sign(self) -> str:
        """The next character that is not white space, or nothing at the end."""
        while True:
            place = self.place
            while place < len(self.text) and self.text[place].isspace():
                place += 1
            self.advance(place)
            if place < len(self.text):
                return self.text[place]
            self.more()
            if self.at_end:
                return ""


def array_elements(file: TextIO, name: str, max_chars: int) -> Iterator[Any]:
    """Each element of the array that the text is.

    Raises DataError at the first thing that is not JSON: in an array, nothing after it can be
    told apart.
    """
    window = _Window(file)
    window.next_sign()
    window.advance(window.place + 1)
    if window.next_sign() == "]":
        window.advance(window.place + 1)
    else:
        while True:
            yield _value(window, name, max_chars)
            sign = window.next_sign()
            if sign not in (",", "]"):
                raise _not_json(name, window.line, "a comma or the closing bracket is missing")
            window.advance(window.place + 1)
            if sign == "]":
                break
            window.next_sign()
    if window.next_sign():
        raise _not_json(name, window.line, "something follows the end of the list")


def _value(window: _Window, name: str, max_chars: int) -> Any:
    while True:
        reason = "it ends in the middle of a value"
        try:
            value, end = _DECODER.raw_decode(window.text, window.place)
        except RecursionError:
            raise _not_json(name, window.line, "a value is nested too deeply") from None
        except ValueError as error:
            reason = getattr(error, "msg", str(error))
            line = window.line + window.text.count("\n", window.place, getattr(error, "pos", 0))
        else:
            # A number at the window's end may go on behind it.
            if end < len(window.text) or window.at_end:
                window.advance(end)
                return value
            line = window.line
        waiting = len(window.text) - window.place
        if window.at_end or waiting > max_chars:
            raise _not_json(name, line, reason)
        window.more()


def _not_json(name: str, line: int, reason: str) -> DataError:
    return DataError(
        f"{name} is not valid JSON at line {line}: {reason}.",
        "Mend it there, or save the rows as JSON Lines, where a broken line costs only itself.",
    )


def read_object(file: TextIO, name: str) -> Iterator[Any]:
    """Each row in a document that is no array: an object with a list inside,
    an object of columns, one row alone, or several objects one after the other."""
    text = file.read()
    place, values = 0, []
    while True:
        while place < len(text) and text[place].isspace():
            place += 1
        if place == len(text):
            break
        try:
            value, place = _DECODER.raw_decode(text, place)
        except RecursionError:
            line = text.count("\n", 0, place) + 1
            raise _not_json(name, line, "a value is nested too deeply") from None
        except ValueError as error:
            at = getattr(error, "pos", place)
            reason = getattr(error, "msg", str(error))
            raise _not_json(name, text.count("\n", 0, at) + 1, reason) from error
        values.append(value)
    if len(values) == 1 and isinstance(values[0], dict):
        values = _rows_inside(values[0], name)
    yield from values


def _rows_inside(document: dict[str, Any], name: str) -> list[Any]:
    if any(_is_turns(value) for value in document.values()):
        return [document]
    lists = {
        key: value
        for key, value in document.items()
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
    }
    if len(lists) > 1:
        raise DataError(
            f"{name} holds several lists of rows: {', '.join(lists)}.",
            "Save the list you want as a file of its own.",
        )
    if lists:
        return next(iter(lists.values()))
    columns = list(document.values())
    if columns and all(isinstance(column, list) for column in columns):
        if len({len(column) for column in columns}) == 1:
            return [dict(zip(document, row, strict=True)) for row in zip(*columns, strict=True)]
    elif columns and all(isinstance(column, dict) for column in columns):
        keys = list(dict.fromkeys(key for column in columns for key in column))
        return [{name: column.get(key) for name, column in document.items()} for key in keys]
    return [document]


def _is_turns(value: Any) -> bool:
    """Whether a list holds the turns of one conversation, rather than rows."""
    if not isinstance(value, list) or not value:
        return False
    return all(
        isinstance(turn, dict) and ({"role", "content"} <= turn.keys() or "from" in turn)
        for turn in value
    )
