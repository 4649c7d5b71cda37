"""Files to raw rows, one record at a time, whatever their format: which kind a file is, and who
reads it.

A record that cannot be read is a record with a problem, never an exception and never skipped.
DataError is for a file that cannot be used at all. Blank lines are no records.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePath

import orjson

from core.data.read.documents import read_docx, read_pdf, read_text
from core.data.read.json_rows import json_document, json_lines
from core.data.read.memory import within_memory
from core.data.read.row import Record
from core.data.read.tables import csv_records, read_arrow, read_parquet, read_xlsx
from core.data.read.text import (
    GZIP,
    TextSource,
    detect_encoding,
    head_of,
    opened,
    opened_text,
    torn_archive,
)
from core.errors import DataError
from core.language import N_, _

FORMATS = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "txt",
    ".text": "txt",
    ".md": "md",
    ".markdown": "md",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".pdf": "pdf",
    ".docx": "docx",
    ".xlsx": "xlsx",
}
TEXT_KINDS = ("json", "jsonl", "csv", "tsv", "txt", "md")
DOCUMENTS = ("txt", "md", "pdf", "docx")
KINDS = N_("JSON, JSON Lines, CSV, TSV, Parquet, Arrow, XLSX, TXT, Markdown, PDF and DOCX")
SAVE_AS = {
    ".odt": (N_("an OpenDocument text"), "DOCX"),
    ".ods": (N_("an OpenDocument table"), N_("XLSX or CSV")),
    ".odp": (N_("an OpenDocument presentation"), "PDF"),
    ".doc": (N_("a document of an old Word"), "DOCX"),
    ".rtf": (N_("a document in RTF"), "DOCX"),
    ".pages": (N_("a document of Pages"), "DOCX"),
    ".xls": (N_("a table of an old Excel"), N_("XLSX or CSV")),
    ".numbers": (N_("a table of Numbers"), N_("XLSX or CSV")),
    ".ppt": (N_("a presentation"), "PDF"),
    ".pptx": (N_("a presentation"), "PDF"),
    ".epub": (N_("a book"), N_("PDF or TXT")),
    ".html": (N_("a web page"), N_("PDF or TXT")),
    ".htm": (N_("a web page"), N_("PDF or TXT")),
}
"""Endings of files that are known and not read: what each is, and what it can be saved as."""

_FOREIGN = {
    b"PK\x03\x04": N_("a zip archive"),
    b"%PDF": N_("a PDF"),
    b"\x89PNG": N_("a picture"),
    b"\xff\xd8\xff": N_("a picture"),
    b"GIF8": N_("a picture"),
    b"SQLite format 3": N_("a database"),
    b"\x28\xb5\x2f\xfd": N_("a zstd archive"),
    b"BZh": N_("a bzip2 archive"),
    b"\xfd7zXZ": N_("an xz archive"),
    b"\xd0\xcf\x11\xe0": N_("a document of an old Office"),
}
_TABLE_READERS = {
    "parquet": read_parquet,
    "arrow": read_arrow,
    "xlsx": read_xlsx,
    "pdf": read_pdf,
    "docx": read_docx,
}
_SWELLING = ("pdf", "docx")
"""What a library holds in memory as a whole, however well it was packed."""

_MAGIC = {"pdf": b"%PDF", "docx": b"PK\x03\x04", "xlsx": b"PK\x03\x04"}


def kind_of_name(name: str) -> str:
    """What a file's name says it is, or nothing; `.gz` may follow the ending of a text file."""
    path = PurePath(name.lower())
    if path.suffix == ".gz":
        inner = FORMATS.get(PurePath(path.stem).suffix, "")
        return inner if inner in TEXT_KINDS else ""
    return FORMATS.get(path.suffix, "")


def file_format(path: Path) -> str:
    """A value of FORMATS, from the name and the first bytes; of a gzip, what is inside.

    Raises DataError for an empty file and for a file of another kind.
    """
    head = head_of(path)
    if not head.strip(b"\xef\xbb\xbf \t\r\n"):
        raise DataError(_("{name} is empty.", name=path.name), _("Choose a file with rows in it."))
    with opened(path) as file:
        packed = file.peek(2)[:2] == GZIP
    if head.startswith((b"PAR1", b"ARROW1")) and not packed:
        return "parquet" if head.startswith(b"PAR1") else "arrow"
    named = _named(path, packed)
    if named in _MAGIC and head.startswith(_MAGIC[named]):
        return named
    if named == "arrow":
        return named
    foreign = next((what for magic, what in _FOREIGN.items() if head.startswith(magic)), "")
    wrong = _("{name} is {what}.", name=path.name, what=foreign) if foreign else ""
    # A stray zero byte spoils one row; a file of another kind is full of them.
    many_zeros = head.count(b"\x00") * 10 > len(head)
    if not wrong and named in TEXT_KINDS and many_zeros:
        wide = detect_encoding(head).startswith(("utf-16", "utf-32"))
        wrong = "" if wide else _("{name} is not a text file.", name=path.name)
    if not wrong and named in _MAGIC:
        wrong = _("{name} is no {kind}.", name=path.name, kind=named.upper())
    if wrong:
        raise DataError(wrong, _("Bring {kinds}.", kinds=KINDS))
    return _json_kind(head, named) if named in ("json", "jsonl") else named


def _named(path: Path, packed: bool) -> str:
    named = kind_of_name(path.name)
    if not named and packed:
        raise DataError(
            _("{name} is a gzip archive, and its name does not say of what.", name=path.name),
            _("Name it after what is inside, such as rows.jsonl.gz. A .tar.gz: unpack it first."),
        )
    what, other = SAVE_AS.get(path.suffix.lower(), ("", ""))
    if what:
        raise DataError(
            _("{name} is {what}, which is not read.", name=path.name, what=what),
            _("Save it as {other}.", other=other),
        )
    if not named:
        raise DataError(
            _("{name} has an ending that is not known.", name=path.name),
            _("Bring {kinds}.", kinds=KINDS),
        )
    return named


def file_encoding(path: Path, kind: str) -> str:
    """The encoding of a text file as Python calls it; nothing for other kinds."""
    if kind not in TEXT_KINDS:
        return ""
    with opened_text(path) as source:
        return source.encoding


_TURNS_ON_A_LINE = re.compile(r'\[ *\{ *"(?:role|from|content|value)"')


def _json_kind(head: bytes, named: str) -> str:
    """Tells lines from one document, whatever the file's name says."""
    text = head.decode(detect_encoding(head), errors="replace").lstrip()
    first, _end, rest = text.partition("\n")
    if named == "jsonl" and _TURNS_ON_A_LINE.match(first):
        return named  # a conversation on each line, and not a document with one
    try:
        value = orjson.loads(first)
    except ValueError:
        goes_on = first.strip() in ("[", "{", "[{") or first.rstrip().endswith(",")
        one_line = text.startswith("[") and not rest
        return "json" if goes_on or one_line or named == "json" else "jsonl"
    if rest.strip():
        return "jsonl"
    return "json" if isinstance(value, list) else named


def no_readable_row(path: Path, broken: Record | None) -> DataError:
    """The error for a file without one row, with the first problem in it."""
    told = _("{name} has no row that can be read.", name=path.name)
    if broken:
        told = _(
            "{name} has no row that can be read (line {line}: {problem}).",
            name=path.name,
            line=broken.line,
            problem=broken.problem,
        )
    return DataError(told, _("Choose a file with rows in it, or mend this one."))


def read_records(path: Path, format_name: str | None = None) -> Iterator[Record]:
    """Every record of the file, in order. Memory does not grow with the file's length, but for
    a JSON file that is one object, XLSX, PDF and DOCX."""
    kind = format_name or file_format(path)
    if kind in _TABLE_READERS:
        records = _TABLE_READERS[kind](path)
        yield from within_memory(path, records) if kind in _SWELLING else records
        return
    with opened_text(path) as source:
        records = _text_records(source, kind)
        yield from _until_torn(records, source, kind) if source.packed else records


def _text_records(source: TextSource, kind: str) -> Iterator[Record]:
    if kind == "jsonl":
        return json_lines(source)
    if kind == "json":
        return json_document(source)
    if kind in ("txt", "md"):
        return read_text(source, markdown=kind == "md")
    return csv_records(source, "\t" if kind == "tsv" else None)


def _until_torn(records: Iterator[Record], source: TextSource, kind: str) -> Iterator[Record]:
    """The records of a gzip; one that is cut off or damaged ends with a record that says so.

    Raises DataError when it is damaged and nothing in it could be read.
    """
    held: Record | None = None
    readable = False
    try:
        for record in records:
            if held:
                yield held
            readable = readable or record.row is not None
            held = record
    except DataError as error:
        # A JSON document that stops in the middle; its rows before that are good.
        if not source.torn:
            raise
        if held is None:
            raise torn_archive(source.path, source.torn) from error
    if not source.torn:
        if held:
            yield held
        return
    # What stands last may be half of itself, but for JSON that could be read.
    half = not source.ends_line and held is not None
    whole = held is not None and held.row is not None and kind in ("json", "jsonl")
    if held and (whole or not half):
        yield held
        half = False
    elif held and held.row is not None:
        readable = held.line > 1
    if not readable:
        raise torn_archive(source.path, source.torn)
    line = (held.line if half else held.line + 1) if held else 1
    yield Record(
        line, None, _("the gzip archive is damaged here: {reason}", reason=source.torn), 1.0
    )
