"""Counts of some rows, taken for all: right where all were counted, near where not."""

from __future__ import annotations

from typing import Any

import pytest

from core.data.registry import load_dataset_info
from core.tokens.counts import estimated_token_counts
from core.tokens.lens import Lens
from core.tokens.statistics import read_statistics
from core.worker import tokenizers as tokens_worker
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
    asked = (world.workspace, world.dataset.id, Lens(str(world.base), 20))
    counts = tokens_worker.estimated_token_counts(*asked)
    assert counts.pop("counted_rows") == 70
    assert counts.pop("estimated") is False
    assert counts == tokens_worker.token_counts(*asked)


def test_of_a_large_set_some_rows_stand_for_all(world: TinyWorld) -> None:
    lens = Lens(str(world.base), 20)
    whole = tokens_worker.token_counts(world.workspace, world.dataset.id, lens)
    tokenizer = tokens_worker.open_tokenizer(world.workspace, lens)
    info = load_dataset_info(world.workspace, world.dataset.id)
    counts = estimated_token_counts(info, tokenizer, lens, max_rows=20)
    assert counts["estimated"] is True
    assert counts["counted_rows"] == 30
    assert counts["train_rows"] == 60
    assert counts["cut_rows"] == whole["cut_rows"]
    assert counts["train_tokens"] == pytest.approx(whole["train_tokens"], rel=0.05)
    assert counts["eval_tokens"] == pytest.approx(whole["eval_tokens"], rel=0.05)


def test_what_was_counted_of_every_row_needs_no_second_count(world: TinyWorld) -> None:
    """The page reads it without a tokenizer, for any max_length."""
    told: list[tuple[float, str]] = []
    lens = Lens(str(world.base), 20)
    tokens_worker.count_every_row(
        world.workspace, world.dataset.id, lens, lambda *news: told.append(news)
    )
    assert told[-1] == (1.0, "Counting the rest")
    info = load_dataset_info(world.workspace, world.dataset.id)
    found = read_statistics(world.workspace, info, lens, str(world.base))
    assert found is not None
    assert found["rows"] == 60
    assert found["cut_rows"] == 60


def test_without_a_model_what_needs_no_tokenizer_is_counted(world: TinyWorld) -> None:
    found = tokens_worker.sampled_statistics(world.workspace, world.dataset.id, Lens("", 20))
    assert found["turns"] == [[2, 60]]
    assert found["lengths"] == {}
    assert found["suggested"] is None
