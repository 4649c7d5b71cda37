"""Tables to records: CSV and TSV, whose first line names the columns, Parquet, Arrow and XLSX.
Values come as JSON knows them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from core.data.read.archives import opened_office
from core.data.read.row import MAX_ROW_CHARS, Record, Row, invalid_text
from core.data.read.sheet_extent import check_extent
from core.data.read.text import TextSource
from core.errors import DataError
from core.language import _

_DELIMITERS = ",;\t|"
_NO_DELIMITER = "\x1f"
"""For a file of one column: commas in its texts separate nothing."""

_SEPARATOR = re.compile(r'"?sep=([^"\r\n])"?[\r\n]*', re.I)
"""The line by which Excel is told, before the names of the columns, what separates them."""

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
    while not first.strip() or _SEPARATOR.fullmatch(first):
        told = _SEPARATOR.fullmatch(first)
        delimiter = told[1] if told else delimiter
        first = next(lines, "")
        skipped += 1
        if not first:
            raise DataError(
                _("{name} is empty.", name=path.name), _("Choose a file with rows in it.")
            )
    reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
    try:
        header = header_of(next(reader), path.name)
    except csv.Error as error:
        raise DataError(
            _("The first line of {name} is not CSV: {error}.", name=path.name, error=str(error)),
            _("Write the names of the columns there, separated by commas."),
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
            yield begin, None, _("the line is longer than {most:,} characters", most=MAX_ROW_CHARS)
        except csv.Error as error:
            yield begin, None, _problem(str(error), begin, skipped + reader.line_num)
        else:
            if len(values) == width:
                bad = invalid_text("".join(values))
                yield begin, None if bad else dict(zip(header, values, strict=True)), bad
            elif values:
                bad = _("{values} values for {columns} columns", values=len(values), columns=width)
                yield begin, None, bad


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
            _("{source} has the column {column} more than once.", source=source, column=twice[0]),
            _("Give each column in the first line a name of its own."),
        )
    bad = invalid_text("".join(header))
    if bad:
        raise DataError(
            _("The first line of {source} is {bad}.", source=source, bad=bad),
            _("Save the file as UTF-8."),
        )
    return header


def _problem(error: str, begin: int, end: int) -> str:
    if "end of data" in error:
        return _(
            "a quote that opens here is never closed; lines {begin} to {end} are lost",
            begin=begin,
            end=end,
        )
    if "field limit" in error:
        return _(
            "a cell is longer than {most:,} characters; is a quote missing?", most=MAX_ROW_CHARS
        )
    return _("not CSV: {error}", error=str(error))


_ROWS_A_BATCH = 1000
_BUFFER_BYTES = 1 << 20


def read_parquet(path: Path) -> Iterator[Record]:
    """A record for each row, numbered from 1."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Without pre_buffer a group is read as it is needed, not as a whole.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES) as file:
            total = max(file.metadata.num_rows, 1)
            plain, number = _plainer(file.schema_arrow), 0
            for batch in file.iter_batches(batch_size=_ROWS_A_BATCH):
                for row, problem in _batch_rows(batch, plain):
                    number += 1
                    yield Record(number, row, problem, number / total)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, "Parquet", error) from error


def read_arrow(path: Path) -> Iterator[Record]:
    """A record for each row of an Arrow IPC file (also Feather) or stream."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            size, number = max(source.size(), 1), 0
            for table, done in _arrow_batches(source, size):
                plain = _plainer(table.schema)
                for start in range(0, table.num_rows, _ROWS_A_BATCH):
                    for row, problem in _batch_rows(table.slice(start, _ROWS_A_BATCH), plain):
                        number += 1
                        yield Record(number, row, problem, done)
    except (pa.ArrowException, OSError, ValueError) as error:  # a name that is no text, say
        raise _damaged(path, "Arrow", error) from error


def _arrow_batches(source: Any, size: int) -> Iterator[tuple[Any, float]]:
    import pyarrow as pa

    is_file = source.read(6) == b"ARROW1"
    source.seek(0)
    if is_file:
        with pa.ipc.open_file(source) as file:
            count = file.num_record_batches
            for number in range(count):
                yield _sound(file.get_batch(number)), (number + 1) / count
    else:
        with pa.ipc.open_stream(source) as stream:
            for batch in stream:
                yield _sound(batch), min(source.tell() / size, 1.0)


def _sound(batch: Any) -> Any:
    """A batch whose offsets stay within its buffers: Arrow believes what a file says of them, and
    a damaged one would end the process, or go on for ever with rows of nothing. Words that are not
    UTF-8 are told row by row."""
    import pyarrow as pa

    batch.validate()
    if batch.num_rows > _ROWS_A_BATCH and not batch.nbytes:
        raise pa.ArrowInvalid(f"{batch.num_rows:,} rows of nothing")
    for column in batch.columns:
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            words = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
            if not (words and "UTF8" in str(error)):
                raise
    return batch


def _damaged(path: Path, kind: str, error: Exception) -> DataError:
    return DataError(
        _(
            "{name} cannot be read as {kind}: {error}.",
            name=path.name,
            kind=kind,
            error=str(error).rstrip("."),
        ),
        _("Write the file again, or bring it as JSON Lines."),
    )


def _batch_rows(batch: Any, plain: Callable[[Row], Row] | None) -> Iterator[tuple[Row | None, str]]:
    """Rows of a batch; where one cannot be read, the others still come."""
    try:
        # Only asked for where there is need: it makes everything else slow.
        rows = batch.to_pylist(**({"maps_as_pydicts": "lossy"} if plain else {}))
    except (ValueError, KeyError) as error:
        if batch.num_rows == 1:
            yield None, _("a value cannot be read: {error}", error=str(error))
            return
        for place in range(batch.num_rows):
            yield from _batch_rows(batch.slice(place, 1), plain)
        return
    for row in rows:
        yield (plain(row) if plain else row), ""


def table_rows(table: Any) -> Iterator[tuple[Row | None, str]]:
    """Each row of an Arrow table with values that JSON knows, or the problem it has."""
    plain = _plainer(table.schema)
    for batch in table.to_batches(_ROWS_A_BATCH):
        yield from _batch_rows(batch, plain)


def _plainer(schema: Any) -> Callable[[Row], Row] | None:
    """What makes a row's values those that JSON knows, or None when they already are."""
    names = [name for name, kind in zip(schema.names, schema.types, strict=True) if not _json(kind)]
    if not names:
        return None

    def plain(row: Row) -> Row:
        for name in names:
            row[name] = plain_value(row[name])
        return row

    return plain


def _json(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return all(_json(kind.field(place).type) for place in range(kind.num_fields))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _json(kind.value_type)
    if pa.types.is_dictionary(kind):
        return _json(kind.value_type)
    known = pa.types.is_string, pa.types.is_large_string, pa.types.is_boolean, pa.types.is_null
    numbers = pa.types.is_integer, pa.types.is_floating
    return any(test(kind) for test in (*known, *numbers))


def plain_value(value: Any) -> Any:
    """A value as JSON knows it: dates and decimals as text, bytes as text where they are text,
    else as their size, mappings and lists with plain values inside."""
    if isinstance(value, dict):
        return {str(key): plain_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain_value(inner) for inner in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return f"({len(value):,} bytes)"
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return str(value)


def read_xlsx(path: Path) -> Iterator[Record]:
    """A record for each row of each sheet that is not blank. A sheet's first row names its
    columns; where several sheets have rows, the column `sheet` names each row's own. Lines count
    on from sheet to sheet."""
    import python_calamine as calamine

    with opened_office(path) as (archive, members):
        check_extent(archive, members, path.name)
    try:
        with calamine.CalamineWorkbook.from_path(path) as book:
            sheets = [book.get_sheet_by_name(name) for name in book.sheet_names]
            sheets = [sheet for sheet in sheets if sheet.height]
            heights = [sheet.end[0] + 1 if sheet.end else 0 for sheet in sheets]
            total, line = max(sum(heights), 1), 0
            for sheet, height in zip(sheets, heights, strict=True):
                named = {"sheet": sheet.name} if len(sheets) > 1 else {}
                for place, row, problem in _sheet_rows(sheet, path):
                    at = line + place
                    yield Record(at, {**row, **named} if row else None, problem, at / total)
                line += height
    except calamine.PasswordError as error:
        raise DataError(
            _("{name} is locked with a password.", name=path.name),
            _("Save it without the password."),
        ) from error
    except (calamine.CalamineError, OSError) as error:
        raise DataError(
            _(
                "{name} cannot be read as {kind}: {error}.",
                name=path.name,
                kind="XLSX",
                error=str(error).rstrip("."),
            ),
            _("Save it again as XLSX, or as CSV."),
        ) from error


def _sheet_rows(sheet: Any, path: Path) -> Iterator[tuple[int, Row | None, str]]:
    names: list[str] = []
    first = sheet.start[0] + 1
    for place, cells in enumerate(sheet.iter_rows(), first):
        values = [_cell(cell) for cell in cells]
        if all(value == "" for value in values):
            continue
        if not names:
            where = _("{name}, {sheet},", name=path.name, sheet=sheet.name)
            names = header_of([str(value) for value in values], where)
        elif bad := invalid_text("".join(value for value in values if isinstance(value, str))):
            yield place, None, bad
        else:
            yield place, dict(zip(names, values, strict=True)), ""


def _cell(value: Any) -> Any:
    # A sheet knows only floating numbers: 3 is kept as 3.0.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return plain_value(value)
