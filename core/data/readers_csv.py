"""CSV and TSV to records. The first line names the columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from core.data.readers_row import MAX_ROW_CHARS, Record, Row, invalid_text
from core.data.readers_text import TextSource
from core.errors import DataError

_DELIMITERS = ",;\t|"
_NO_DELIMITER = "\x1f"
"""For a file of one column: commas in its texts separate nothing."""

_LINES_TO_GUESS = 50
_ROWS_BETWEEN_LOOKS = 64


class _LineTooLong(Exception):
    """Comes out of the csv reader, which then goes on with the next line."""


def csv_records(source: TextSource, delimiter: str | None) -> Iterator[Record]:
    """A record for each row of the table; blank lines are none."""
    chosen = delimiter or _guess(source.stream.peek().decode("utf-8", "replace"))
    done = 0.0
    with source.text() as text:
        for number, found in enumerate(_rows(text, source.path, chosen)):
            done = source.done() if number % _ROWS_BETWEEN_LOOKS == 0 else done
            yield Record(*found, done)


def _rows(
    file: io.TextIOWrapper, path: Path, delimiter: str
) -> Iterator[tuple[int, Row | None, str]]:
    # The csv module's own limit of 128 KiB a cell is less than a long document.
    csv.field_size_limit(MAX_ROW_CHARS)
    lines = _Lines(file)
    first, skipped = "", -1
    while not first.strip():
        first = next(lines, "")
        skipped += 1
        if not first:
            raise DataError(f"{path.name} is empty.", "Choose a file with rows in it.")
    reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
    try:
        header = header_of(next(reader), path.name)
    except csv.Error as error:
        raise DataError(
            f"The first line of {path.name} is not CSV: {error}.",
            "Write the names of the columns there, separated by commas.",
        ) from error
    width = len(header)
    while True:
        begin = skipped + reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except _LineTooLong:
            skipped += 1
            yield begin, None, f"the line is longer than {MAX_ROW_CHARS:,} characters"
        except csv.Error as error:
            yield begin, None, _problem(str(error), begin, skipped + reader.line_num)
        else:
            if len(values) == width:
                bad = invalid_text("".join(values))
                yield begin, None if bad else dict(zip(header, values, strict=True)), bad
            elif values:
                yield begin, None, f"{len(values)} values for {width} columns"


class _Lines:
    """The lines of a text, none of them longer than a row may be."""

    def __init__(self, file: io.TextIOWrapper) -> None:
        self._file = file

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_ROW_CHARS + 1)
        if not line:
            raise StopIteration
        if len(line) > MAX_ROW_CHARS:
            while line and not line.endswith(("\n", "\r")):
                line = self._file.readline(MAX_ROW_CHARS)
            raise _LineTooLong
        return line


def _guess(head: str) -> str:
    """The delimiter with which most of the first rows are as wide as the header."""
    lines = [line for line in head.splitlines(keepends=True) if line.strip()][:_LINES_TO_GUESS]
    best, most = _NO_DELIMITER, (0, 0)
    for sign in _DELIMITERS:
        widths = _widths(lines, sign)
        if widths and widths[0] > 1:
            fit = (widths.count(widths[0]), widths[0])
            best, most = (sign, fit) if fit > most else (best, most)
    return best


def _widths(lines: list[str], delimiter: str) -> list[int]:
    reader, widths = csv.reader(lines, delimiter=delimiter), []
    try:
        for values in reader:
            widths.append(len(values))
    except csv.Error:
        # A row further down is no CSV with this sign, which only counts against it.
        pass
    return widths


def header_of(names: list[str], source: str) -> list[str]:
    """The names of a table's columns, blank ones numbered. Raises DataError for one that is there
    twice."""
    header = [name.strip() or f"column {place}" for place, name in enumerate(names, 1)]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(
            f"{source} has the column {twice[0]} more than once.",
            "Give each column in the first line a name of its own.",
        )
    bad = invalid_text("".join(header))
    if bad:
        raise DataError(f"The first line of {source} is {bad}.", "Save the file as UTF-8.")
    return header


def _problem(error: str, begin: int, end: int) -> str:
    if "end of data" in error:
        return f"a quote that opens here is never closed; lines {begin} to {end} are lost"
    if "field limit" in error:
        return f"a cell is longer than {MAX_ROW_CHARS:,} characters; is a quote missing?"
    return f"not CSV: {error}"
