"""Documents to records: a row {text, file, ...} for each text file and each page of a PDF."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.data.read.archives import opened_office
from core.data.read.row import Record, invalid_text
from core.data.read.text import TextSource
from core.errors import DataError
from core.language import _

PART_CHARS = 4 * 2**20
"""A longer text file becomes several rows, numbered as `part`, cut at the end of a line."""

_HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t]*#*$", re.MULTILINE)


def read_text(source: TextSource, *, markdown: bool) -> Iterator[Record]:
    """The whole file as one row, with the first heading of a Markdown file as `heading`."""
    name = source.path.name.removesuffix(".gz")
    with source.text() as file:
        part = 0
        ahead = file.read(PART_CHARS)
        while text := ahead:
            text += file.readline(PART_CHARS)
            ahead = file.read(PART_CHARS)
            part += 1
            text = text.replace("\r\n", "\n").replace("\r", "\n")
            bad = invalid_text(text)
            row: dict[str, Any] = {"text": text, "file": name}
            if part > 1 or ahead:
                row["part"] = part
            heading = _HEADING.search(text) if markdown else None
            if heading:
                row["heading"] = heading[1]
            if text.strip():
                yield Record(part, None if bad else row, bad, source.done())


def read_pdf(path: Path) -> Iterator[Record]:
    """A row for each page. A page without text (a scan) is a record with a problem."""
    import pypdf

    try:
        with pypdf.PdfReader(path) as reader:
            if reader.is_encrypted and not reader.decrypt(""):
                raise DataError(
                    _("{name} is locked with a password.", name=path.name),
                    _("Save it without the password."),
                )
            count = max(len(reader.pages), 1)
            for number in range(1, len(reader.pages) + 1):
                text, problem = _page(reader, number)
                row = {"text": text, "file": path.name, "page": number}
                yield Record(number, None if problem else row, problem, number / count)
    except (DataError, MemoryError):
        raise
    # In a damaged file the library fails in many ways, not only its own.
    except Exception as error:
        raise _damaged(path, "PDF", error) from error


def _damaged(path: Path, kind: str, error: Exception) -> DataError:
    return DataError(
        _(
            "{name} cannot be read as {kind}: {error}.",
            name=path.name,
            kind=kind,
            error=str(error).rstrip(".") or type(error).__name__,
        ),
        _("Save it as {kind} again, or bring its text.", kind=kind),
    )


def _page(reader: Any, number: int) -> tuple[str, str]:
    """A page's text, and what is wrong with it."""
    try:
        text = str(reader.pages[number - 1].extract_text())
    except MemoryError:
        return "", _("page {number} takes too much memory to read", number=number)
    # Pages hold anything; whatever goes wrong inside one is told as its problem.
    except Exception as error:
        return "", _(
            "page {number} cannot be read: {kind}: {error}",
            number=number,
            kind=type(error).__name__,
            error=str(error),
        )
    if not text.strip():
        return "", _("page {number} has no text (is it a scan?)", number=number)
    return text, invalid_text(text)


def read_docx(path: Path) -> Iterator[Record]:
    """The whole document as one row: paragraphs a line each, tables a line for each row, and the
    first heading or title as `heading`."""
    import docx
    from docx.table import Table

    with opened_office(path):
        pass  # it is harmless
    try:
        document = docx.Document(str(path))
        lines, heading = [], ""
        for block in document.iter_inner_content():
            if isinstance(block, Table):
                lines += [_table_row(row) for row in block.rows]
                continue
            lines.append(block.text)
            style = (block.style.name or "") if block.style else ""
            if not heading and style.startswith(("Heading", "Title")):
                heading = block.text.strip()
    except MemoryError:
        raise
    # In a damaged file the library fails in many ways, not only its own.
    except Exception as error:
        raise _damaged(path, "DOCX", error) from error
    text = "\n".join(lines).strip()
    if not text:
        raise DataError(
            _("{name} has no text.", name=path.name), _("Choose a document with text in it.")
        )
    row = {"text": text, "file": path.name, **({"heading": heading} if heading else {})}
    yield Record(1, row, "", 1.0)


def _table_row(row: Any) -> str:
    # A merged cell stands in a row once for each column that it covers.
    cells = list({id(cell._tc): cell.text.strip() for cell in row.cells}.values())
    return " | ".join(cells)
