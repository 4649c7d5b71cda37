"""The first look at a file, before anything is imported."""

from __future__ import annotations

import datetime
import gzip
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.data.inspection import inspect_source
from core.errors import DataError, WorkspaceError
from core.workspace import Workspace
from tests.data.hub_of_datasets import DatasetHub, serving


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


def test_preference_rows_are_known(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"prompt": "p", "chosen": "c", "rejected": "r"}\n', encoding="utf-8")
    report = inspect_source(path)
    assert report.form == "preference" and "chosen and one rejected" in report.form_reason
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
    with pytest.raises(DataError, match="does not exist"):
        inspect_source(tmp_path / "none.jsonl")


def test_a_path_outside_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "t"}\n', encoding="utf-8")
    workspace = Workspace.open(tmp_path / "workspace")
    with pytest.raises(WorkspaceError, match="outside"):
        inspect_source(tmp_path / "t.jsonl", workspace=workspace)


ROWS = [{"question": f"q{n}", "answer": "yes" if n % 2 else "no"} for n in range(300)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def test_samples_help_to_choose_columns(tmp_path: Path) -> None:
    """Names like `c1` say nothing; three values do."""
    path = tmp_path / "t.jsonl"
    rows = [
        {"a": "", "b": "x" * 500, "c": [1, {"d": "ü"}]},
        {"a": "one\n two", "b": None, "c": 1.5},
        {"a": "one two", "e": False},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    samples = inspect_source(path).samples
    assert samples["a"] == ["one two"]
    assert len(samples["b"][0]) == 80 and samples["b"][0].endswith("x…")
    assert samples["c"] == ['[1, {"d": "ü"}]', "1.5"]
    assert samples["e"] == ["false"]


def test_a_look_tells_the_encoding(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("text,label\nWie heißt die größte Stadt?,schön\n".encode("cp1252"))
    report = inspect_source(path)
    assert (report.format, report.encoding, report.container) == ("csv", "cp1252", "")
    assert report.rows[0]["text"] == "Wie heißt die größte Stadt?"


def test_packed_archived_and_in_folders_it_is_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "rows.jsonl").write_bytes(LINES)
    (folder / "README.md").write_text("# About")
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(LINES))
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.write(folder / "rows.jsonl", "rows.jsonl")
    plain = inspect_source(folder / "rows.jsonl")
    for source, container, files in (
        (folder, "folder", ["set/rows.jsonl"]),
        (tmp_path / "set.zip", "zip", ["set.zip/rows.jsonl"]),
        (tmp_path / "rows.jsonl.gz", "gzip", ["rows.jsonl.gz"]),
    ):
        report = inspect_source(source)
        assert (report.container, report.files) == (container, files)
        assert (report.format, report.total_rows) == ("jsonl", 300)
        assert (report.rows, report.form, report.mapping) == (plain.rows, plain.form, plain.mapping)
    assert inspect_source(folder).skipped == ["README.md: a document among files of rows"]


def test_several_files_are_looked_at_together(tmp_path: Path) -> None:
    """A column that only the second file has is there to be chosen."""
    (tmp_path / "1.jsonl").write_bytes(LINES)
    (tmp_path / "2.csv").write_text("question,answer,extra\na,b,c\n,b,c\n", encoding="utf-8")
    report = inspect_source(tmp_path)
    assert report.columns == ["question", "answer", "extra"]
    assert (report.format, report.total_rows) == ("jsonl, csv", 302)
    assert [(one["file"].split("/")[1], one["line"]) for one in report.problems] == [("2.csv", 3)]


def test_of_a_large_file_only_the_beginning_is_looked_at(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("rows.jsonl", LINES)
    (tmp_path / "rows.jsonl").write_bytes(LINES)
    for name in ("rows.jsonl", "set.zip"):
        report = inspect_source(tmp_path / name, most_bytes=10_000)
        assert report.total_rows is None and len(report.rows) == 50 and report.form


def test_a_hub_data_set_is_looked_at_in_a_process_of_its_own(tmp_path: Path) -> None:
    code = (
        "import dataclasses, json, sys; from core.data.inspection import inspect_source;"
        "print(json.dumps(dataclasses.asdict(inspect_source(sys.argv[1])), default=str))"
    )
    with serving(DatasetHub({"me/plain": {"train.jsonl": LINES}})) as hub:
        root = Path(__file__).parents[2]
        environment = {key: os.environ[key] for key in os.environ if not key.startswith("HF_")}
        own = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path), "PYTHONPATH": str(root)}
        done = subprocess.run(
            [sys.executable, "-c", code, "hf:me/plain"],
            env=environment | own,
            capture_output=True,
            text=True,
            check=True,
        )
    report = json.loads(done.stdout)
    assert (report["format"], report["container"], report["total_rows"]) == ("hub", "hub", None)
    assert report["rows"] == ROWS[:50]
    assert report["mapping"] == {"prompt": "question", "completion": "answer"}


def test_a_look_loads_nothing_heavy(tmp_path: Path) -> None:
    """The page looks at files itself; torch and datasets would make it large for good."""
    (tmp_path / "rows.jsonl").write_bytes(LINES)
    code = (
        "import sys; from core.data.inspection import inspect_source; inspect_source(sys.argv[1]);"
        "print([name for name in ('torch', 'datasets', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "rows.jsonl")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
