"""What the page shows of a row is what the trainer gets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.data.prepare import import_dataset
from core.data.preview import dataset_token_counts, preview_rows
from core.data.registry import read_rows
from core.data.tokenize import NO_LOSS, tokenize_rows
from core.errors import ModelError
from core.workspace import Workspace
from tests.data.conftest import CHATML

MAX_LENGTH = 60


@pytest.fixture
def model(tmp_path: Path, tokenizer_for: Callable[[str | None], Any]) -> str:
    tokenizer_for(CHATML).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def dataset(open_workspace: Workspace, tmp_path: Path) -> str:
    rows = [{"prompt": f"What is {n}?", "answer": f"It is {n}."} for n in range(1, 1201)]
    rows[3]["answer"] = "It is long. " * 40
    rows[5]["prompt"] = "Is it long? " * 40
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return import_dataset(open_workspace, [path], eval_fraction=0.0).id


def test_the_preview_shows_what_is_trained(
    open_workspace: Workspace, dataset: str, model: str, tokenizer_for: Callable[[str], Any]
) -> None:
    shown = preview_rows(
        open_workspace.root, dataset, "train", [0, 3, 5, 5000], model, MAX_LENGTH, True, "Short."
    )
    assert json.loads(json.dumps(shown)) == shown
    trained, _ = tokenize_rows(
        read_rows(open_workspace, dataset, limit=1),
        tokenizer_for(CHATML),
        max_length=MAX_LENGTH,
        assistant_only_loss=True,
        system_prompt="Short.",
    )
    assert [token for _, token, _ in shown[0]["tokens"]] == trained[0].input_ids
    assert [loss for _, _, loss in shown[0]["tokens"]] == [
        label != NO_LOSS for label in trained[0].labels
    ]
    assert shown[0]["loss_tokens"] == trained[0].loss_tokens and shown[0]["error"] is None
    assert shown[1]["length"] == MAX_LENGTH < shown[1]["full_length"]
    assert "max_length" in shown[2]["error"] and shown[2]["tokens"]
    assert "no row 5000" in shown[3]["error"]


def test_counts_are_those_of_all_rows(
    open_workspace: Workspace, dataset: str, model: str, tokenizer_for: Callable[[str], Any]
) -> None:
    """Steps and cost are planned with these numbers."""
    heard: list[float] = []
    counts = dataset_token_counts(
        open_workspace.root, dataset, model, MAX_LENGTH, progress=heard.append
    )
    usable, unusable = tokenize_rows(
        read_rows(open_workspace, dataset, limit=1200),
        tokenizer_for(CHATML),
        max_length=MAX_LENGTH,
        assistant_only_loss=True,
    )
    assert [index for index, _ in unusable] == [5]
    assert counts["train_rows"] == 1200 and counts["eval_rows"] == counts["eval_tokens"] == 0
    assert counts["train_tokens"] == sum(row.length for row in usable)
    assert counts["loss_tokens"] == sum(row.loss_tokens for row in usable)
    assert counts["rows_without_loss"] == 1 and counts["unusable_rows"] == 0
    assert counts["cut_rows"] == 2 and counts["longest"] > MAX_LENGTH
    assert "max_length" in counts["first_reason"]
    assert heard[-1] == 1.0
    some = dataset_token_counts(open_workspace.root, dataset, model, MAX_LENGTH, max_rows=3)
    assert some["train_rows"] == 3 and some["cut_rows"] == 0


def test_rows_that_the_template_refuses_are_counted(
    open_workspace: Workspace,
    dataset: str,
    tmp_path: Path,
    tokenizer_for: Callable[[str], Any],
) -> None:
    refusing = "{{ raise_exception('Not for you') }}"
    tokenizer_for(refusing).save_pretrained(tmp_path / "refusing")
    path = str(tmp_path / "refusing")
    counts = dataset_token_counts(open_workspace.root, dataset, path, None, max_rows=4)
    assert counts["unusable_rows"] == counts["train_rows"] == 4
    assert "Not for you" in counts["first_reason"]
    shown = preview_rows(open_workspace.root, dataset, "train", [0], path, None)
    assert "Not for you" in shown[0]["error"] and shown[0]["tokens"] == []


def test_a_model_without_a_tokenizer_says_so(
    open_workspace: Workspace, dataset: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="tokenizer of empty cannot be loaded") as caught:
        preview_rows(open_workspace.root, dataset, "train", [0], str(tmp_path / "empty"), 8)
    assert caught.value.hint
