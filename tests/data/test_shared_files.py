"""Real files of other projects, where they are at hand (TUNESMITH_SHARED_DATA, or beside)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.data.prepare import import_dataset
from core.data.sources import inspect_source
from core.errors import DataError
from core.workspace import Workspace

FOLDER = Path(
    os.environ.get("TUNESMITH_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data"
)


def real_file(name: str) -> Path:
    if not (FOLDER / name).is_file():
        pytest.skip(f"{name} is not here")
    return FOLDER / name


@pytest.mark.parametrize(
    ("name", "form", "standard", "rows"),
    [
        ("alpaca_en_demo.json", "instruction", "prompt-completion", 999),
        ("glaive_toolcall_en_demo.json", "sharegpt", "messages", 300),
        ("c4_demo.jsonl", "text", "text", 300),
        ("mmlu_pro_dev.jsonl", "prompt-completion", "prompt-completion", 9000),
    ],
)
def test_a_real_file_imports_whole(
    tmp_path: Path, name: str, form: str, standard: str, rows: int
) -> None:
    """Somebody's first file should not need a word of explanation."""
    path = real_file(name)
    report = inspect_source(path)
    assert (report.form, report.total_rows, report.problem_count) == (form, rows, 0)
    workspace = Workspace.open(tmp_path / "workspace", allowed=[FOLDER])
    info = import_dataset(workspace, [path], eval_fraction=0.1)
    assert (info.form, info.source_form) == (standard, form)
    assert (info.counts.read, info.counts.dropped) == (rows, 0)
    assert info.counts.eval == round(rows * 0.1)


@pytest.mark.parametrize("name", ["dpo_en_demo.json", "kto_en_demo.json"])
def test_a_real_preference_file_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    path = real_file(name)
    workspace = Workspace.open(tmp_path / "workspace", allowed=[FOLDER])
    with pytest.raises(DataError, match="cannot be trained on yet"):
        import_dataset(workspace, [path])
    assert inspect_source(path).rows


def test_the_chosen_answers_can_be_learned_from(tmp_path: Path) -> None:
    path = real_file("dpo_en_demo.json")
    workspace = Workspace.open(tmp_path / "workspace", allowed=[FOLDER])
    info = import_dataset(
        workspace, [path], form="prompt-completion", mapping={"completion": "chosen"}
    )
    assert (info.counts.read, info.counts.dropped) == (300, 0)
