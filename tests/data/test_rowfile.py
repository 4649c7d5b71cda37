"""Rows are found by their place: the wrong one would be shown, measured or written about."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from core.data.rowfile import ROWS_A_GROUP, RowWriter, read_slice, rows_at


def write(path: Path, numbers: Iterable[int]) -> None:
    with RowWriter(path, "text") as writer:
        for number in numbers:
            writer.add({"text": str(number), "meta": {"n": number}})


def numbers_at(path: Path, places: Iterable[int]) -> dict[int, int]:
    return {place: row["meta"]["n"] for place, row in rows_at(path, list(places)).items()}


def test_rows_come_from_their_places(tmp_path: Path) -> None:
    """Of three groups, side by side or apart; none before the first row or behind the last."""
    path, end = tmp_path / "rows.parquet", 2 * ROWS_A_GROUP + 7
    write(path, range(end))
    for places in ([5], [end - 1, 0, 999, 1000, 1002], range(998, 1003), [3, 3, 1], []):
        assert numbers_at(path, places) == {place: place for place in places}
        assert list(rows_at(path, list(places))) == sorted(set(places))
    assert numbers_at(path, [-1, 4, end, end + 5000]) == {4: 4}
    assert [row["text"] for row in read_slice(path, end - 2, 10)] == [str(end - 2), str(end - 1)]
    assert read_slice(path, end, 3) == []


def test_a_file_that_was_replaced_is_read_as_it_is_now(tmp_path: Path) -> None:
    """Where its groups stand is remembered, of this file and no other."""
    path, other = tmp_path / "rows.parquet", tmp_path / "other.parquet"
    write(path, range(2 * ROWS_A_GROUP))
    assert numbers_at(path, [1500]) == {1500: 1500}
    write(other, range(10_000, 10_000 + 1600))
    other.replace(path)
    assert numbers_at(path, [1500, 1700]) == {1500: 11_500}
