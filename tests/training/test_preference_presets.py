"""Each preset for preferences, down to the built trainer, on a tiny model of the same family."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from core.config import parse_config
from core.config.presets import list_presets
from core.methods import named
from core.training.preference import prepare
from core.workspace import Workspace
from tests.preferences import THINGS, bring, judged, pairs
from tests.tiny_model import tiny_tokenizer

METHODS_HERE = named(section="preference", writes=True)
PRESETS = [preset for preset in list_presets() if preset.config().method in METHODS_HERE]
TINY: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    workspace = Workspace.open(tmp_path_factory.mktemp("presets"))
    models = (LlamaForCausalLM(LlamaConfig(**TINY)), Qwen2ForCausalLM(Qwen2Config(**TINY)))
    for name, model in zip(("llama", "qwen2"), models, strict=True):
        model.save_pretrained(workspace.models / name)
        tiny_tokenizer().save_pretrained(workspace.models / name)
    bring(workspace, pairs(THINGS[:4]), pairs(THINGS[4:]), "pairs")
    bring(workspace, judged(THINGS[:4]), judged(THINGS[4:]), "judged")
    yield workspace
    torch.set_num_threads(before)


def test_there_are_presets_for_preferences() -> None:
    assert {"kto", "orpo", "qwen2.5-7b-assistant-dpo"} <= {preset.name for preset in PRESETS}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_its_trainer_can_be_built_and_takes_a_step(preset: Any, opened: Workspace) -> None:
    """A preset for a model of many gigabytes would fail after hours of fetching."""
    config = preset.config()
    family = "qwen2" if "Qwen2" in config.model.model_name_or_path else "llama"
    values = {
        **config.values(),
        "model.model_name_or_path": family,
        "data.dataset": "judged" if config.method == "kto" else "pairs",
        "training.device": "cpu",
        "training.precision": "fp32",
        "training.max_steps": 1,
        "training.gradient_accumulation_steps": 1,
        "evaluation.eval_strategy": "no",
        "tracking.save_strategy": "no",
    }
    run = opened.run(preset.name.replace(".", "-"))
    run.root.mkdir(parents=True)
    config = parse_config(values)
    config.save(run.config)
    ready = prepare(run, opened, config, None)
    trainer = importlib.import_module(config.training_method.module).make_trainer(ready)
    assert trainer.args.learning_rate == preset.config().training.learning_rate
    assert trainer.beta == preset.config().preference.beta
    assert trainer.args.gradient_checkpointing is ready.start.config.training.gradient_checkpointing
    trainer.train()
    assert trainer.state.global_step == 1
    assert torch.isfinite(torch.tensor(trainer.state.log_history[0]["loss"]))
