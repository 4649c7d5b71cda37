"""The rows of an evaluation as they were asked and answered: read, chosen, put in order, and
counted by what else is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.evaluation.intervals import Estimate, mean, share
from core.evaluation.report import ANSWERS
from core.language import N_
from core.workspace import read_json_lines

TUNED, BASE = "tuned", "base"
_MOST_VALUES = 30  # more than these, and a column tells rows apart rather than kinds of them


@dataclass(frozen=True)
class Side:
    """A model's answer. `score` is what models are compared by, from 0 to 1; `right` the names of
    the fields that are right, where answers have fields."""

    text: str
    score: float
    right: list[str] | None = None


@dataclass(frozen=True)
class AnswerRow:
    """`sides` by the name of the model: tuned, base, other1, ...; `rendered` is the prompt as the
    tuned model read it."""

    index: int
    prompt: list[dict[str, Any]]
    rendered: str
    expected: str
    meta: Mapping[str, Any]
    sides: Mapping[str, Side]

    def gain(self, against: str) -> float:
        """By how much the tuned answer scores higher; 0 where there is none to compare with."""
        other = self.sides.get(against)
        return self.sides[TUNED].score - other.score if other else 0.0


def read_answers(folder: Path) -> list[AnswerRow]:
    """The rows of the evaluation in a folder; none of one from before they were kept."""
    lines = read_json_lines(folder / ANSWERS)
    return [_row(line) for line in lines if f"{TUNED}_score" in line]


def _row(line: dict[str, Any]) -> AnswerRow:
    names = [name.removesuffix("_score") for name in line if name.endswith("_score")]
    sides = {
        name: Side(_said(line[name]), line[f"{name}_score"], line.get(f"{name}_fields_right"))
        for name in names
    }
    return AnswerRow(
        line["index"],
        line.get("prompt") or [],
        line.get("rendered") or "",
        _said(line.get("expected")),
        line.get("meta") or {},
        sides,
    )


def _said(answer: Any) -> str:
    """An answer, or the labels of a classifier."""
    return ", ".join(answer) if isinstance(answer, list) else answer or ""


KINDS = {
    "all": N_("All"),
    "improved": N_("Improved"),
    "damaged": N_("Damaged"),
    "different": N_("Different"),
    "failed": N_("Failed"),
}
"""What can be asked for: rows whose tuned answer scores higher or lower than the other's, reads
otherwise, or is not right."""


def is_of(kind: str, row: AnswerRow, against: str) -> bool:
    tuned, other = row.sides[TUNED], row.sides.get(against)
    if kind == "failed":
        return tuned.score < 1
    if kind == "all" or other is None:
        return kind == "all"
    if kind == "different":
        return tuned.text != other.text
    gain = row.gain(against)
    return gain > 0 if kind == "improved" else gain < 0


def chosen(rows: Sequence[AnswerRow], kind: str, words: str, against: str) -> list[AnswerRow]:
    """The rows of a kind that contain `words`, upper and lower case alike: those that lost most
    first, of improved ones those that gained most."""
    wanted = words.strip().casefold()
    found = [
        row
        for row in rows
        if is_of(kind, row, against) and (not wanted or wanted in _text(row).casefold())
    ]
    sign = -1 if kind == "improved" else 1
    return sorted(
        found, key=lambda row: (sign * row.gain(against), row.sides[TUNED].score, row.index)
    )


def _text(row: AnswerRow) -> str:
    said = (str(turn.get("content") or "") for turn in row.prompt)
    return "\n".join([*said, row.expected, *(side.text for side in row.sides.values())])


def columns(rows: Sequence[AnswerRow]) -> list[str]:
    """The columns by whose values rows can be counted: texts, numbers and flags with few values."""
    values: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row.meta.items():
            if isinstance(value, str | int | float | bool):
                values.setdefault(name, set()).add(str(value))
    return sorted(name for name, found in values.items() if 1 < len(found) <= _MOST_VALUES)


@dataclass(frozen=True)
class Slice:
    """The rows with one value of a column; each model's mean score by its name."""

    value: str
    rows: int
    scores: Mapping[str, Estimate]
    difference: Estimate | None


def slices(rows: Sequence[AnswerRow], column: str, against: str) -> list[Slice]:
    """The rows by the values of a column, the largest first."""
    groups: dict[str, list[AnswerRow]] = {}
    for row in rows:
        if column in row.meta:
            groups.setdefault(str(row.meta[column]), []).append(row)
    found = []
    for value, members in groups.items():
        names = [name for name in (against, TUNED) if name in members[0].sides]
        scores = {name: _mean([row.sides[name].score for row in members]) for name in names}
        gains = np.array([row.gain(against) for row in members])
        difference = mean(gains) if against in scores else None
        found.append(Slice(value, len(members), scores, difference))
    return sorted(found, key=lambda one: (-one.rows, one.value))


def _mean(values: Sequence[float]) -> Estimate:
    scores = np.array(values)
    if np.isin(scores, (0.0, 1.0)).all():
        return share(float(scores.sum()), len(scores))
    return mean(scores)
