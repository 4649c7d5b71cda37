"""Tables and documents of every kind that people bring: each row and page is read or counted."""

from __future__ import annotations

import datetime
import decimal
import gzip
import io
import json
from pathlib import Path
from typing import Any

import docx
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pypdf
import pytest
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from core.data.read.files import file_encoding, file_format, read_records
from core.errors import DataError


def rows_of(path: Path) -> list[Any]:
    return [record.row for record in read_records(path)]


def problems_of(path: Path) -> dict[int, str]:
    return {record.line: record.problem for record in read_records(path) if record.row is None}


# Parquet and Arrow

DAY = datetime.date(2026, 1, 2)
MIXED = pa.table(
    {
        "messages": [[{"role": "user", "content": "hi"}], None],
        "day": [DAY, None],
        "price": pa.array([decimal.Decimal("1.50"), None], pa.decimal128(5, 2)),
        "raw": [b"words", b"\xff\xfe\x00"],
        "when": [datetime.datetime(2026, 1, 2, 3, 4), None],
        "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
        "inner": [{"days": [DAY]}, None],
        "n": [1, None],
    }
)
PLAIN = [
    {
        "messages": [{"role": "user", "content": "hi"}],
        "day": "2026-01-02",
        "price": "1.50",
        "raw": "words",
        "when": "2026-01-02 03:04:00",
        "map": {"a": 1},
        "inner": {"days": ["2026-01-02"]},
        "n": 1,
    },
    {**dict.fromkeys(MIXED.column_names), "raw": "(3 bytes)"},
]


def arrow_file(table: pa.Table, *, stream: bool, batch: int = 2) -> bytes:
    buffer = io.BytesIO()
    opened = pa.ipc.new_stream if stream else pa.ipc.new_file
    with opened(buffer, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_values_of_every_type_become_those_that_json_knows(tmp_path: Path, kind: str) -> None:
    """Nested types, dates, decimals and bytes are common in tables of the Hub."""
    path = tmp_path / ("t.parquet" if kind == "parquet" else "t.arrow")
    if kind == "parquet":
        pq.write_table(MIXED, path)
    else:
        path.write_bytes(arrow_file(MIXED, stream=kind == "stream"))
    assert rows_of(path) == PLAIN
    assert json.loads(json.dumps(rows_of(path))) == PLAIN


@pytest.mark.parametrize("stream", [False, True])
def test_a_large_arrow_file_comes_in_order(tmp_path: Path, stream: bool) -> None:
    table = pa.table({"n": range(5000)})
    path = tmp_path / "t.feather"
    path.write_bytes(arrow_file(table, stream=stream, batch=1700))
    found = list(read_records(path))
    assert [record.row for record in found] == table.to_pylist()
    assert found[-1].line == 5000 and found[-1].done == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("content", [b"ARROW1 and then nothing", b"\xff\xff\xff\xff junk", b"no"])
def test_a_broken_arrow_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.arrow"
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as Arrow"):
        rows_of(path)


def test_a_torn_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(MIXED, path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        rows_of(path)


# XLSX


def workbook(path: Path, sheets: dict[str, list[list[Any]]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_a_sheet_is_read_with_its_header(tmp_path: Path) -> None:
    rows = [["q", "a", "n"], ["x", "ü", 3], [], ["y", None, 1.5], ["z", DAY, True]]
    path = workbook(tmp_path / "t.xlsx", {"one": rows, "empty": []})
    assert [(record.line, record.row) for record in read_records(path)] == [
        (2, {"q": "x", "a": "ü", "n": 3}),
        (4, {"q": "y", "a": "", "n": 1.5}),
        (5, {"q": "z", "a": "2026-01-02", "n": True}),
    ]


def test_sheets_are_told_apart_and_each_row_has_its_line(tmp_path: Path) -> None:
    sheets = {"first": [["q"], ["a"]], "second": [["q", "b"], ["c", "d"]]}
    path = workbook(tmp_path / "t.xlsx", sheets)
    assert [(record.line, record.row) for record in read_records(path)] == [
        (2, {"q": "a", "sheet": "first"}),
        (4, {"q": "c", "b": "d", "sheet": "second"}),
    ]


def test_a_sheet_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    path = workbook(tmp_path / "t.xlsx", {"one": [["q", "q"], [1, 2]]})
    with pytest.raises(DataError, match="t.xlsx, one, has the column q more than once"):
        rows_of(path)


# Documents


def pdf(path: Path, pages: list[str]) -> Path:
    writer = pypdf.PdfWriter()
    for text in pages:
        page = writer.add_blank_page(300, 300)
        font = DictionaryObject(
            {
                NameObject("/Type"): NameObject("/Font"),
                NameObject("/Subtype"): NameObject("/Type1"),
                NameObject("/BaseFont"): NameObject("/Helvetica"),
            }
        )
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
        )
        content = DecodedStreamObject()
        if text:
            content.set_data(f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET".encode())
        page[NameObject("/Contents")] = writer._add_object(content)
    writer.write(path)
    return path


def test_each_page_of_a_pdf_is_a_row_and_a_scan_is_counted(tmp_path: Path) -> None:
    path = pdf(tmp_path / "book.pdf", ["page one", "", "page three"])
    assert rows_of(path) == [
        {"text": "page one", "file": "book.pdf", "page": 1},
        None,
        {"text": "page three", "file": "book.pdf", "page": 3},
    ]
    assert problems_of(path) == {2: "page 2 has no text (is it a scan?)"}


def test_a_locked_or_broken_pdf_says_so(tmp_path: Path) -> None:
    writer = pypdf.PdfWriter(pdf(tmp_path / "book.pdf", ["secret"]))
    writer.encrypt("word", algorithm="RC4-128")
    writer.write(tmp_path / "locked.pdf")
    with pytest.raises(DataError, match="password"):
        rows_of(tmp_path / "locked.pdf")
    (tmp_path / "torn.pdf").write_bytes(b"%PDF-1.7 and then nothing")
    with pytest.raises(DataError, match="cannot be read as PDF"):
        rows_of(tmp_path / "torn.pdf")


def test_a_docx_is_one_row_with_its_tables(tmp_path: Path) -> None:
    document = docx.Document()
    document.add_heading("The title", 1)
    document.add_paragraph("First words.")
    table = document.add_table(2, 2)
    for cell, text in zip((c for row in table.rows for c in row.cells), "abcd", strict=True):
        cell.text = text
    document.add_paragraph("Last words.")
    document.save(str(tmp_path / "t.docx"))
    assert rows_of(tmp_path / "t.docx") == [
        {
            "text": "The title\nFirst words.\na | b\nc | d\nLast words.",
            "file": "t.docx",
            "heading": "The title",
        }
    ]


def test_an_office_file_that_is_none_is_refused(tmp_path: Path) -> None:
    other = workbook(tmp_path / "t.xlsx", {"one": [["q"], ["a"]]}).rename(tmp_path / "t.docx")
    with pytest.raises(DataError, match="cannot be read as DOCX"):
        rows_of(other)
    (tmp_path / "words.docx").write_text("only words")
    with pytest.raises(DataError, match="is no DOCX"):
        rows_of(tmp_path / "words.docx")


def test_text_and_markdown_are_one_row_each(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes("line 1\r\nline ü\r\n".encode())
    (tmp_path / "t.md").write_text("intro\n\n## The part ##\n\nwords\n")
    assert rows_of(tmp_path / "t.txt") == [{"text": "line 1\nline ü\n", "file": "t.txt"}]
    found = rows_of(tmp_path / "t.md")[0]
    assert found["heading"] == "The part" and found["text"].startswith("intro")


def test_a_long_text_comes_in_parts_and_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A corpus in one file of gigabytes must not be held in memory."""
    monkeypatch.setattr("core.data.read.documents.PART_CHARS", 1000)
    text = "".join(f"line {n}\n" for n in range(500))
    (tmp_path / "t.txt").write_text(text)
    found = rows_of(tmp_path / "t.txt")
    assert "".join(row["text"] for row in found) == text
    assert [row["part"] for row in found] == list(range(1, len(found) + 1)) and len(found) > 3
    assert all(row["text"].endswith("\n") for row in found)


# gzip


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("t.jsonl.gz", '{"q": "ü"}\n{"q": "b"}\n', [{"q": "ü"}, {"q": "b"}]),
        ("t.json.gz", '[{"q": "ü"}, {"q": "b"}]', [{"q": "ü"}, {"q": "b"}]),
        ("t.csv.gz", "q\nü\nb\n", [{"q": "ü"}, {"q": "b"}]),
        ("t.tsv.gz", "q\ta\nü\tb\n", [{"q": "ü", "a": "b"}]),
        ("t.txt.gz", "words", [{"text": "words", "file": "t.txt"}]),
        # Some programs pack without saying so in the name.
        ("t.jsonl", '{"q": "ü"}\n', [{"q": "ü"}]),
    ],
)
def test_packed_text_is_read(tmp_path: Path, name: str, content: str, expected: list[Any]) -> None:
    half = len(content.encode()) // 2
    parts = content.encode()[:half], content.encode()[half:]
    # A gzip may be several, one after the other.
    (tmp_path / name).write_bytes(b"".join(gzip.compress(part) for part in parts))
    assert rows_of(tmp_path / name) == expected


def lines(count: int) -> bytes:
    return "".join(f'{{"q": "row {n * n * 7919}"}}\n' for n in range(count)).encode()


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_a_truncated_gzip_keeps_the_rows_before_the_cut(tmp_path: Path, kind: str) -> None:
    """A download that broke off is worth what came of it, and must not pass for all of it."""
    expected = [json.loads(line) for line in lines(20_000).splitlines()]
    content = {
        "jsonl": lines(20_000),
        "json": json.dumps(expected).encode(),
        "csv": b"q\n" + b"".join(f"{row['q']}\n".encode() for row in expected),
    }[kind]
    path = tmp_path / f"t.{kind}.gz"
    packed = gzip.compress(content)
    path.write_bytes(packed[: len(packed) // 2])
    found = list(read_records(path))
    good = [record.row for record in found if record.row]
    assert 5_000 < len(good) < 20_000 and good == expected[: len(good)]
    assert len(found) == len(good) + 1
    assert "cut off before its end" in found[-1].problem
    assert found[-1].line == found[-2].line + 1


def test_a_gzip_with_damaged_bytes_says_so(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl.gz"
    packed = bytearray(gzip.compress(lines(20_000)))
    packed[len(packed) - 6] ^= 0xFF
    path.write_bytes(packed)
    found = list(read_records(path))
    assert len(found) == 20_001 and "CRC check failed" in found[-1].problem


@pytest.mark.parametrize("size", [5, 12, 15])
def test_a_gzip_of_which_nothing_can_be_read_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress(lines(1))[:size])
    with pytest.raises(DataError, match="damaged gzip"):
        list(read_records(path))


def test_a_gzip_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress((b'{"q": "' + b"x" * 10_000 + b'"}\n') * 10_000))
    with pytest.raises(DataError, match="gzip bomb"):
        list(read_records(path))


def test_a_gzip_says_what_is_inside(tmp_path: Path) -> None:
    (tmp_path / "t.tar.gz").write_bytes(gzip.compress(b"rows"))
    with pytest.raises(DataError, match="its name does not say of what") as caught:
        file_format(tmp_path / "t.tar.gz")
    assert "rows.jsonl.gz" in caught.value.hint


# Encodings

GERMAN = "Wie heißt die größte Stadt der Schweiz? Zürich, natürlich: schön und müßig."
RUSSIAN = "Как называется столица России? Москва, большой и красивый город."
JAPANESE = "日本の首都はどこですか。東京です。とても大きな都市です。"


@pytest.mark.parametrize(
    ("text", "encoding", "told"),
    [
        (GERMAN, "utf-8", "utf-8"),
        (GERMAN, "utf-8-sig", "utf-8-sig"),
        (GERMAN, "cp1252", "cp1252"),
        (GERMAN, "utf-16", "utf-16"),
        (GERMAN, "utf-16-le", "utf-16-le"),
        (GERMAN, "utf-16-be", "utf-16-be"),
        (GERMAN, "utf-32", "utf-32"),
        (RUSSIAN, "cp1251", "cp1251"),
        (RUSSIAN, "koi8_r", "koi8_r"),
        (JAPANESE, "cp932", "cp932"),
        (JAPANESE, "gb18030", "gb18030"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "jsonl", "txt"])
def test_the_encoding_is_found_and_told(
    tmp_path: Path, text: str, encoding: str, told: str, kind: str
) -> None:
    """What a spreadsheet saved must not come as question marks."""
    content = {
        "csv": f"q,a\r\n{text.replace(',', ' ')},x\r\n",
        "jsonl": json.dumps({"q": text}, ensure_ascii=False) + "\n",
        "txt": text,
    }[kind]
    path = tmp_path / f"t.{kind}"
    path.write_bytes(content.encode(encoding))
    row = rows_of(path)[0]
    assert row.get("q", row.get("text")) == (text.replace(",", " ") if kind == "csv" else text)
    assert file_encoding(path, kind) == told


def test_a_few_wrong_bytes_do_not_make_another_encoding(tmp_path: Path) -> None:
    """A row that was cut in the middle of a letter costs itself, not the letters of all others."""
    path = tmp_path / "t.jsonl"
    good = json.dumps({"q": GERMAN}, ensure_ascii=False).encode()
    cut = good[: good.index("ß".encode()) + 1] + b'"}'
    path.write_bytes(b"\n".join([good, cut, b'{"q": "\xff\xfe\xfd\xfc"}', good]))
    assert [bool(row) for row in rows_of(path)] == [True, False, False, True]
    assert "not valid UTF-8 (byte 0xff)" in problems_of(path)[3]
    assert rows_of(path)[3] == {"q": GERMAN}


def test_half_a_character_of_utf_16_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes('{"q": "a"}\n{"q": "b"}'.encode("utf-16") + b"\x00")
    assert rows_of(path) == [{"q": "a"}, None]
