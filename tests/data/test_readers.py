"""Files as people have them: each record is read, or counted with its line and reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.data.read.files import file_format, read_records
from core.data.read.row import MAX_ROW_CHARS, Record
from core.errors import DataError


def records(path: Path, content: str | bytes) -> list[Record]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_records(path))


def rows(path: Path, content: str | bytes) -> list[Any]:
    return [record.row for record in records(path, content)]


ONE, TWO = {"q": "a"}, {"q": "ü"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("array.json", '[{"q": "a"},\n {"q": "ü"}]'),
        ("one_line.json", '[{"q":"a"},{"q":"ü"}]'),
        ("spaced.json", ' \n[ {"q": "a"} , {"q": "\\u00fc"} ] \n'),
        ("inside.json", '{"version": 1, "data": [{"q": "a"}, {"q": "ü"}]}'),
        ("columns.json", '{"q": ["a", "ü"]}'),
        ("pandas.json", '{"q": {"0": "a", "1": "ü"}}'),
        ("lines.json", '{"q": "a"}\n{"q": "ü"}\n'),
        ("pretty.json", '{\n "q": "a"\n}\n{\n "q": "ü"\n}\n'),
        ("pretty.jsonl", '{\n "q": "a"\n}\n{\n "q": "ü"\n}\n'),
        ("array.jsonl", '[\n{"q": "a"},\n{"q": "ü"}\n]'),
        ("lines.jsonl", '{"q": "a"}\n\n{"q": "ü"}'),
        ("windows.jsonl", '{"q": "a"}\r\n{"q": "ü"}\r\n'),
        ("bom.jsonl", '\ufeff{"q": "a"}\n{"q": "ü"}\n'),
        ("bom.json", '\ufeff[{"q": "a"}, {"q": "ü"}]'),
        ("utf16.jsonl", '{"q": "a"}\n{"q": "ü"}\n'.encode("utf-16")),
        ("comma.csv", "q\na\nü\n"),
        ("windows.csv", "q\r\na\r\nü\r\n"),
        ("old_mac.csv", "q\ra\rü\r"),
        ("bom.csv", "\ufeffq\na\nü\n"),
        ("blank.csv", "\nq\n\na\nü\n\n"),
    ],
)
def test_every_way_to_write_two_rows_is_read(
    tmp_path: Path, name: str, content: str | bytes
) -> None:
    assert rows(tmp_path / name, content) == [ONE, TWO]


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(tmp_path: Path, sign: str) -> None:
    content = f'q{sign}a\n"x{sign}y"{sign}"line 1\nline 2"\n'
    assert rows(tmp_path / "t.csv", content) == [{"q": f"x{sign}y", "a": "line 1\nline 2"}]


def test_tsv_keeps_commas(tmp_path: Path) -> None:
    assert rows(tmp_path / "t.tsv", "q\ta\n1,2\t3,4\n") == [{"q": "1,2", "a": "3,4"}]


def test_broken_json_lines_cost_only_themselves(tmp_path: Path) -> None:
    found = records(
        tmp_path / "t.jsonl",
        b'{"q": "a"}\n{"q": \n[1]\n\n{"q": "\xff"}\n{"q": "\\ud800"}\n"words"\n17\n{"q": "z"}',
    )
    good = [(record.line, record.row) for record in found if record.row]
    assert good == [(1, {"q": "a"}), (7, {"text": "words"}), (9, {"q": "z"})]
    problems = {record.line: record.problem for record in found if not record.row}
    assert list(problems) == [2, 3, 5, 6, 8]
    assert problems[2].startswith("not JSON")
    assert "a list" in problems[3]
    assert "not valid UTF-8 (byte 0xff)" in problems[5]
    assert "half a character" in problems[6]
    assert "a number" in problems[8]


def test_a_line_of_50_mb_is_counted_and_the_next_one_read(tmp_path: Path) -> None:
    """Nothing that long is learned from; it must not cost the rest of the file."""
    long = '{"q": "' + "x" * 50_000_000 + '"}'
    found = records(tmp_path / "t.jsonl", f'{{"q": "a"}}\n{long}\n{{"q": "b"}}\n')
    assert [(record.line, bool(record.row)) for record in found] == [
        (1, True),
        (2, False),
        (3, True),
    ]
    assert "longer than" in found[1].problem


def test_deep_nesting_is_a_problem_of_its_row(tmp_path: Path) -> None:
    deep = '{"q": ' + "[" * 100_000 + "]" * 100_000 + "}"
    found = records(tmp_path / "t.jsonl", f'{{"q": "a"}}\n{deep}\n{{"q": "b"}}\n')
    assert [bool(record.row) for record in found] == [True, False, True]


def test_ragged_csv_rows_are_counted_with_their_lines(tmp_path: Path) -> None:
    found = records(tmp_path / "t.csv", 'q,a\n1,2\n1\n"x\ny",3\n1,2,3\n4,5\n')
    assert [record.line for record in found] == [2, 3, 4, 6, 7]
    assert [record.problem for record in found if not record.row] == [
        "1 values for 2 columns",
        "3 values for 2 columns",
    ]


def test_a_quote_that_is_never_closed_says_which_lines_are_lost(tmp_path: Path) -> None:
    found = records(tmp_path / "t.csv", 'q,a\n1,2\n"open,3\n4,5\n6,7\n')
    assert found[0].row == {"q": "1", "a": "2"}
    assert found[1].line == 3
    assert "never closed; lines 3 to 5" in found[1].problem


def test_csv_of_another_encoding_says_so(tmp_path: Path) -> None:
    found = records(tmp_path / "t.csv", b"q,a\nx,y\n" + "ü,z\n".encode("cp1252"))
    assert found[0].row == {"q": "x", "a": "y"}
    assert "not valid UTF-8 (byte 0xfc)" in found[1].problem


def test_parquet_with_nested_types_is_read(tmp_path: Path) -> None:
    turn = {"role": "user", "content": "hi"}
    table = pa.Table.from_pylist([{"messages": [turn], "n": 1}, {"messages": None, "n": None}])
    pq.write_table(table, tmp_path / "t.parquet")
    found = list(read_records(tmp_path / "t.parquet"))
    assert [record.row for record in found] == table.to_pylist()
    assert [record.line for record in found] == [1, 2]


def test_parquet_is_known_by_its_content(tmp_path: Path) -> None:
    """A browser may give an upload any name."""
    pq.write_table(pa.table({"q": ["a"]}), tmp_path / "upload")
    assert rows_of(tmp_path / "upload") == [{"q": "a"}]


def rows_of(path: Path) -> list[Any]:
    return [record.row for record in read_records(path)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.json", b"", "is empty"),
        ("blank.csv", b" \r\n\r\n", "is empty"),
        ("bom.jsonl", b"\xef\xbb\xbf", "is empty"),
        ("book.xlsx", b"PK\x03\x04....", "is damaged"),
        ("photo.json", b"\x89PNG\r\n\x1a\n" + bytes(99), "a picture"),
        ("paper.jsonl", b"%PDF-1.7 ...", "a PDF"),
        ("packed.jsonl", b"\x1f\x8b\x08\x00", "gzip"),
        ("program.csv", b"\x7fELF" + bytes(500), "not a text file"),
        ("letter.odt", b"PK\x03\x04....", "an OpenDocument text, which is not read"),
        ("old.xls", b"\xd0\xcf\x11\xe0", "a table of an old Excel"),
        ("notes.docs", b"hello", "ending that is not known"),
        ("torn.parquet", b"PAR1 and then nothing", "cannot be read as Parquet"),
        ("torn.json", b'[{"q": "a"},\n{"q": "b"', "line 2"),
        ("comma.json", b'[{"q": "a"}\n{"q": "b"}]', "line 2: a comma"),
        ("more.json", b'[{"q": "a"}] tail', "something follows"),
        ("word.json", b"[{}, hello]", "line 1"),
        ("two.json", b'{"train": [{"q": "a"}], "test": [{"q": "b"}]}', "train, test"),
        ("twice.csv", b"q,q\n1,2\n", "the column q more than once"),
        ("latin.csv", "größe,a\n1,2\n".encode("latin-1"), "first line"),
        ("quote.csv", b'"q"x,a\n1,2\n', "first line"),
        ("deep.json", b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        list(read_records(path))
    assert caught.value.hint


def test_a_csv_line_without_end_costs_only_itself(tmp_path: Path) -> None:
    long = "x" * (MAX_ROW_CHARS + 1)
    found = records(tmp_path / "t.csv", f"q,a\n1,2\n{long}\n3,4\n")
    assert [(record.line, record.row and record.row["q"]) for record in found] == [
        (2, "1"),
        (3, None),
        (4, "3"),
    ]
    assert "longer than" in found[1].problem


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        file_format(tmp_path / "none.json")


def test_an_array_larger_than_a_piece_is_read_to_its_end(tmp_path: Path) -> None:
    """Arrays are read in pieces of a megabyte: values on a border must come out whole."""
    expected = [{"n": n, "q": "wörd " * (n % 400)} for n in range(3000)]
    path = tmp_path / "t.json"
    path.write_text(json.dumps(expected, indent=1, ensure_ascii=False), encoding="utf-8")
    assert path.stat().st_size > 3_000_000
    assert rows_of(path) == expected


def test_progress_comes_to_its_end(tmp_path: Path) -> None:
    content = "".join(f'{{"q": "{n}"}}\n' for n in range(50_000))
    done = [record.done for record in records(tmp_path / "t.jsonl", content)]
    assert done == sorted(done) and done[0] < 0.1 and done[-1] == 1.0
