"""JSON Lines and JSON documents to records. A document is read piece by piece: an array's
elements, or the rows inside one object."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

import orjson

from core.data.read.row import MAX_ROW_CHARS, Record, Row, are_turns, as_row
from core.data.read.text import PIECE_BYTES, TextSource
from core.errors import DataError
from core.language import _

_BLANK = b" \t\r\n"


_DEEP = 500
"""orjson reads values nested more deeply than the standard library can write later."""


def json_lines(source: TextSource) -> Iterator[Record]:
    """A record for each line that is not blank. Memory holds a piece of the file, or one line."""
    read, number, rest = source.stream.read, 0, b""
    too_long = False
    while piece := read(max(PIECE_BYTES, len(rest))):
        piece = rest + piece
        exact = may_lose_digits(piece) or _may_be_deep(piece)
        lines = piece.split(b"\n")
        rest = lines.pop()
        done = source.done()
        if too_long and lines:
            number += 1
            yield _too_long(number, done)
            del lines[0]
            too_long = False
        if too_long or len(rest) > MAX_ROW_CHARS:
            # What is left of such a line is not kept.
            too_long, rest = True, b""
        yield from _records(lines, number, exact, done)
        number += len(lines)
    if too_long:
        yield _too_long(number + 1, 1.0)
    elif rest:
        yield from _records([rest], number, True, 1.0)


def _too_long(number: int, done: float) -> Record:
    reason = _("the line is longer than {most:,} characters", most=MAX_ROW_CHARS)
    return Record(number, None, reason, done)


def _may_be_deep(data: bytes) -> bool:
    return data.count(b"[") + data.count(b"{") > _DEEP


def _records(lines: list[bytes], number: int, exact: bool, done: float) -> Iterator[Record]:
    """A record for each line. `exact` where one may hold what orjson reads in another way."""
    loads = orjson.loads
    for line in lines:
        number += 1
        if len(line) > MAX_ROW_CHARS:
            yield _too_long(number, done)
            continue
        try:
            slowly = exact and (_may_be_deep(line) or may_lose_digits(line))
            row = None if slowly else loads(line)
        except ValueError:
            row = None
        if type(row) is dict:
            yield Record(number, row, "", done)
        elif line.strip(_BLANK):
            yield Record(number, *_slow_row(line), done)


def _slow_row(line: bytes) -> tuple[Row | None, str]:
    """A line as the standard library reads it, which also says what is wrong with it."""
    text = line.decode("utf-8", "surrogateescape")
    try:
        return as_row(json.loads(text), checked=line.isascii() and b"\\u" not in line)
    except RecursionError:
        return None, _("not JSON that can be read: nested too deeply")
    except json.JSONDecodeError as error:
        return None, _("not JSON: {error}", error=str(error))
    except ValueError:  # Python's own limit
        return None, _("not JSON that can be read: a number has too many digits")


def json_document(source: TextSource) -> Iterator[Record]:
    """A record for each element of an array, or for each row inside an object."""
    name = source.path.name
    start = b" "
    while start.isspace():
        start = source.stream.peek(1)[:1]
        if start.isspace():
            source.stream.read(1)
    values: Iterable[tuple[Any, bool]]
    if start == b"[":
        with source.text() as text:
            done = 0.0
            values = array_elements(text, name, MAX_ROW_CHARS)
            for number, (value, checked) in enumerate(values, 1):
                done = source.done() if number % 64 == 1 else done
                yield Record(number, *as_row(value, checked=checked), done)
        return
    rows, checked = object_rows(source.stream, name)
    for number, value in enumerate(rows, 1):
        yield Record(number, *as_row(value, checked=checked), number / len(rows))


MAX_OBJECT_BYTES = 2**30
"""A document that is one object is read as a whole: larger ones are refused."""

_CHUNK = 1 << 20
_DECODER = json.JSONDecoder()
_DIGITS = bytes(48 if 48 <= code <= 57 else 32 for code in range(256))


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


def may_lose_digits(data: bytes) -> bool:
    """Whether a number may be in there that orjson would round: one of 19 digits or more."""
    return b"0" * 19 in data.translate(_DIGITS)


def array_elements(file: TextIO, name: str, max_chars: int) -> Iterator[tuple[Any, bool]]:
    """Each element of the array that the text is, and whether its texts are known to be valid.

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
                raise _not_json(name, window.line, _("a comma or the closing bracket is missing"))
            window.advance(window.place + 1)
            if sign == "]":
                break
            window.next_sign()
    if window.next_sign():
        raise _not_json(name, window.line, _("something follows the end of the list"))


def _value(window: _Window, name: str, max_chars: int) -> tuple[Any, bool]:
    while True:
        reason = ""
        try:
            value, end = _DECODER.raw_decode(window.text, window.place)
        except RecursionError:
            raise _not_json(name, window.line, _("a value is nested too deeply")) from None
        except ValueError as error:
            reason = getattr(error, "msg", str(error))
            line = window.line + window.text.count("\n", window.place, getattr(error, "pos", 0))
        else:
            # A number at the window's end may go on behind it.
            if end < len(window.text) or window.at_end:
                written = window.text[window.place : end]
                window.advance(end)
                return value, written.isascii() and "\\u" not in written
            line = window.line
        waiting = len(window.text) - window.place
        if window.at_end or waiting > max_chars:
            reason = reason or _("it ends in the middle of a value")
            raise _not_json(name, line, reason)
        window.more()


def _not_json(name: str, line: int, reason: str) -> DataError:
    return DataError(
        _(
            "{name} is not valid JSON at line {line}: {reason}.",
            name=name,
            line=line,
            reason=reason,
        ),
        _("Mend it there, or save the rows as JSON Lines, where a broken line costs only itself."),
    )


def object_rows(stream: io.BufferedIOBase, name: str) -> tuple[list[Any], bool]:
    """The rows in a document that is no array, and whether their texts are known to be valid: an
    object with a list inside, an object of columns, one row alone, or several objects one after
    the other."""
    data = stream.read(MAX_OBJECT_BYTES + 1)
    if len(data) > MAX_OBJECT_BYTES:
        raise DataError(
            _(
                "{name} is one JSON object of more than {most} GB.",
                name=name,
                most=MAX_OBJECT_BYTES // 2**30,
            ),
            _("Save its rows as JSON Lines: they are read one at a time."),
        )
    values, checked = None, False
    if not may_lose_digits(data):
        try:
            values, checked = [orjson.loads(data)], True
        except ValueError:
            values = None
    if values is None:
        values = _objects(data.decode("utf-8", "surrogateescape"), name)
    if len(values) == 1 and isinstance(values[0], dict):
        values = _rows_inside(values[0], name)
    return values, checked


def _objects(text: str, name: str) -> list[Any]:
    place = 0
    values: list[Any] = []
    while True:
        while place < len(text) and text[place].isspace():
            place += 1
        if place == len(text):
            return values
        try:
            value, place = _DECODER.raw_decode(text, place)
        except RecursionError:
            line = text.count("\n", 0, place) + 1
            raise _not_json(name, line, _("a value is nested too deeply")) from None
        except ValueError as error:
            at = getattr(error, "pos", place)
            reason = getattr(error, "msg", str(error))
            raise _not_json(name, text.count("\n", 0, at) + 1, reason) from error
        values.append(value)


def _rows_inside(document: dict[str, Any], name: str) -> list[Any]:
    if any(are_turns(value) for value in document.values()):
        return [document]
    lists = _lists_of_rows(document)
    if not lists:
        # One level down, as in {"result": {"rows": [...]}}; pandas' objects of columns are not.
        for key, value in document.items():
            if isinstance(value, dict) and not any(are_turns(one) for one in value.values()):
                lists |= {f"{key}.{inner}": rows for inner, rows in _lists_of_rows(value).items()}
    if len(lists) > 1:
        raise DataError(
            _("{name} holds several lists of rows: {lists}.", name=name, lists=", ".join(lists)),
            _("Save the list you want as a file of its own."),
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


def _lists_of_rows(document: dict[str, Any]) -> dict[str, list[Any]]:
    return {
        key: value
        for key, value in document.items()
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
    }
