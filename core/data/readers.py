"""Files to raw rows, one record at a time: JSON, JSON Lines, CSV, TSV and Parquet.

A record that cannot be read is a record with a problem, never an exception and never skipped.
DataError is for a file that cannot be used at all. Blank lines are no records.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from core.data.json_stream import array_elements, read_object
from core.errors import DataError

Row = dict[str, Any]

MAX_ROW_CHARS = 16 * 2**20
"""No row that a model learns from is this long: a longer one is a mistake in the file."""

FORMATS = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_KINDS = "JSON, JSON Lines, CSV, TSV or Parquet"
_FOREIGN = {
    b"PK\x03\x04": "a zip archive (also XLSX and DOCX are)",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF": "a PDF",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
    b"SQLite format 3": "a database",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
}


class Record(NamedTuple):
    """One row or the problem it has. `line` counts from 1: the line where it begins in JSON
    Lines and CSV, the row's number in a JSON document and in Parquet. `done` is the fraction
    of the file that has been read."""

    line: int
    row: Row | None
    problem: str
    done: float


def file_format(path: Path) -> str:
    """json, jsonl, csv, tsv or parquet, from the name and the first bytes.

    Raises DataError for an empty file and for a file of another kind.
    """
    with opened(path) as file:
        head = file.read(65536)
    if not head.strip(b"\xef\xbb\xbf \t\r\n"):
        raise DataError(f"{path.name} is empty.", "Choose a file with rows in it.")
    if head.startswith(b"PAR1"):
        return "parquet"
    named = FORMATS.get(path.suffix.lower())
    foreign = next((what for magic, what in _FOREIGN.items() if head.startswith(magic)), "")
    # A stray zero byte spoils one row; a file of another kind is full of them.
    many_zeros = head.count(b"\x00") * 10 > len(head)
    if not foreign and named != "parquet" and many_zeros and not _is_utf16(head):
        foreign = "not a text file"
    if foreign:
        raise DataError(f"{path.name} is {foreign}.", f"Bring it as {_KINDS}.")
    if named is None:
        raise DataError(
            f"{path.name} has an ending that is not known.", f"Bring the data as {_KINDS}."
        )
    return _json_kind(head, named) if named in ("json", "jsonl") else named


def _is_utf16(head: bytes) -> bool:
    return head.startswith((b"\xff\xfe", b"\xfe\xff"))


def _encoding(head: bytes) -> str:
    return "utf-16" if _is_utf16(head) else "utf-8-sig"


def _json_kind(head: bytes, named: str) -> str:
    """Tells lines from one document, whatever the file's name says."""
    text = head.decode(_encoding(head), errors="replace").lstrip()
    first, _, rest = text.partition("\n")
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        goes_on = first.strip() in ("[", "{", "[{") or first.rstrip().endswith(",")
        one_line = text.startswith("[") and not rest
        return "json" if goes_on or one_line or named == "json" else "jsonl"
    if rest.strip():
        return "jsonl"
    return "json" if isinstance(value, list) else named


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """The file, open for reading bytes. Raises DataError when it cannot be opened."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(
            f"{path.name} cannot be read: {error.strerror}.", "Choose a file that can be read."
        ) from error
    with file:
        yield file


def no_readable_row(path: Path, broken: Record | None) -> DataError:
    """The error for a file without one row, with the first problem in it."""
    detail = f" (line {broken.line}: {broken.problem})" if broken else ""
    return DataError(
        f"{path.name} has no row that can be read{detail}.",
        "Choose a file with rows in it, or mend this one.",
    )


def read_records(path: Path, format_name: str | None = None) -> Iterator[Record]:
    """Every record of the file, in order. Memory does not grow with the file's length, but for
    a JSON file that is one object."""
    kind = format_name or file_format(path)
    if kind == "parquet":
        yield from _read_parquet(path)
        return
    with opened(path) as file:
        size = max(path.stat().st_size, 1)
        encoding = _encoding(file.read(4))
        file.seek(0)
        newline = "\n" if kind == "jsonl" else ""
        # Bytes that are no UTF-8 become lone surrogates, which are found row by row later.
        errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
        with io.TextIOWrapper(file, encoding, errors=errors, newline=newline) as text:
            if kind == "jsonl":
                records = _json_lines(text)
            elif kind == "json":
                records = _json_document(text, path)
            else:
                records = _csv_records(text, path, "\t" if kind == "tsv" else None)
            for line, row, problem in records:
                yield Record(line, row, problem, min(file.tell() / size, 1.0))


_Found = tuple[int, Row | None, str]


def _json_lines(file: io.TextIOWrapper) -> Iterator[_Found]:
    number = 0
    while line := file.readline(MAX_ROW_CHARS + 1):
        number += 1
        if len(line) > MAX_ROW_CHARS:
            while line and not line.endswith("\n"):
                line = file.readline(MAX_ROW_CHARS)
            yield number, None, f"the line is longer than {MAX_ROW_CHARS:,} characters"
        elif line.strip(" \t\r\n"):
            yield number, *_json_row(line)


def _json_row(line: str) -> tuple[Row | None, str]:
    try:
        value = json.loads(line)
        return as_row(value, checked=line.isascii() and "\\u" not in line)
    except RecursionError:
        return None, "not JSON that can be read: nested too deeply"
    except ValueError as error:
        return None, f"not JSON: {error}"


def as_row(value: Any, *, checked: bool = False) -> tuple[Row | None, str]:
    """A JSON value as a row: an object as it is, a plain text under the name `text`.

    `checked` says that its texts are known to be valid.
    """
    if isinstance(value, str):
        value = {"text": value}
    if not isinstance(value, dict):
        return None, f"a row is an object with named values, this is {json_type(value)}"
    try:
        bad = "" if checked else invalid_text(json.dumps(value, ensure_ascii=False))
    except RecursionError:
        bad = "nested too deeply"
    return (None, bad) if bad else (value, "")


def json_type(value: Any) -> str:
    """What JSON calls a value, for messages."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "text"}
    names |= {list: "a list", dict: "an object", type(None): "null"}
    return names.get(type(value), f"a value of type {type(value).__name__}")


def invalid_text(text: str) -> str:
    """The reason why a text cannot be written as UTF-8, or nothing."""
    if text.isascii():
        return ""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        if 0xDC80 <= code <= 0xDCFF:
            return f"not valid UTF-8 (byte 0x{code - 0xDC00:02x}); save the file as UTF-8"
        return "holds half a character (a lone surrogate)"
    return ""


def _json_document(file: io.TextIOWrapper, path: Path) -> Iterator[_Found]:
    start = file.read(1)
    while start.isspace():
        start = file.read(1)
    file.seek(0)
    if start == "[":
        elements: Iterable[Any] = array_elements(file, path.name, MAX_ROW_CHARS)
    else:
        elements = read_object(file, path.name)
    for number, value in enumerate(elements, 1):
        yield number, *as_row(value)


def _csv_records(file: io.TextIOWrapper, path: Path, delimiter: str | None) -> Iterator[_Found]:
    # The csv module's own limit of 128 KiB a cell is less than a long document.
    csv.field_size_limit(MAX_ROW_CHARS)
    lines = _bounded_lines(file, path)
    first, skipped = "", -1
    while not first.strip():
        first = next(lines, "")
        skipped += 1
        if not first:
            raise DataError(f"{path.name} is empty.", "Choose a file with rows in it.")
    chosen = delimiter or max(
        ",;\t|", key=lambda sign: len(next(csv.reader([first], delimiter=sign)))
    )
    reader = csv.reader(_joined(first, lines), delimiter=chosen, strict=True)
    try:
        header = _header(next(reader), path)
    except csv.Error as error:
        raise DataError(
            f"The first line of {path.name} is not CSV: {error}.",
            "Write the names of the columns there, separated by commas.",
        ) from error
    while True:
        begin = skipped + reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield begin, None, _csv_problem(str(error), begin, skipped + reader.line_num)
        else:
            if values:
                yield begin, *_csv_row(header, values)


def _bounded_lines(file: io.TextIOWrapper, path: Path) -> Iterator[str]:
    number = 0
    while line := file.readline(MAX_ROW_CHARS + 1):
        number += 1
        if len(line) > MAX_ROW_CHARS:
            raise DataError(
                f"Line {number} of {path.name} is longer than {MAX_ROW_CHARS:,} characters.",
                "Save the table with one row a line.",
            )
        yield line


def _joined(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _header(names: list[str], path: Path) -> list[str]:
    header = [name.strip() or f"column {place}" for place, name in enumerate(names, 1)]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(
            f"{path.name} has the column {twice[0]} more than once.",
            "Give each column in the first line a name of its own.",
        )
    bad = invalid_text("".join(header))
    if bad:
        raise DataError(f"The first line of {path.name} is {bad}.", "Save the file as UTF-8.")
    return header


def _csv_problem(error: str, begin: int, end: int) -> str:
    if "end of data" in error:
        return f"a quote that opens here is never closed; lines {begin} to {end} are lost"
    if "field limit" in error:
        return f"a cell is longer than {MAX_ROW_CHARS:,} characters; is a quote missing?"
    return f"not CSV: {error}"


def _csv_row(header: list[str], values: list[str]) -> tuple[Row | None, str]:
    if len(values) != len(header):
        return None, f"{len(values)} values for {len(header)} columns"
    bad = invalid_text("".join(values))
    return (None, bad) if bad else (dict(zip(header, values, strict=True)), "")


def _read_parquet(path: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            total = max(file.metadata.num_rows, 1)
            number = 0
            for batch in file.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    yield Record(number, row, "", number / total)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path.name} cannot be read as Parquet: {error}".rstrip(".") + ".",
            "Write the file again, or bring it as JSON Lines.",
        ) from error
