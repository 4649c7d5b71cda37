"""A workspace that may read the test's files, and data sets in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.data.record import DatasetInfo
from core.workspace import Workspace
from tests.data.shaping import bring


@pytest.fixture
def open_workspace(tmp_path: Path) -> Workspace:
    """A workspace that may also read the test's own folder."""
    return Workspace.open(tmp_path / "workspace", allowed=[tmp_path])


@pytest.fixture
def questions(open_workspace: Workspace, tmp_path: Path) -> DatasetInfo:
    """100 questions in four topics, none held out; `n` stands beside each."""
    rows = [
        {"prompt": f"Question {n}", "answer": f"Answer {n}", "topic": "abcd"[n % 4], "n": n}
        for n in range(100)
    ]
    return bring(open_workspace, tmp_path, rows, eval_fraction=0)


@pytest.fixture
def labelled(open_workspace: Workspace, tmp_path: Path) -> DatasetInfo:
    """90 rows of law, 9 of art, 1 of tea."""
    labels = ["law"] * 90 + ["art"] * 9 + ["tea"]
    rows = [{"text": f"Text number {n}", "label": label} for n, label in enumerate(labels)]
    mapping = {"text": "text", "label": "label"}
    return bring(
        open_workspace, tmp_path, rows, form="labelled-text", mapping=mapping, eval_fraction=0
    )
