"""What a person says of the answers in an evaluation, row by row, and how far a judge agrees."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.evaluation.report import JUDGED
from core.workspace import read_json_lines, write_atomic

MARKS = "marks.json"
VERDICTS = ("win", "tie", "loss")
_RANK = {"loss": -1, "tie": 0, "win": 1}


def read_marks(folder: Path) -> dict[int, str]:
    """The verdict on the tuned answer of each marked row, by the row's index."""
    try:
        found = json.loads((folder / MARKS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {int(index): verdict for index, verdict in found.items() if verdict in VERDICTS}


def mark(folder: Path, index: int, verdict: str) -> None:
    """Marks a row; the same mark again takes it away."""
    marks = read_marks(folder)
    if marks.get(index) == verdict or verdict not in VERDICTS:
        marks.pop(index, None)
    else:
        marks[index] = verdict
    write_atomic(folder / MARKS, json.dumps(marks, indent=1) + "\n")


def read_judged(folder: Path) -> dict[int, dict[str, Any]]:
    """What the judge said of each row, by the row's index."""
    return {line["index"]: line for line in read_json_lines(folder / JUDGED)}


@dataclass(frozen=True)
class Agreement:
    """On rows that both a person and the judge have given a verdict: how many, the share of equal
    verdicts, and Kendall's tau-b (Kendall 1945, Biometrika 33:239), None where one of them always
    says the same."""

    rows: int
    share: float
    tau: float | None


def agreement(folder: Path) -> Agreement | None:
    """None where there is no row that both have judged."""
    from scipy.stats import kendalltau

    judged = read_judged(folder)
    both = [
        (_RANK[verdict], _RANK[judged[index]["verdict"]])
        for index, verdict in read_marks(folder).items()
        if judged.get(index, {}).get("verdict")
    ]
    if not both:
        return None
    own, its = zip(*both, strict=True)
    varies = len(set(own)) > 1 and len(set(its)) > 1
    tau = float(kendalltau(own, its).statistic) if varies else None
    return Agreement(len(both), sum(a == b for a, b in both) / len(both), tau)
