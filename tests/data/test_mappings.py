"""Saved mappings: a person who has told once how a kind of file is read need not tell again."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.data.mappings import (
    DamagedMapping,
    SavedMapping,
    best_mapping,
    delete_mapping,
    list_mappings,
    load_mapping,
    save_mapping,
)
from core.errors import DataError, WorkspaceError
from core.workspace import Workspace

MMLU = {"text": "{question}\n\n{options}", "label": "category"}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


def test_a_mapping_comes_back_as_it_was_saved(workspace: Workspace) -> None:
    columns = ["question", "options", "category", "src"]
    save_mapping(workspace, "mmlu", "labelled-text", MMLU | {"separator": ""}, "", columns)
    loaded = load_mapping(workspace, "mmlu")
    assert (loaded.form, loaded.mapping) == ("labelled-text", MMLU)
    assert loaded.columns == sorted(columns)
    assert list_mappings(workspace) == [loaded]


def test_saving_again_replaces(workspace: Workspace) -> None:
    save_mapping(workspace, "a", "text", {"text": "x"})
    save_mapping(workspace, "a", "text", {"text": "y"}, "S")
    assert load_mapping(workspace, "a").mapping == {"text": "y"}
    assert load_mapping(workspace, "a").system_prompt == "S"
    assert [path.name for path in (workspace.root / "mappings").iterdir()] == ["a.json"]


def test_a_deleted_mapping_is_gone(workspace: Workspace) -> None:
    save_mapping(workspace, "a", "text", {"text": "x"})
    delete_mapping(workspace, "a")
    assert list_mappings(workspace) == []
    for act in (load_mapping, delete_mapping):
        with pytest.raises(DataError, match="no saved mapping a"):
            act(workspace, "a")


@pytest.mark.parametrize("name", ["../out", "A b", "", "x/y", ".hidden"])
def test_a_name_cannot_leave_the_folder(workspace: Workspace, name: str) -> None:
    for act in (
        lambda: save_mapping(workspace, name, "text", {"text": "x"}),
        lambda: load_mapping(workspace, name),
        lambda: delete_mapping(workspace, name),
    ):
        with pytest.raises(WorkspaceError, match="not an id"):
            act()


@pytest.mark.parametrize(
    ("form", "mapping", "reason"),
    [
        ("letters", {"text": "x"}, "not a form"),
        ("text", {"text": "x", "label": "y"}, "no field label"),
        ("preference", {"chosen": "x", "rejected": ""}, "a column for rejected"),
        ("labelled-text", MMLU | {"separator": "-"}, "separator cannot be '-'"),
    ],
)
def test_a_mapping_that_reads_nothing_is_not_saved(
    workspace: Workspace, form: str, mapping: dict[str, str], reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        save_mapping(workspace, "a", form, mapping)
    assert list_mappings(workspace) == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{torn", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b'{"form": "text"}', "mapping: Field required"),
        (b'{"form": "gone", "mapping": {}}', "'gone' is not a form"),
        (b'{"form": "text", "mapping": {}}', "needs a column for text"),
        (b"[1]", "its file"),
    ],
)
def test_a_damaged_file_is_named_and_spares_the_others(
    workspace: Workspace, content: bytes, problem: str
) -> None:
    save_mapping(workspace, "good", "text", {"text": "x"})
    (workspace.root / "mappings" / "bad.json").write_bytes(content)
    bad, good = list_mappings(workspace)
    assert isinstance(bad, DamagedMapping) and bad.name == "bad" and problem in bad.problem
    assert isinstance(good, SavedMapping) and good.name == "good"
    assert best_mapping(workspace, ["x"]) == good
    with pytest.raises(DataError, match="cannot be used"):
        load_mapping(workspace, "bad")
    delete_mapping(workspace, "bad")
    assert list_mappings(workspace) == [good]


def test_a_file_with_a_strange_name_is_damaged_too(workspace: Workspace) -> None:
    save_mapping(workspace, "good", "text", {"text": "x"})
    (workspace.root / "mappings" / "My Own.json").write_text("{}")
    assert [type(found) for found in list_mappings(workspace)] == [DamagedMapping, SavedMapping]


def test_the_mapping_made_for_the_same_columns_is_the_best(workspace: Workspace) -> None:
    mmlu = ["question", "options", "category", "src"]
    save_mapping(workspace, "a-answers", "text", {"text": "question"}, "", ["question", "other"])
    save_mapping(workspace, "topics", "labelled-text", MMLU, "", mmlu)
    best = best_mapping(workspace, [*mmlu, "question_id"])
    assert best and best.name == "topics"
    best = best_mapping(workspace, ["question", "reply"])
    assert best and best.name == "a-answers", "the other one needs columns that are not here"
    assert best_mapping(workspace, ["reply"]) is None
