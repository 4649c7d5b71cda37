"""Prepared data sets are found, read by position, renamed and deleted."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.data.prepare import import_dataset
from core.data.registry import (
    damaged_datasets,
    delete_dataset,
    list_datasets,
    load_dataset_info,
    read_rows,
    rename_dataset,
)
from core.errors import DataError, WorkspaceError
from core.workspace import Workspace


@pytest.fixture
def texts(open_workspace: Workspace, tmp_path: Path) -> str:
    path = tmp_path / "texts.csv"
    path.write_text("text\n" + "".join(f"row {n}\n" for n in range(3500)), encoding="utf-8")
    return import_dataset(open_workspace, [path], eval_fraction=0).id


@pytest.mark.parametrize(
    ("offset", "limit", "expected"),
    [(0, 2, [0, 1]), (999, 3, [999, 1000, 1001]), (3499, 5, [3499]), (4000, 5, []), (-3, 1, [0])],
)
def test_rows_are_read_from_any_position(
    open_workspace: Workspace, texts: str, offset: int, limit: int, expected: list[int]
) -> None:
    """Across the borders of Parquet's row groups too."""
    rows = read_rows(open_workspace, texts, offset=offset, limit=limit)
    assert rows == [{"text": f"row {n}"} for n in expected]


def test_a_part_that_is_not_there_is_told(open_workspace: Workspace, texts: str) -> None:
    for part in ("eval", "../train"):
        with pytest.raises(DataError, match="no .* rows"):
            read_rows(open_workspace, texts, part)


def test_the_newest_set_comes_first_and_a_damaged_one_hides_none(
    open_workspace: Workspace, texts: str, tmp_path: Path
) -> None:
    second = import_dataset(open_workspace, [tmp_path / "texts.csv"], name="Second")
    broken = import_dataset(open_workspace, [tmp_path / "texts.csv"], name="Broken")
    (broken.folder / "dataset.json").write_text("{", encoding="utf-8")
    (open_workspace.datasets / "Notes of mine").mkdir()
    assert [info.id for info in list_datasets(open_workspace)] == [second.id, texts]
    assert damaged_datasets(open_workspace) == [
        ("broken", "The data set broken cannot be opened: its dataset.json is damaged.")
    ]
    delete_dataset(open_workspace, "broken")
    assert damaged_datasets(open_workspace) == []


def test_an_empty_workspace_has_no_sets(tmp_path: Path) -> None:
    assert list_datasets(Workspace(tmp_path / "none")) == []


def test_a_new_name_keeps_the_id(open_workspace: Workspace, texts: str) -> None:
    rename_dataset(open_workspace, texts, " Better ", "What it is")
    info = load_dataset_info(open_workspace, texts)
    assert (info.id, info.name, info.description) == ("texts", "Better", "What it is")
    with pytest.raises(DataError, match="needs a name"):
        rename_dataset(open_workspace, texts, " ")


def test_a_deleted_set_is_gone(open_workspace: Workspace, texts: str) -> None:
    delete_dataset(open_workspace, texts)
    assert list(open_workspace.datasets.iterdir()) == []
    for use in (load_dataset_info, delete_dataset):
        with pytest.raises(DataError, match="no data set texts"):
            use(open_workspace, texts)


@pytest.mark.parametrize("name", ["../runs", "", "A", "a/b"])
def test_a_name_that_is_no_id_reaches_no_path(open_workspace: Workspace, name: str) -> None:
    with pytest.raises(WorkspaceError, match="not an id"):
        load_dataset_info(open_workspace, name)
    with pytest.raises(WorkspaceError, match="not an id"):
        delete_dataset(open_workspace, name)


def test_size_counts_all_files(open_workspace: Workspace, texts: str) -> None:
    info = load_dataset_info(open_workspace, texts)
    once = [info.folder / "dataset.json", info.folder / "versions" / "1" / "train.parquet"]
    split = [info.folder / "imported" / "train.parquet", *(info.rows_path(p) for p in info.parts)]
    files = [once[0], *split] if len(info.parts) > 1 else once
    assert info.size_bytes() == sum(path.stat().st_size for path in files)
