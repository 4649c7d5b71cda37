"""An easy task for the preference methods: the better answer names the colour, the worse one
another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.data.prepare import import_dataset
from core.data.record import DatasetInfo
from core.workspace import Workspace

COLOURS = ["red", "green", "blue", "black"]
THINGS = ["cup", "hat", "door", "car", "pen", "bag"]


def _turns(role: str, text: str) -> list[dict[str, Any]]:
    return [{"role": role, "content": text}]


def pairs(things: list[str] = THINGS) -> list[dict[str, Any]]:
    """For each thing in each colour: polite is better than rude."""
    return [
        {
            "prompt": _turns("user", f"a {colour} {thing}"),
            "chosen": _turns("assistant", f"yes, {colour}"),
            "rejected": _turns("assistant", f"no {thing}"),
        }
        for thing in things
        for colour in COLOURS
    ]


def judged(things: list[str] = THINGS) -> list[dict[str, Any]]:
    """The same answers one by one, each good or bad."""
    return [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in pairs(things)
        for side in ("chosen", "rejected")
    ]


def bring(
    workspace: Workspace,
    rows: list[dict[str, Any]],
    held_out: list[dict[str, Any]],
    name: str,
) -> DatasetInfo:
    """Imports rows that are in a standard form already."""
    workspace.uploads.mkdir(exist_ok=True)
    files: list[Path] = []
    for part, some in (("train", rows), ("held-out", held_out)):
        files.append(workspace.uploads / f"{name}-{part}.jsonl")
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
    return import_dataset(workspace, files[:1], name=name, eval_source=files[1], eval_fraction=0.0)
