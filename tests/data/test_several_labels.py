"""Labels as marks of 0 and 1 are the labels whose places are marked, and labels that are as good as
the same are remarked on."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from core.commands import data as commands
from core.commands.data_steps import read_step
from core.data.conversion import convert, names_of, written_names
from core.data.detection import choose, detect
from core.data.registry import read_rows
from core.data.steps.labels import about_alike, alike_labels, merging
from core.data.values import Unusable
from core.data.versions import apply_steps
from core.errors import DataError
from core.workspace import Workspace
from tests.data.shaping import bring

VECTORS = [[0, 1, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0]]


def notes(**columns: list[Any]) -> list[dict[str, Any]]:
    count = len(next(iter(columns.values())))
    return [
        {"text": f"Weather note {n}, long enough", **{k: v[n] for k, v in columns.items()}}
        for n in range(count)
    ]


def labels_of(rows: list[dict[str, Any]], **mapping: str) -> list[list[str]]:
    found = choose(rows, mapping={**detect(rows).mapping, **mapping})
    return [convert(row, found.form or "", found.mapping)["labels"] for row in rows]


@pytest.mark.parametrize(
    "cells",
    [VECTORS, [[float(mark) for mark in cell] for cell in VECTORS], [str(one) for one in VECTORS],
     [[mark == 1 for mark in cell] for cell in VECTORS],
     ["0 1 0 0", "1 0 0 1", "0 0 0 0"], ["0,1,0,0", "1, 0, 0, 1", "0;0;0;0"]],
    ids=["numbers", "floats", "csv", "true-false", "blanks", "commas"],
)  # fmt: skip
def test_a_list_of_marks_is_the_labels_whose_places_are_marked(cells: list[Any]) -> None:
    """Before, each row had the labels 0 and 1, and the classifier learned nothing else."""
    rows = notes(labels=cells)
    assert labels_of(rows) == [["1"], ["0", "3"], []]
    assert labels_of(rows, label_names="sun,rain,wind,hail") == [["rain"], ["sun", "hail"], []]
    found = detect(rows)
    assert found.form == "labelled-text" and "4 different" in found.reason
    assert "--map label_names=NAME" in found.warnings[0]
    assert not choose(rows, mapping={**found.mapping, "label_names": "a,b,c,d"}).warnings


def test_two_places_of_which_one_is_marked_are_two_labels() -> None:
    """Read as numbers of labels, each row would have both."""
    assert labels_of(notes(labels=[[1, 0], [0, 1], [0, 1]])) == [["0"], ["1"], ["1"]]


@pytest.mark.parametrize(
    "cells",
    [
        [{"toxic": 1, "rude": 0}, {"toxic": 1, "rude": 1}, {"toxic": 0, "rude": 0}],
        [{"toxic": True, "rude": None}, {"toxic": "1", "rude": "1"}, {"toxic": 0.0, "rude": False}],
        ['{"toxic": 1, "rude": 0}', "{'toxic': 1, 'rude': 1}", "{'toxic': 0, 'rude': 0}"],
    ],
    ids=["numbers", "parquet", "csv"],
)
def test_a_mark_for_each_name_is_the_names_that_are_marked(cells: list[Any]) -> None:
    rows = notes(labels=cells)
    assert detect(rows).form == "labelled-text"
    assert labels_of(rows) == [["toxic"], ["toxic", "rude"], []]


@pytest.mark.parametrize(
    "cells",
    [
        [[0.2, 0.8], [1.0, 0.0]], [{"good": 0.7, "bad": 0.3}, {"good": 0.1, "bad": 0.9}],
        ["[0.2, 0.8]", "[0.5, 0.5]"], [0.7, 0.0], ["0.7", ".25"],
    ],
    ids=["lists", "names", "csv", "shares", "texts"],
)  # fmt: skip
def test_soft_labels_are_refused_and_not_taken_for_names(cells: list[Any]) -> None:
    """A class named 0.7 would be learned, or the text alone, as if there were no labels."""
    rows = notes(label=cells)
    found = detect(rows)
    assert found.form == "labelled-text"
    with pytest.raises(Unusable, match="soft labels are not learned"):
        convert(rows[0], "labelled-text", found.mapping)


def test_numbers_of_stars_and_text_with_marks_are_labels_as_before() -> None:
    assert labels_of(notes(label=[5, 1, 5])) == [["5"], ["1"], ["5"]]
    mapping = {"text": "text", "label": "stars"}
    assert convert({"text": "t", "stars": 4.5}, "labelled-text", mapping)["labels"] == ["4.5"]
    assert convert({"text": "t", "stars": "0 1"}, "labelled-text", mapping)["labels"] == ["0 1"]


def test_marks_that_cannot_be_counted_off_are_refused() -> None:
    for cell in ([1, 0, 0], [0, 1, 1, 0], [-1, 1, -1], "0 1 1"):
        with pytest.raises(Unusable, match="marks without names"):
            convert(
                {"text": "t", "labels": cell}, "labelled-text", {"text": "text", "label": "labels"}
            )


def test_a_column_for_each_label_gives_its_name() -> None:
    rows = notes(rain=["0", "1", "0"], wind=["1", "1", "0"], id=["7", "8", "9"])
    found = detect(rows)
    assert found.mapping == {
        "text": "text", "label": "{rain}{wind}", "label_names": "rain, wind"
    }  # fmt: skip
    assert labels_of(rows) == [["wind"], ["rain", "wind"], []]


def test_columns_may_be_named_by_hand_and_have_commas_in_their_names() -> None:
    rows = notes(**{"rain, snow": [1, 0], "wind": [1, 0], "other": [0, 0]})
    mapping = {"text": "text", "label": "{rain, snow}{wind}"}
    found = choose(rows, "labelled-text", mapping)
    assert convert(rows[0], "labelled-text", found.mapping)["labels"] == ["rain, snow", "wind"]
    assert names_of(written_names(["a, b", "c"])) == ("a, b", "c")


@pytest.mark.parametrize("cells", [[[0, 1], [2, 1]], [[1], [0]], [["a", "b"], ["b"]], [[1, 0]]])
def test_numbers_and_names_of_labels_are_read_as_before(cells: list[Any]) -> None:
    rows = notes(labels=cells)
    assert labels_of(rows) == [[str(label) for label in cell] for cell in cells]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ([0, 1], "a list of 2, for 4 names"), ([0, 1, 0, 2], "label d is neither 0 nor 1"),
        (None, "missing"), ("rain", "not a list of 0 and 1"), ([0, 1, 0, None], "neither 0 nor"),
    ],
)  # fmt: skip
def test_a_cell_without_a_mark_for_each_label_is_dropped(cell: Any, reason: str) -> None:
    mapping = {"text": "text", "label": "labels", "label_names": "a,b,c,d"}
    with pytest.raises(Unusable, match=reason):
        convert({"text": "t", "labels": cell}, "labelled-text", mapping)


@pytest.mark.parametrize("names", ["rain", "rain,rain", "rain,,wind", "{text},wind", "[1"])
def test_names_that_cannot_be_told_apart_are_refused(names: str) -> None:
    with pytest.raises(DataError, match="label_names cannot be"):
        choose(notes(labels=VECTORS), mapping={"label_names": names})


ALIKE = {"refund": 3, "Refund": 5, "REFUND": 1, "other": 9, "Late  fee": 1, "late fee": 1}


def test_labels_that_differ_only_in_case_or_blanks_are_remarked_on() -> None:
    """Five classes where a person sees two; each of them is learned from too few rows."""
    assert alike_labels(ALIKE) == [["Refund", "refund", "REFUND"], ["Late  fee", "late fee"]]
    assert "'Refund' (5), 'refund' (3), 'REFUND' (1)" in about_alike(ALIKE)
    assert about_alike({"refund": 1, "refunds": 2}) == "" and merging({"a": 1}) is None


@pytest.mark.parametrize("odd", ["it's", 'a "b"', "$x", "a: b", "yes", "ü"])
def test_the_command_that_merges_them_can_be_typed(odd: str) -> None:
    """A label may hold any sign that a shell or YAML reads in its own way."""
    labels = {odd: 2, odd.upper() + " ": 1}
    told = commands.about_alike("notes", labels)
    *_, option, spec = shlex.split(told.partition("Merge them: ")[2])
    assert option == "--step" and read_step(spec) == merging(labels)


def test_alike_labels_are_merged_by_one_step(open_workspace: Workspace, tmp_path: Path) -> None:
    names = [name for name, count in ALIKE.items() for _ in range(count)]
    info = bring(open_workspace, tmp_path, notes(label=names), eval_fraction=0)
    step = merging(info.labels)
    assert step is not None
    merged = apply_steps(open_workspace, info.id, [step])
    assert merged.labels == {"Refund": 9, "other": 9, "Late  fee": 2}
    assert len(read_rows(open_workspace, info.id, "train", 0, 100)) == 20
