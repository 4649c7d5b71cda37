"""Each preset that learns from rewards, down to a step of its trainer, on a tiny model of the same
family."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from core.config import parse_config
from core.config.presets import list_presets
from core.data.prepare import import_dataset
from core.methods import named
from core.training.reinforcement import prepare
from core.workspace import Workspace
from tests.tiny_model import tiny_tokenizer
from tests.training.test_preference_presets import TINY

METHODS_HERE = named(section="reinforcement")
PRESETS = [preset for preset in list_presets() if preset.config().method in METHODS_HERE]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    workspace = Workspace.open(tmp_path_factory.mktemp("presets"))
    models = (LlamaForCausalLM(LlamaConfig(**TINY)), Qwen2ForCausalLM(Qwen2Config(**TINY)))
    for name, model in zip(("llama", "qwen2"), models, strict=True):
        model.save_pretrained(workspace.models / name)
        tiny_tokenizer().save_pretrained(workspace.models / name)
    workspace.uploads.mkdir(exist_ok=True)
    path = workspace.uploads / "sums.jsonl"
    rows = [{"prompt": f"What is {n} and {n}?", "ground_truth": str(2 * n)} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    import_dataset(workspace, [path], name="sums", eval_fraction=0.0)
    yield workspace
    torch.set_num_threads(before)


def test_there_are_presets_for_rewards() -> None:
    assert {"grpo-json", "grpo-math", "rloo"} <= {preset.name for preset in PRESETS}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_its_trainer_can_be_built_and_takes_a_step(preset: Any, opened: Workspace) -> None:
    """A preset for a model of many gigabytes would fail after hours of fetching."""
    config = preset.config()
    family = "qwen2" if "Qwen2" in config.model.model_name_or_path else "llama"
    values = {
        **config.values(),
        "model.model_name_or_path": family,
        "data.dataset": "sums",
        "training.device": "cpu",
        "training.precision": "fp32",
        "training.max_steps": 1,
        "reinforcement.max_completion_length": 4,
        "tracking.save_strategy": "no",
    }
    run = opened.run(preset.name.replace(".", "-"))
    run.root.mkdir(parents=True)
    config = parse_config(values)
    config.save(run.config)
    ready = prepare(run, opened, config, None)
    trainer = importlib.import_module(config.training_method.module).make_trainer(ready)
    section = preset.config().reinforcement
    assert trainer.args.learning_rate == preset.config().training.learning_rate
    assert trainer.args.num_generations == section.num_generations
    assert trainer.args.generation_batch_size % section.num_generations == 0
    assert trainer.beta == section.kl_beta
    trainer.train()
    assert trainer.state.global_step == 1
    first = trainer.state.log_history[0]
    assert torch.isfinite(torch.tensor(first["loss"])) and "reward" in first
