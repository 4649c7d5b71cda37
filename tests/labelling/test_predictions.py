"""Texts that a classifier labelled: which to look at, what a person says, and the rows of it."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import pytest

from core.errors import DataError
from core.jobs.job import Job, write_record
from core.labelling.files import text_column
from core.labelling.predictions import (
    PREDICTIONS,
    Prediction,
    give_label,
    labelled,
    list_predictions,
    read_labels,
    read_predictions,
    uncertain,
)
from core.workspace import RunFolder


def prediction(index: int, *chances: float) -> Prediction:
    named = {name: chance for name, chance in zip("abc", chances, strict=False)}
    return Prediction(index, f"text {index}", [max(named, key=named.__getitem__)], named)


FOUND = [
    prediction(0, 0.98, 0.01, 0.01),
    prediction(1, 0.5, 0.49, 0.01),
    prediction(2, 0.41, 0.3, 0.29),
    prediction(3, 0.6, 0.2, 0.2),
    prediction(4, 0.34, 0.33, 0.33),
]


def test_the_range_is_that_of_the_top_probability() -> None:
    assert [one.index for one in uncertain(FOUND, "range")] == [1, 2, 3]
    assert [one.index for one in uncertain(FOUND, "range", 0.3, 0.4)] == [4]
    assert uncertain(FOUND, "range", 0.7, 0.9) == []


def test_least_margin_and_highest_entropy_come_first() -> None:
    assert [one.index for one in uncertain(FOUND, "margin", most=3)] == [1, 4, 2]
    assert [one.index for one in uncertain(FOUND, "entropy", most=3)] == [4, 2, 3]
    assert FOUND[4].entropy == pytest.approx(math.log(3), abs=0.001)
    assert prediction(9, 1.0).margin == 1.0


def test_a_label_is_given_and_taken_back(tmp_path: Path) -> None:
    give_label(tmp_path, 3, "a")
    give_label(tmp_path, 4, "b")
    give_label(tmp_path, 3, "c")
    give_label(tmp_path, 4, "b")
    assert read_labels(tmp_path) == {3: "c"}


def test_predictions_are_read_as_they_were_written(tmp_path: Path) -> None:
    found = [*FOUND, Prediction(5, "a line\u2028and\x85another", ["a"], {"a": 1.0})]
    lines = [json.dumps({**vars(one)}, ensure_ascii=False) + "\n" for one in found]
    (tmp_path / PREDICTIONS).write_text("".join(lines), encoding="utf-8")
    assert read_predictions(tmp_path) == found


@pytest.mark.parametrize(
    "rows, learned, column",
    [
        ([{"id": 1, "review": "so good"}], {}, "review"),
        ([{"text": "a b", "body": "c d"}], {"text": "body"}, "body"),
        ([{"text": "a b", "body": "c d"}], {"text": "gone"}, "text"),
        ([{"review": "so good", "stars": "5"}, {"stars": "4.5"}], {}, "review"),
    ],
)
def test_the_column_of_the_texts_is_found(
    tmp_path: Path, rows: list[dict[str, object]], learned: dict[str, str], column: str
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert text_column(file, learned) == column


def test_where_it_is_not_clear_the_columns_are_told(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("question,answer\nwho is it,the cat of course\n")
    with pytest.raises(DataError, match="It has question, answer. Call it text"):
        text_column(file, {})


def test_a_table_has_the_columns_of_the_file(tmp_path: Path) -> None:
    one = Prediction(0, "a, b", ["x"], {"x": 0.75, "y": 0.25}, {"id": 7, "tags": ["p"]})
    (tmp_path / PREDICTIONS).write_text(json.dumps(vars(one)) + "\n")
    head, line = csv.reader(io.StringIO(labelled(tmp_path, ".csv")))
    assert head == ["text", "id", "tags", "predicted", "probability", "p(x)", "p(y)"]
    assert line == ["a, b", "7", '["p"]', "x", "0.75", "0.75", "0.25"]


def test_the_last_made_is_the_newest(tmp_path: Path) -> None:
    """Their names tell the minute alone."""
    for at, name in ((1.0, "20260101-0000-wise-whale"), (2.0, "20260101-0000-calm-otter")):
        folder = tmp_path / "predictions" / name
        folder.mkdir(parents=True)
        write_record(
            folder, Job(id=name, kind="predict", run_id="", folder=str(folder), created_at=at)
        )
        (folder / "result.json").write_text(json.dumps({"labels": ["a", "b"]}))
    found = [one.created_at for one in list_predictions(RunFolder(tmp_path))]
    assert found == [2.0, 1.0]
