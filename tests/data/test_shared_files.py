"""Real files of other projects, where they are at hand (TUNESMITH_SHARED_DATA, or beside)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from core.data.conversion import convert
from core.data.detection import choose
from core.data.inspection import inspect_source
from core.data.prepare import import_dataset
from core.data.read.files import read_records
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
        ("dpo_en_demo.json", "preference", "preference", 300),
        ("kto_en_demo.json", "unpaired-preference", "unpaired-preference", 300),
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


def test_the_chosen_answers_can_be_learned_from(tmp_path: Path) -> None:
    path = real_file("dpo_en_demo.json")
    workspace = Workspace.open(tmp_path / "workspace", allowed=[FOLDER])
    info = import_dataset(
        workspace, [path], form="prompt-completion", mapping={"completion": "chosen"}
    )
    assert (info.counts.read, info.counts.dropped) == (300, 0)


def rows_of(name: str) -> list[dict[str, Any]]:
    return [record.row for record in read_records(real_file(name)) if record.row is not None]


def test_questions_become_labelled_text_by_a_template() -> None:
    """As a person does it: the question with its options, and its subject as the label."""
    rows = rows_of("mmlu_pro_dev.jsonl")
    found = choose(rows[:200], None, {"text": "{question}\n\n{options}", "label": "category"})
    assert found.form == "labelled-text"
    made = [convert(row, found.form, found.mapping) for row in rows]
    assert len(made) == 9000
    assert {label for row in made for label in row["labels"]} == {row["category"] for row in rows}
    assert made[0]["text"] == rows[0]["question"] + "\n\n" + "\n".join(rows[0]["options"])


def test_calls_of_tools_come_through_whole() -> None:
    """Each call must be a call in the end, with the arguments that its source had."""
    rows = rows_of("glaive_toolcall_en_demo.json")
    found = choose(rows)
    calls = answers = 0
    for row in rows:
        made = convert(row, "sharegpt", found.mapping)
        source = row["conversations"]
        assert [turn.get("tool_calls", "") != "" for turn in made["messages"]] == [
            turn["from"] == "function_call" for turn in source
        ]
        for turn, before in zip(made["messages"], source, strict=True):
            if "tool_calls" in turn:
                calls += 1
                (call,) = json.loads(turn["tool_calls"])
                assert call["function"] == json.loads(before["value"])
            answers += turn["role"] == "tool"
        assert ("tools" in made) == bool(json.loads(row["tools"] or "[]"))
    assert calls == answers > 100


def test_judgements_keep_their_side() -> None:
    rows = rows_of("kto_en_demo.json")
    found = choose(rows)
    made = [convert(row, "unpaired-preference", found.mapping) for row in rows]
    assert [row["label"] for row in made] == [row["label"] for row in rows]
    assert [row["completion"][-1]["content"] for row in made] == [
        row["messages"][-1]["content"] for row in rows
    ]
