"""Runs a step over rows in memory, as the engine does over files: rows of train, then of eval and
test; each part's end calls `finish`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.data.read.row import Row
from core.data.record import PARTS
from core.data.steps.base import RowWork, Setting, Step, Unusable
from core.workspace import Workspace


@dataclass
class Outcome:
    """Rows that are left, and (part, index, reason) of each that went."""

    rows: list[Row] = field(default_factory=list)
    dropped: list[tuple[str, int, str]] = field(default_factory=list)

    @property
    def reasons(self) -> list[str]:
        return [reason for _, _, reason in self.dropped]


def setting(form: str, folder: Path) -> Setting:
    return Setting(Workspace(folder, (Path("/"),)), form, folder)


def play(step: Step, rows: Sequence[Row], form: str, folder: Path) -> Outcome:
    """What the step makes of rows, each with its `part`. Fails when it changes one it was given."""
    before = copy.deepcopy(list(rows))
    work = step.start(setting(form, folder))
    outcome = Outcome()
    if isinstance(work, RowWork):
        for part in PARTS:
            for index, row in enumerate(row for row in rows if row["part"] == part):
                try:
                    outcome.rows += work.feed(row)
                except Unusable as error:
                    outcome.dropped.append((part, index, str(error)))
            outcome.rows += work.finish()
    else:
        ordered = [row for part in PARTS for row in rows if row["part"] == part]
        for row in ordered:
            work.note(row)
        decision = work.decide()
        assert decision.parts is None and decision.order is None, "a quality step only drops"
        places = dict.fromkeys(PARTS, 0)
        for index, row in enumerate(ordered):
            if index in decision.drop:
                outcome.dropped.append((row["part"], places[row["part"]], decision.drop[index]))
            else:
                outcome.rows.append(row)
            places[row["part"]] += 1
    assert list(rows) == before, "a step never changes the row it was given"
    return outcome


def text(words: str, part: str = "train", **meta: Any) -> Row:
    return {"text": words, "part": part, **({"meta": meta} if meta else {})}


def labelled(words: str, *labels: str, part: str = "train") -> Row:
    return {"text": words, "labels": list(labels), "part": part}


def asked(question: str, answer: str, part: str = "train", **more: Any) -> Row:
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": answer}],
        "part": part,
        **more,
    }


def pair(question: str, chosen: str, rejected: str, part: str = "train") -> Row:
    return {
        "prompt": [{"role": "user", "content": question}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "part": part,
    }


def talk(*contents: str, part: str = "train") -> Row:
    """A conversation of user and assistant in turns."""
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": words} for i, words in enumerate(contents)]
    return {"messages": turns, "part": part}
