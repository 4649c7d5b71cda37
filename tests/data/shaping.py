"""What the tests of steps bring and look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.data.prepare import import_dataset
from core.data.record import DatasetInfo
from core.data.registry import read_rows
from core.data.steps import parse_steps
from core.workspace import Workspace


def bring(workspace: Workspace, folder: Path, rows: list[Any], **settings: Any) -> DatasetInfo:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return import_dataset(workspace, [path], **settings)


def numbers(workspace: Workspace, info: DatasetInfo, part: str = "train") -> list[int]:
    return [row["meta"]["n"] for row in read_rows(workspace, info.id, part, limit=10**6)]


def step(**spec: Any) -> list[Any]:
    return parse_steps([spec])
