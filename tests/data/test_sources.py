"""The first look at a file, before anything is imported."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.data.sources import inspect_source
from core.errors import DataError, WorkspaceError
from core.workspace import Workspace


def test_a_look_shows_rows_form_and_what_would_be_dropped(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rows = [{"question": f"q{n}", "answer": "" if n % 100 == 7 else "a"} for n in range(400)]
    lines = [json.dumps(row) for row in rows]
    lines[250] = "{broken"
    path.write_text("\n".join(lines), encoding="utf-8")
    report = inspect_source(path, limit=5)
    assert (report.format, report.form, report.total_rows) == ("jsonl", "prompt-completion", 400)
    assert report.columns == ["question", "answer"]
    assert report.rows == rows[:5]
    assert report.mapping == {"prompt": "question", "completion": "answer"}
    assert report.problem_count == 5
    assert [problem["line"] for problem in report.problems] == [8, 108, 208, 251, 308]
    assert report.problems[0]["reason"] == "the answer is empty"
    assert report.problems[3]["reason"].startswith("not JSON")


def test_another_choice_is_tried_at_once(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\nx,\n,y\n", encoding="utf-8")
    assert inspect_source(path).form is None
    report = inspect_source(path, form="text", mapping={"text": "b"})
    assert (report.form, report.mapping, report.problem_count) == ("text", {"text": "b"}, 1)


def test_preference_rows_are_shown_though_they_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"prompt": "p", "chosen": "c", "rejected": "r"}\n', encoding="utf-8")
    report = inspect_source(path)
    assert report.form is None and "Preference rows" in report.form_reason and report.hint
    assert report.rows == [{"prompt": "p", "chosen": "c", "rejected": "r"}]


def test_values_that_json_does_not_know_can_be_shown(tmp_path: Path) -> None:
    day = datetime.datetime(2026, 1, 2)
    pq.write_table(pa.table({"text": ["t"], "day": [day], "raw": [b"x"]}), tmp_path / "t.parquet")
    shown = inspect_source(tmp_path / "t.parquet").rows
    assert json.loads(json.dumps(shown)) == shown
    assert shown[0]["day"] == "2026-01-02 00:00:00"


def test_a_file_without_a_readable_row_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("[1]\n[2]\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 1: a row is an object"):
        inspect_source(path)
    with pytest.raises(DataError, match="is not a file"):
        inspect_source(tmp_path)


def test_a_path_outside_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "t"}\n', encoding="utf-8")
    workspace = Workspace.open(tmp_path / "workspace")
    with pytest.raises(WorkspaceError, match="outside"):
        inspect_source(tmp_path / "t.jsonl", workspace=workspace)
