"""Whatever a file holds: each row is read as it was written or counted with its reason, and what
cannot be read at all is a DataError."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import docx
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pypdf
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.data.read.files import read_records
from core.data.read.row import Record
from core.errors import DataError

GOOD = {"q": "good question", "a": "good answer"}

texts = st.text(st.characters(codec="utf-8"), max_size=8)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
rows = st.dictionaries(texts, values, max_size=4)


def read(name: str, content: bytes) -> list[Record]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        return list(read_records(path))


def as_lines(body: list[dict[str, Any]], ascii_only: bool = False) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in body).encode()


@settings(max_examples=50, deadline=None)
@given(body=st.lists(rows, max_size=12), ascii_only=st.booleans())
@example(body=[{"id": 18446744073709551616123}], ascii_only=False)
@example(body=[{"id": -9223372036854775809}], ascii_only=False)
@example(body=[{"x": 1.7976931348623157e308, "y": -0.0, "z": 5e-324}], ascii_only=False)
def test_json_rows_come_back_as_they_were(body: list[dict[str, Any]], ascii_only: bool) -> None:
    """Also numbers longer than a machine's: an id that is rounded is another id."""
    body = [GOOD, *body]
    found = [record.row for record in read("t.jsonl", as_lines(body, ascii_only))]
    assert json.dumps(found) == json.dumps(body)
    whole = json.dumps(body, ensure_ascii=ascii_only).encode()
    assert json.dumps([record.row for record in read("t.json", whole)]) == json.dumps(body)
    inside = json.dumps({"info": {"n": 1}, "result": {"rows": body}}).encode()
    assert json.dumps([record.row for record in read("t.json", inside)]) == json.dumps(body)


broken = st.binary(max_size=12).map(lambda raw: raw.replace(b"\n", b"").replace(b"\x00", b""))
lines = st.one_of(
    rows.map(lambda row: json.dumps(row).encode()),
    values.map(lambda value: json.dumps(value).encode()),
    broken,
    st.sampled_from([b'{"q": "torn', b"", b" \r", b'{"q": "\\ud800"}', b"[" * 2000]),
)


@settings(max_examples=80, deadline=None)
@given(body=st.lists(lines, max_size=12), packed=st.booleans())
def test_each_line_is_a_row_or_counted(body: list[bytes], packed: bool) -> None:
    body = [json.dumps(GOOD).encode(), *body]
    content = b"\n".join(body)
    found = read("t.jsonl.gz", gzip.compress(content)) if packed else read("t.jsonl", content)
    expected = [n for n, line in enumerate(body, 1) if line.strip(b" \t\r\n")]
    assert [record.line for record in found] == expected
    assert all((record.row is None) == bool(record.problem) for record in found)
    json.dumps([record.row for record in found], ensure_ascii=False).encode()


cells = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)


@settings(max_examples=80, deadline=None)
@given(
    body=st.lists(st.lists(cells, min_size=1, max_size=4), max_size=12),
    sign=st.sampled_from(",;\t|"),
    width=st.integers(2, 3),
)
def test_each_row_of_a_table_is_read_or_counted(
    body: list[list[str]], sign: str, width: int
) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=csv.QUOTE_ALL, delimiter=sign)
    header = ["q", "a", "b"][:width]
    writer.writerows([header, *body])
    found = read("t.csv", file.getvalue().encode())
    assert len(found) == len(body)
    for record, values in zip(found, body, strict=True):
        whole = len(values) == width
        assert record.row == (dict(zip(header, values, strict=True)) if whole else None)
        assert whole or record.problem == f"{len(values)} values for {width} columns"


plain_words = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=5)
sentences = st.tuples(plain_words, plain_words).map(", ".join).filter(lambda s: '"' not in s)


@settings(max_examples=100, deadline=None)
@given(body=st.lists(sentences, min_size=1, max_size=12))
@example(body=["Hello, world", "one; two | three"])
def test_a_table_of_one_column_keeps_its_commas(body: list[str]) -> None:
    """Nothing is separated where the header names one column."""
    found = read("t.csv", ("text\n" + "\n".join(body) + "\n").encode())
    assert [record.row for record in found] == [{"text": text} for text in body]


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0.0, 1.0), count=st.integers(1, 400))
def test_a_packed_file_cut_anywhere_loses_nothing_unsaid(share: float, count: int) -> None:
    body = [{"q": f"row {n * n * 7919}"} for n in range(count)]
    packed = gzip.compress(as_lines(body))
    cut = packed[: max(int(len(packed) * share), 3)]
    try:
        found = read("t.jsonl.gz", cut)
    except DataError as error:
        assert "gzip" in error.message
        return
    good = [record.row for record in found if record.row]
    assert good == body[: len(good)]
    assert len(cut) == len(packed) or "cut off" in found[-1].problem


@lru_cache
def valid(kind: str) -> bytes:
    """A file of each kind with some rows in it."""
    table = pa.table({"text": ["one", "two"], "n": [1, None], "turns": [[{"role": "user"}], None]})
    buffer = io.BytesIO()
    if kind == "parquet":
        pq.write_table(table, buffer)
    elif kind == "arrow":
        with pa.ipc.new_file(buffer, table.schema) as writer:
            writer.write_table(table)
    elif kind == "ipc":
        with pa.ipc.new_stream(buffer, table.schema) as writer:
            writer.write_table(table)
    elif kind == "xlsx":
        book = openpyxl.Workbook()
        book.active.append(["text", "n"])
        book.active.append(["one", 1])
        book.save(buffer)
    elif kind == "docx":
        document = docx.Document()
        document.add_paragraph("words")
        document.save(buffer)
    elif kind == "pdf":
        writer = pypdf.PdfWriter()
        writer.add_blank_page(100, 100)
        writer.write(buffer)
    elif kind == "json":
        return json.dumps([GOOD, {"text": "ü"}]).encode()
    else:
        return b"text,n\none,1\n"
    return buffer.getvalue()


KINDS = "parquet arrow ipc xlsx docx pdf json jsonl csv tsv txt md json.gz csv.gz".split()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=4),
    length=st.floats(0.2, 1.0),
)
def test_a_damaged_file_is_never_a_crash(
    kind: str, changes: list[tuple[float, bytes]], length: float
) -> None:
    """An import that ends in a traceback tells a person nothing."""
    content = bytearray(valid(kind.removesuffix(".gz")))
    for place, change in changes:
        at = int(place * (len(content) - 1))
        content[at : at + len(change)] = change
    content = content[: int(len(content) * length)]
    packed = gzip.compress(content) if kind.endswith(".gz") else bytes(content)
    try:
        found = read(f"t.{kind}", packed)
    except DataError as error:
        assert error.message and error.hint
        return
    assert all((record.row is None) == bool(record.problem) for record in found)


@pytest.mark.parametrize("kind", ["arrow", "ipc"])
def test_no_single_byte_of_an_arrow_file_ends_the_process(kind: str) -> None:
    """Arrow itself trusts the lengths and the offsets that stand in the file."""
    content = valid(kind)
    refused = 0
    for place in range(len(content)):
        for change in (b"\x00", b"\x7f", b"\xff"):
            damaged = content[:place] + change + content[place + 1 :]
            try:
                read(f"t.{kind}", damaged)
            except DataError as error:
                assert error.message and error.hint
                refused += 1
    assert refused
