"""JSON Lines and JSON documents to records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from core.data.json_stream import array_elements, may_lose_digits, object_rows
from core.data.readers_row import MAX_ROW_CHARS, Record, Row, as_row
from core.data.readers_text import PIECE_BYTES, TextSource

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
    return Record(number, None, f"the line is longer than {MAX_ROW_CHARS:,} characters", done)


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
        return None, "not JSON that can be read: nested too deeply"
    except json.JSONDecodeError as error:
        return None, f"not JSON: {error}"
    except ValueError:  # Python's own limit
        return None, "not JSON that can be read: a number has too many digits"


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
