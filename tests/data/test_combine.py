"""Data sets put together: weights say how often a row comes, and held-out rows stay held out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from core.data.combine import combine_datasets
from core.data.prepare import import_dataset
from core.data.registry import read_rows
from core.errors import DataError
from core.workspace import Workspace


def bring(workspace: Workspace, folder: Path, name: str, count: int, **more: Any) -> str:
    path = folder / f"{name}.jsonl"
    rows = [{"prompt": f"{name} {n}", "answer": "A", f"only_{name}": n} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return import_dataset(workspace, [path], **more).id


def test_weights_say_how_often_a_row_comes(open_workspace: Workspace, tmp_path: Path) -> None:
    one = bring(open_workspace, tmp_path, "one", 40, eval_fraction=0.25)
    two = bring(open_workspace, tmp_path, "two", 20, eval_fraction=0)
    info = combine_datasets(open_workspace, [(one, 0.5), (two, 2.5)], name="Both")
    assert (info.id, info.counts.train, info.counts.eval) == ("both", 15 + 50, 10)
    rows = read_rows(open_workspace, info.id, limit=1000)
    times = Counter(row["prompt"][0]["content"] for row in rows)
    assert Counter(times[f"two {n}"] for n in range(20)) == {2: 10, 3: 10}
    assert set(times.values()) == {1, 2, 3}
    assert rows[0]["meta"]["dataset"] == "one"
    assert set(info.columns) == {"only_one", "only_two", "dataset"}
    held_out = {
        row["prompt"][0]["content"] for row in read_rows(open_workspace, info.id, "eval", limit=99)
    }
    assert len(held_out) == 10 and not held_out & set(times)
    assert [source.origin["weight"] for source in info.sources] == [0.5, 2.5]


def test_the_same_sets_and_seed_give_the_same_rows(
    open_workspace: Workspace, tmp_path: Path
) -> None:
    sets = [(bring(open_workspace, tmp_path, name, 30), 0.4) for name in ("one", "two")]
    first, second = (combine_datasets(open_workspace, sets, seed=3) for _ in range(2))
    other = combine_datasets(open_workspace, sets, seed=4)
    assert first.fingerprint == second.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("weights", "message"), [([1.0], "nothing to put together"), ([1.0, 0.0], "weight of 0")]
)
def test_what_cannot_be_put_together_leaves_nothing(
    open_workspace: Workspace, tmp_path: Path, weights: list[float], message: str
) -> None:
    sets = [
        (bring(open_workspace, tmp_path, f"set{n}", 5), weight) for n, weight in enumerate(weights)
    ]
    before = sorted(path.name for path in open_workspace.datasets.iterdir())
    with pytest.raises(DataError, match=message):
        combine_datasets(open_workspace, sets)
    assert sorted(path.name for path in open_workspace.datasets.iterdir()) == before


def test_sets_of_two_forms_are_refused(open_workspace: Workspace, tmp_path: Path) -> None:
    one = bring(open_workspace, tmp_path, "one", 5)
    path = tmp_path / "text.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\n', encoding="utf-8")
    text = import_dataset(open_workspace, [path]).id
    with pytest.raises(DataError, match=r"one holds prompt-completion rows and text text rows"):
        combine_datasets(open_workspace, [(one, 1.0), (text, 1.0)])
