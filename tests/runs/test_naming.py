"""A list of ids tells nobody which run was which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.config import RunConfig
from core.data.prepare import import_dataset
from core.runs.naming import MOST, run_title
from core.workspace import Workspace

ROWS = "support-tickets"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace.open(tmp_path / "workspace")
    rows = made.root / "tickets.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n' * 3)
    info = import_dataset(made, [rows], name="Support tickets", eval_fraction=0.0)
    assert info.id == ROWS
    return made


@pytest.mark.parametrize(
    ("settings", "title"),
    [
        ({}, "tiny on Support tickets, LoRA r16"),
        ({"adapter": {"quantization": "nf4", "r": 8}}, "tiny on Support tickets, QLoRA r8"),
        ({"adapter": {"method": "none"}}, "tiny on Support tickets, every weight"),
        ({"method": "dpo"}, "tiny on Support tickets, DPO, LoRA r16"),
        ({"data": {"dataset": "gone"}}, "tiny on gone, LoRA r16"),
    ],
)
def test_a_run_is_called_by_model_rows_and_how_it_learns(
    workspace: Workspace, settings: dict[str, Any], title: str
) -> None:
    first = {"model": {"model_name_or_path": "owner/tiny"}, "data": {"dataset": ROWS}}
    assert run_title(workspace, RunConfig.model_validate(first | settings)) == title


def test_a_long_title_is_cut_before_how_it_learns(workspace: Workspace) -> None:
    config = RunConfig.model_validate({"data": {"dataset": "x" * 200}})
    title = run_title(workspace, config)
    assert len(title) == MOST and title.endswith("x…, LoRA r16")
