"""Counts of some rows, taken for all: right where all were counted, near where not."""

from __future__ import annotations

from typing import Any

import pytest

from core.data import estimate
from core.data.preview import dataset_token_counts
from core.data.registry import load_dataset_info
from core.data.statistics import read_statistics
from tests.tiny_model import TinyWorld, tiny_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    answer = {"role": "assistant", "content": "word " * 8}
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": f"say {n}"}, answer]} for n in range(60)
    ]
    return tiny_world(
        tmp_path_factory.mktemp("world") / "workspace", rows=rows, eval_rows=rows[:10]
    )


def test_a_small_set_is_counted_whole(world: TinyWorld) -> None:
    asked = (world.root, world.dataset.id, str(world.base), 20)
    counts = estimate.estimated_token_counts(*asked)
    assert counts.pop("counted_rows") == 70
    assert counts.pop("estimated") is False
    assert counts == dataset_token_counts(*asked)


def test_of_a_large_set_some_rows_stand_for_all(
    world: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "COUNTED_ROWS", 20)
    asked = (world.root, world.dataset.id, str(world.base), 20)
    counts, whole = estimate.estimated_token_counts(*asked), dataset_token_counts(*asked)
    assert counts["estimated"] is True
    assert counts["counted_rows"] == 30
    assert counts["train_rows"] == 60
    assert counts["cut_rows"] == whole["cut_rows"]
    assert counts["train_tokens"] == pytest.approx(whole["train_tokens"], rel=0.05)
    assert counts["eval_tokens"] == pytest.approx(whole["eval_tokens"], rel=0.05)


def test_what_was_counted_of_every_row_needs_no_second_count(world: TinyWorld) -> None:
    """The page reads it without a tokenizer, for any max_length."""
    told: list[tuple[float, str]] = []
    base = str(world.base)
    estimate.count_every_row(
        world.root, world.dataset.id, base, "", "", lambda *news: told.append(news)
    )
    assert told[-1] == (1.0, "Counting the rest")
    info = load_dataset_info(world.workspace, world.dataset.id)
    found = read_statistics(world.workspace, info, base, 20)
    assert found is not None
    assert found["rows"] == 60
    assert found["cut_rows"] == 60


def test_without_a_model_what_needs_no_tokenizer_is_counted(world: TinyWorld) -> None:
    found = estimate.sampled_statistics(world.root, world.dataset.id, "", 20)
    assert found["turns"] == [[2, 60]]
    assert found["lengths"] == {}
    assert found["suggested"] is None
