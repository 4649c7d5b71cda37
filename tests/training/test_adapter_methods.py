"""Kinds of adapters beyond plain supervised fine-tuning: on quantized bases, against a reference,
with labels, stopped and resumed, exported, and side by side in a chat."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.chat.settings import Column
from core.errors import ConfigError, ExportError
from core.models.trained import find_trained
from core.worker.chat.loaded import Models, Voice
from core.worker.export.run import run_export
from core.worker.models.classifier import label_logits, open_classifier, text_ids
from core.worker.models.loading import open_model, open_trained
from core.worker.training.run import run_training
from core.workspace import RunFolder
from tests.preferences import THINGS, bring, pairs
from tests.tiny_model import TinyWorld
from tests.training.conftest import events, losses
from tests.training.labelled import LabelWorld, label_world, labelled_rows
from tests.training.test_resume import stop_at

Train = Callable[..., RunFolder]
RATE = "training.learning_rate"
ADALORA = {"adapter.method": "adalora", "adapter.init_r": 8, "adapter.target_r": 4}
PROMPT = {"adapter.method": "prompt_tuning"}
IA3 = {"adapter.method": "ia3"}
LLAMA = {"model.model_name_or_path": "tiny-llama"}

QUANTIZED: dict[str, dict[str, Any]] = {
    "nf4-double": {"adapter.quantization": "nf4"},
    "fp4-in-fp32": {
        "adapter.quantization": "fp4",
        "adapter.bnb_4bit_use_double_quant": False,
        "adapter.bnb_4bit_compute_dtype": "float32",
    },
    "int8": {"adapter.quantization": "int8"},
    "nf4-dora": {"adapter.quantization": "nf4", "adapter.use_dora": True},
    "nf4-vera": {"adapter.quantization": "nf4", "adapter.method": "vera", RATE: 0.3},
    "nf4-oft": {"adapter.quantization": "nf4", "adapter.method": "oft"},
    "int8-adalora": {"adapter.quantization": "int8", **ADALORA, RATE: 0.1},
    "int8-prompt": {"adapter.quantization": "int8", **PROMPT, RATE: 0.1},
}


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> LabelWorld:
    made = label_world(tmp_path_factory.mktemp("labels"))
    made.data("short", labelled_rows(96), labelled_rows(48, 1))
    return made


@pytest.mark.parametrize("case", QUANTIZED)
def test_it_learns_on_a_quantized_base(train: Train, world: TinyWorld, case: str) -> None:
    """With an evaluation after each epoch: on a CPU one would end all learning below 4-bit layers,
    without a word."""
    run = train(
        case,
        **{"training.num_train_epochs": 4.0, "evaluation.eval_strategy": "epoch"},
        **QUANTIZED[case],
    )
    curve = losses(run)
    assert fmean(curve[-3:]) < fmean(curve[:3]) - 0.2
    if case in ("nf4-double", "fp4-in-fp32", "int8"):  # as quick as on plain weights
        assert fmean(curve[-3:]) < 2.0
    model, _ = open_trained(find_trained(run), str(world.base), device="cpu", dtype=torch.float32)
    held = {type(module).__name__ for module in model.modules()}
    assert held & {"Linear4bit", "Linear8bitLt"}


@pytest.mark.parametrize(
    "settings",
    [
        {**ADALORA, "adapter.tfinal": 4, RATE: 0.1},
        {"adapter.init_lora_weights": "pissa", "adapter.r": 4},
        {**PROMPT, RATE: 0.1},
    ],
    ids=["adalora", "pissa", "prompt"],
)
def test_a_stopped_run_ends_as_one_that_was_not(
    train: Train,
    world: TinyWorld,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
) -> None:
    """Ranks that were judged, or what was taken out of the base, would be lost at a stop."""
    whole = train("whole", **settings)
    with monkeypatch.context() as patch:
        stop_at(3, patch)
        parts = train("parts", **settings)
    parts.stop_request.unlink()
    run_training(parts.root, world.root, Path("checkpoints/checkpoint-3"))
    expected, found = (load_file(r.adapter / "adapter_model.safetensors") for r in (whole, parts))
    assert expected.keys() == found.keys()
    for name in expected:
        assert torch.allclose(expected[name], found[name], atol=1e-6), name
    told, again = (
        json.loads((r.adapter / "adapter_config.json").read_text()) for r in (whole, parts)
    )
    assert told["rank_pattern"] == again["rank_pattern"] if "rank_pattern" in told else True


def test_adalora_takes_ranks_away_and_writes_those_that_are_left(train: Train) -> None:
    """It would train at its first rank for ever."""
    run = train("ranks", **{**ADALORA, RATE: 0.1})
    told = json.loads((run.adapter / "adapter_config.json").read_text())
    kept = [sum(ranks) for ranks in told["rank_pattern"].values()]
    assert sum(kept) == 4 * len(kept)
    weights = load_file(run.adapter / "adapter_model.safetensors")
    assert sum(len(part) for name, part in weights.items() if "lora_E" in name) == sum(kept)


@pytest.mark.parametrize(
    "settings",
    [{**ADALORA, RATE: 0.1}, {"adapter.method": "oft"}, {**IA3, RATE: 0.1}, {**PROMPT, RATE: 0.1}],
    ids=["adalora", "oft", "ia3", "prompt"],
)
def test_dpo_is_held_against_the_base(
    train: Train, world: TinyWorld, settings: dict[str, Any]
) -> None:
    """The reference is the model without its adapter: of a fresh one it is the same model, and its
    rewards are zero; virtual tokens change the model from the start."""
    space = world.workspace
    info = bring(space, pairs(THINGS[:4]), pairs(THINGS[4:]), "pairs-of-adapters")
    run = train(
        "dpo",
        **{"method": "dpo", "data.dataset": info.id, "evaluation.eval_strategy": "epoch"},
        **settings,
    )
    seen = [event for event in events(run, "metrics") if "eval_loss" in event]
    start = seen[0]["eval_rewards/margins"]
    assert (start == 0) != (settings["adapter.method"] == "prompt_tuning")
    assert seen[-1]["eval_rewards/margins"] > start + 0.3


@pytest.mark.parametrize(
    "settings",
    [
        {**ADALORA, RATE: 0.03, "training.num_train_epochs": 6.0},
        {"adapter.method": "lokr", RATE: 2e-2, "training.num_train_epochs": 4.0},
        {**IA3, RATE: 0.1, **LLAMA},
        {"adapter.init_lora_weights": "pissa", "adapter.lora_alpha": 16, **LLAMA},
        {"adapter.method": "freeze", RATE: 1e-2, **LLAMA},
    ],
    ids=["adalora", "lokr", "ia3", "pissa", "freeze"],
)
def test_labels_are_learned_with_a_head_that_is_saved(
    labels: LabelWorld, request: pytest.FixtureRequest, settings: dict[str, Any]
) -> None:
    """The head and the parts that the base came without would be noise once loaded again."""
    run = labels.train(request.node.callspec.id, "short", **settings)
    right = [e["eval_accuracy"] for e in events(run, "metrics") if "eval_accuracy" in e][-1]
    assert right > 0.5  # by chance 0.33
    trained = find_trained(run)
    base = str(labels.workspace.models / trained.base)
    model, tokenizer, names = open_classifier(trained, base, device="cpu", dtype=torch.float32)
    rows = labelled_rows(48, 1)
    ids = text_ids(tokenizer, [row["text"] for row in rows], 32)
    said = label_logits(model, tokenizer, ids).argmax(-1).tolist()
    again = sum(names.names[i] == row["labels"][0] for i, row in zip(said, rows, strict=True))
    assert again / 48 == pytest.approx(right, abs=0.03)


@pytest.mark.parametrize("method", ["classification", "orpo", "grpo", "mlm"])
def test_virtual_tokens_are_refused_where_they_do_not_go(method: str) -> None:
    """The run would fail at its first step, or learn something else than it shows."""
    from core.rules import parse_config

    with pytest.raises(ConfigError, match="virtual tokens do not go with it"):
        parse_config({"method": method, "adapter.method": "prefix_tuning"})


def test_what_was_learned_goes_with_an_export_and_stands_beside_others_in_a_chat(
    train: Train, world: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter of one kind on a base must not answer for another, nor virtual tokens be
    promised as a merged model."""
    monkeypatch.setenv("TUNESMITH_DEVICE", "cpu")
    runs = {
        "ia3": train("ia3", **IA3, **{RATE: 0.1}),
        "pissa": train("pissa", **{"adapter.init_lora_weights": "pissa", "adapter.r": 4}),
        "prompt": train("prompt", **PROMPT, **{RATE: 0.1}),
        "lora": train("lora", **{"adapter.modules_to_save": ["lm_head"]}),
    }
    for name, kind in (("ia3", "merged"), ("pissa", "adapter"), ("prompt", "adapter")):
        folder = world.task(runs[name], "export", name, {"format": kind})
        assert run_export(folder, world.root) == "finished"
    folder = world.task(runs["prompt"], "export", "whole", {"format": "merged"})
    with pytest.raises(ExportError, match="virtual tokens"):
        run_export(folder, world.root)

    ids = torch.tensor([[1, 9, 30, 42]])
    columns = [Column(None, base="tiny"), *(Column(run.root.name) for run in runs.values())]
    models = Models(world.workspace)
    models.load(columns, [str(world.base)] * len(columns), lambda share, message: None)
    alone = [open_model(world.base, device="cpu", dtype=torch.float32)]
    for run in runs.values():
        trained = find_trained(run)
        alone.append(open_trained(trained, str(world.base), device="cpu", dtype=torch.float32)[0])
    for place in (0, 1, 2, 3, 4, 0, 1, 4, 0):
        voice = models.voices[place]
        assert isinstance(voice, Voice)
        voice.take_turn()
        with torch.inference_mode():
            assert torch.equal(voice.model(ids).logits, alone[place](ids).logits), place
