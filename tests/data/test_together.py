"""Files that do not belong together are told apart before a row is lost to it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from core.data.inspection import inspect_source
from core.data.prepare import import_dataset
from core.data.registry import list_datasets, read_rows
from core.errors import DataError
from core.workspace import Workspace


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder with two files of texts, one of questions, one of pairs."""
    folder = tmp_path / "mixed"
    write(folder / "a.jsonl", {"text": "one"}, {"text": "two"})
    write(folder / "b.jsonl", {"text": "three", "page": 3})
    write(folder / "c.jsonl", {"question": "Who?", "answer": "You"})
    write(folder / "d.jsonl", {"prompt": "Say", "chosen": "yes", "rejected": "no"})
    return folder


def test_files_of_several_kinds_are_refused_and_named(
    open_workspace: Workspace, mixed: Path
) -> None:
    """Read as one kind, nearly every row of the others would be dropped."""
    with pytest.raises(DataError, match="do not belong together") as caught:
        import_dataset(open_workspace, [mixed])
    for said in (
        "mixed/a.jsonl, mixed/b.jsonl are text (text)",
        "mixed/c.jsonl is prompt-completion (question, answer)",
        "mixed/d.jsonl is preference (prompt, chosen, rejected)",
    ):
        assert said in caught.value.message
    assert "on its own" in caught.value.hint
    assert list_datasets(open_workspace) == []


def test_the_first_look_says_the_same(open_workspace: Workspace, mixed: Path) -> None:
    report = inspect_source(mixed, workspace=open_workspace)
    assert report.form is None and report.form_reason.startswith("The files do not belong together")
    assert "on its own" in report.hint
    assert report.problem_count == 0 and report.total_rows == 5


def test_a_chosen_form_does_not_hide_a_file_that_lacks_its_columns(
    open_workspace: Workspace, mixed: Path
) -> None:
    with pytest.raises(DataError, match=r"mixed/c.jsonl \(and 1 more\) has no column text"):
        import_dataset(open_workspace, [mixed], form="text")
    with pytest.raises(DataError, match="has no column text"):
        inspect_source(mixed, workspace=open_workspace, mapping={"text": "text"})


def test_files_that_one_mapping_fits_become_one_set(
    open_workspace: Workspace, tmp_path: Path
) -> None:
    """Columns that only some files have are no reason to refuse them."""
    folder = tmp_path / "good.ones"
    write(folder / "a.jsonl", {"prompt": "1 + 1", "completion": "2", "source": "book"})
    write(folder / "b.jsonl", {"completion": "4", "prompt": "2 + 2"})
    info = import_dataset(open_workspace, [folder], eval_fraction=0)
    assert info.name == "good.ones" and info.counts.train == 2 and info.counts.dropped == 0
    assert [file.file for file in info.sources] == ["good.ones/a.jsonl", "good.ones/b.jsonl"]


def test_a_few_rows_of_each_of_many_files_tell_their_form(
    open_workspace: Workspace, tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    for number in range(300):
        write(folder / f"{number:03}.jsonl", {"text": f"Text {number}"})
    info = import_dataset(open_workspace, [folder], eval_fraction=0)
    assert info.counts.train == 300
    texts = [row["text"] for row in read_rows(open_workspace, info.id, limit=300)]
    assert texts == [f"Text {number}" for number in range(300)]


@pytest.mark.parametrize(
    ("file", "name"), [("tickets.zip", "tickets"), ("mail.jsonl", "mail"), ("v1.2.jsonl", "v1.2")]
)
def test_a_set_is_called_after_what_was_brought(
    open_workspace: Workspace, tmp_path: Path, file: str, name: str
) -> None:
    path = tmp_path / file
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("part-1.jsonl", '{"text": "one"}\n{"text": "two"}\n')
    else:
        write(path, {"text": "one"}, {"text": "two"})
    assert import_dataset(open_workspace, [path]).name == name
