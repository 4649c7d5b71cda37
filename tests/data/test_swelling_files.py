"""Small files that would fill the memory: each is refused in words, and what is large but honest is
read."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import docx
import openpyxl
import pypdf
import pytest
from pypdf.generic import DictionaryObject, NameObject, StreamObject

from core.data.read import sheet_extent
from core.data.read.documents import read_docx, read_pdf
from core.data.read.files import read_records
from core.data.read.memory import within_memory
from core.data.read.row import Record
from core.errors import DataError

MB = 2**20


def workbook(path: Path, cells: dict[str, str]) -> Path:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for place, value in cells.items():
        sheet[place] = value
    book.save(path)
    return path


def with_sheet(path: Path, data: str) -> Path:
    """The workbook with other rows, as no library would write them."""
    parts = {}
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    head = '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
    text = f"{head}<sheetData>{data}</sheetData></worksheet>"
    parts["xl/worksheets/sheet1.xml"] = text.encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def rows_of(path: Path) -> list[object]:
    return [record.row for record in read_records(path)]


def text_cell(place: str, value: str) -> str:
    said = f' r="{place}"' if place else ""
    return f'<c{said} t="inlineStr"><is><t>{value}</t></is></c>'


def test_two_cells_in_opposite_corners_are_refused(tmp_path: Path) -> None:
    """A reader makes room for all places between them: 17 thousand million."""
    path = workbook(tmp_path / "far.xlsx", {"A1": "q", "XFD1048576": "far"})
    with pytest.raises(DataError, match="row 1 to row 1,048,576 over 16,384 columns") as caught:
        rows_of(path)
    assert "Delete cells that stand far from the table" in caught.value.hint


def test_cells_that_do_not_say_where_they_are_count_too(tmp_path: Path) -> None:
    """Some programs leave the places out; a bomb may do so to hide how far it reaches."""
    path = workbook(tmp_path / "t.xlsx", {"A1": "q"})
    far = f'<row r="1048576">{text_cell("", "x") * 40}</row>'
    with pytest.raises(DataError, match="over 40 columns"):
        rows_of(with_sheet(path, f'<row r="1">{text_cell("", "q")}</row>{far}'))
    near = "".join(f"<row>{text_cell('', word)}</row>" for word in ("q", "a", "b"))
    assert rows_of(with_sheet(path, near)) == [{"q": "a"}, {"q": "b"}]


def test_empty_cells_far_away_cost_nothing(tmp_path: Path) -> None:
    """A sheet that was once formatted to its end is an ordinary sheet."""
    path = workbook(tmp_path / "t.xlsx", {"A1": "q"})
    table = "".join(
        f'<row r="{row}">{text_cell(f"A{row}", word)}</row>' for row, word in ((1, "q"), (2, "a"))
    )
    rows = rows_of(with_sheet(path, f'{table}<row r="1048576"><c r="XFD1048576" s="0"/></row>'))
    assert rows == [{"q": "a"}]


def test_a_table_far_down_the_sheet_is_read(tmp_path: Path) -> None:
    path = workbook(tmp_path / "t.xlsx", {"ZZ1000000": "q", "ZZ1000001": "a"})
    assert rows_of(path) == [{"q": "a"}]


def test_the_extent_is_that_of_all_sheets_together(tmp_path: Path) -> None:
    """Each sheet may be within the limit, and all of them stand in memory at once."""
    book = openpyxl.Workbook()
    for name in "abcd":
        sheet = book.create_sheet(name)
        sheet["A1"], sheet["J1000000"] = "q", "x"
    book.save(tmp_path / "t.xlsx")
    assert 10_000_000 < sheet_extent.MOST_PLACES < 40_000_000
    with pytest.raises(DataError, match="spans too many places"):
        rows_of(tmp_path / "t.xlsx")


def hungry(megabytes: int) -> Iterator[Record]:
    yield Record(1, {"text": "first"}, "", 0.5)
    held = bytearray(megabytes * MB)
    yield Record(2, {"text": str(len(held))}, "", 1.0)


def test_a_document_that_swells_is_refused_and_the_next_one_is_read(tmp_path: Path) -> None:
    """Before, it took the memory of the machine, and other programs with it."""
    path = tmp_path / "big.pdf"
    found = within_memory(path, hungry(400), 100 * MB)
    assert next(found).line == 1
    with pytest.raises(DataError, match=r"big.pdf takes more than 0.1 GB of memory to read"):
        next(found)
    assert len(bytearray(400 * MB)) == 400 * MB  # the limit is gone with the document
    assert [record.line for record in within_memory(path, hungry(20), 100 * MB)] == [1, 2]


def test_a_page_that_swells_is_a_row_that_cannot_be_read(tmp_path: Path) -> None:
    """A page of 40 kB may unpack to any size; the other pages are not lost."""
    writer = pypdf.PdfWriter()
    pages = [writer.add_blank_page(200, 200) for _ in range(2)]
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    for page, content in zip(pages, (b" " * 40 * MB, b"BT /F1 9 Tf (words) Tj ET"), strict=True):
        stream = StreamObject()
        stream.set_data(content)
        placed = writer._add_object(stream.flate_encode())
        page[NameObject("/Contents")] = placed
        fonts = DictionaryObject({NameObject("/F1"): font})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    path = tmp_path / "t.pdf"
    writer.write(path)
    first, second = within_memory(path, read_pdf(path), 20 * MB)
    assert first.row is None and first.problem == "page 1 takes too much memory to read"
    assert second.row and second.row["text"] == "words"


def test_entities_of_a_document_are_not_unfolded(tmp_path: Path) -> None:
    """Ten names for ten names for ten names: a thousand million words of nothing."""
    path = tmp_path / "t.docx"
    document = docx.Document()
    document.add_paragraph("PLACE")
    document.save(str(path))
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    lol = "".join(
        f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "ha"}">' for n in range(10)
    ).encode()
    text = parts["word/document.xml"].replace(b"PLACE", b"words &e9;")
    mark = text.index(b"?>") + 2
    text = text[:mark] + b"<!DOCTYPE d [" + lol + b"]>" + text[mark:]
    parts["word/document.xml"] = text
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(DataError, match="cannot be read as DOCX"):
        list(within_memory(path, read_docx(path), 100 * MB))
