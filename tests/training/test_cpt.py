"""Continued pre-training: texts in full blocks, and whole runs on a tiny model."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from datasets.table import InMemoryTable
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from core.errors import DataError, ModelError
from core.models.trained import find_trained
from core.rules import load_config
from core.worker.models.loading import open_trained
from core.worker.training.callbacks import ReportEvents
from core.worker.training.rows import IDS, Rows
from core.worker.training.run import run_training
from core.worker.training.text import in_blocks
from core.workspace import RunFolder
from tests.tiny_model import tiny_world
from tests.training.conftest import events, losses
from tests.training.reading import TextWorld, plain_texts, text_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TextWorld:
    return text_world(tmp_path_factory.mktemp("cpt"))


def numbered_texts(lengths: list[int]) -> Rows:
    """Texts of these lengths whose tokens are numbered through."""
    tokens = iter(range(sum(lengths)))
    texts = pa.array([list(islice(tokens, length)) for length in lengths], IDS)
    return Rows("train", Dataset(InMemoryTable(pa.table({"input_ids": texts}))), [])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(2, 40), min_size=1, max_size=20), st.integers(4, 32), st.booleans())
def test_no_token_is_lost_and_none_is_predicted_from_nothing(
    lengths: list[int], longest: int, apart: bool
) -> None:
    """A person's texts would be cut, or the model would learn to guess the first word of a text."""
    rows = in_blocks(numbered_texts(lengths), longest, apart=apart)
    blocks = rows.dataset.to_list()
    assert [token for block in blocks for token in block["input_ids"]] == list(range(sum(lengths)))
    assert max(rows.lengths) <= longest and min(rows.lengths) >= min(2, sum(lengths))
    starts = set(np.cumsum([0, *lengths[:-1]]).tolist())
    for block in blocks:
        unseen = {block["input_ids"][0]} | (starts if apart else set())
        expected = [-100 if token in unseen else token for token in block["input_ids"]]
        assert block["labels"] == expected
        if apart:
            assert sum(block["seq_lengths"]) == len(block["input_ids"])
            edges = np.cumsum(block["seq_lengths"])[:-1] + block["input_ids"][0]
            assert set(edges.tolist()) == starts & set(block["input_ids"][1:])


@pytest.mark.parametrize(
    "changes",
    [{}, {"text.documents": "joined", "adapter.method": "none", "training.learning_rate": 3e-3}],
    ids=["adapter-apart", "full-joined"],
)
def test_held_out_perplexity_falls_and_the_model_opens_again(
    world: TextWorld, request: pytest.FixtureRequest, changes: dict[str, Any]
) -> None:
    """A person would read on for hours and have nothing, or could not see that it works."""
    run = world.train(request.node.callspec.id, "cpt", "plain", **changes)
    measured = [event for event in events(run, "metrics") if "eval_loss" in event]
    assert measured[-1]["eval_loss"] < losses(run)[0] - 1
    for event in events(run, "metrics"):
        for name in ("loss", "eval_loss"):
            if name in event:
                told = event[name.replace("loss", "perplexity")]
                assert told == pytest.approx(math.exp(event[name]))
    config = load_config(run.config)
    assert config.text.documents == changes.get("text.documents", "apart")
    result = world.measure(run)
    before, after = result["base"]["perplexity"], result["tuned"]["perplexity"]
    assert after["high"] < before["low"] / 2
    assert "has learned how such texts go" in result["verdict"]
    assert f"{after['value']:.3g}" in result["verdict"]
    assert {"base", "tuned", "text"} <= result["texts"][0].keys()
    # Each text whole, in pieces of its own: close to what the run itself measured in blocks.
    assert result["tuned"]["eval_loss"]["value"] == pytest.approx(
        measured[-1]["eval_loss"], abs=0.15
    )
    prompt = events(run, "sample")[-1]["prompt"][0]["content"]
    assert any(text.startswith(prompt) for text in plain_texts(24, 1))


def test_a_resumed_run_ends_as_one_that_was_not_stopped(
    world: TextWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was stopped would not be the run that one would have had."""
    short = {"evaluation.eval_strategy": "no", "training.max_steps": 5}
    whole = world.train("whole", "cpt", "plain", **short)
    parts = world.run("parts", "cpt", "plain", **short)
    with monkeypatch.context() as patch:
        stop_at(3, patch)
        assert run_training(parts.root, world.workspace.root, None) == "stopped"
    parts.stop_request.unlink()
    torch.manual_seed(12345)  # another process has other random numbers
    checkpoint = parts.checkpoints / "checkpoint-3"
    assert run_training(parts.root, world.workspace.root, checkpoint) == "finished"
    name = "adapter_model.safetensors"
    found, expected = load_file(parts.adapter / name), load_file(whole.adapter / name)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = ReportEvents.on_step_begin

    def ask(self: ReportEvents, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step == step - 1:
            RunFolder(Path(args.output_dir).parent).stop_request.touch()
        begin(self, args, state, control, **given)

    monkeypatch.setattr(ReportEvents, "on_step_begin", ask)


def test_other_rows_and_other_models_are_refused_with_what_to_do(
    world: TextWorld, tmp_path: Path
) -> None:
    """A run would fail deep inside a library, or train a model in a way it was not made for."""
    chats = tiny_world(tmp_path)
    run = chats.run("chats", {"method": "cpt", "evaluation.eval_strategy": "no"})
    with pytest.raises(DataError, match="learns from text") as refused:
        run_training(run.root, chats.root, None)
    assert "import them as text with a template" in str(refused.value)
    encoder = world.run("encoder", "cpt", "plain", **{"model.model_name_or_path": "tiny-bert"})
    with pytest.raises(ModelError, match="is an encoder"):
        run_training(encoder.root, world.workspace.root, None)


def test_what_was_read_on_can_be_exported(world: TextWorld) -> None:
    """The run would end in this workspace."""
    run = world.train("away", "cpt", "plain", **{"training.max_steps": 3})
    assert "continued pre-training" in (world.export(run, "merged") / "README.md").read_text()
    model, tokenizer = open_trained(
        find_trained(run),
        str(world.workspace.models / "tiny-llama"),
        device="cpu",
        dtype=torch.float32,
    )
    assert model(**tokenizer("we saw", return_tensors="pt")).logits.isfinite().all()
