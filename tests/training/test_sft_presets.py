"""Each preset for answers, down to the built trainer and a step, on a tiny model of its family."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM
from trl import SFTConfig

from core.config import parse_config
from core.config.presets import list_presets, load_preset
from core.training.run import run_training
from core.training.setup import arguments
from core.workspace import RunFolder
from tests.tiny_model import CHATML, TinyWorld, tiny_tokenizer, tiny_world
from tests.training.conftest import losses

SIZES: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
# What each preset is known for, by the settings of the adapter and of the training.
KNOWN_FOR: dict[str, dict[str, Any]] = {
    "alpaca-lora": {
        "adapter.r": 16,
        "adapter.lora_alpha": 16,
        "adapter.lora_dropout": 0.05,
        "training.learning_rate": 3e-4,
        "training.num_train_epochs": 3.0,
        "training.max_length": 512,
        "data.chat_template": "alpaca",
    },
    "qlora-large-model": {
        "adapter.quantization": "nf4",
        "adapter.bnb_4bit_use_double_quant": True,
        "training.gradient_checkpointing": True,
    },
    "qwen2.5-0.5b-sft": {
        "adapter.r": 8,
        "adapter.lora_alpha": 16,
        "adapter.target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
        "training.learning_rate": 5e-5,
        "training.max_length": 512,
    },
    "qwen2.5-7b-assistant": {
        "training.learning_rate": 2e-4,
        "training.per_device_train_batch_size": 4,
        "training.gradient_accumulation_steps": 8,
        "training.gradient_checkpointing": True,
    },
}


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyWorld]:
    world = tiny_world(tmp_path_factory.mktemp("presets"))
    # A base such as TinyLlama's first comes without a chat template.
    models = (
        ("llama", LlamaForCausalLM(LlamaConfig(**SIZES)), None),
        ("qwen2", Qwen2ForCausalLM(Qwen2Config(**SIZES)), CHATML),
    )
    for name, model, template in models:
        model.save_pretrained(world.workspace.models / name)
        tiny_tokenizer(template).save_pretrained(world.workspace.models / name)
    yield world


@pytest.mark.parametrize("name", sorted(KNOWN_FOR))
def test_a_preset_has_its_figures_and_takes_a_step(families: TinyWorld, name: str) -> None:
    """Whoever chose the preset would learn of a wrong module after a download of hours."""
    config = load_preset(name).config()
    values = config.values()
    assert {path: values[path] for path in KNOWN_FOR[name]} == KNOWN_FOR[name]
    family = "qwen2" if "Qwen2" in config.model.model_name_or_path else "llama"
    run = families.run(
        name.replace(".", "-"),
        {
            **values,
            "model.model_name_or_path": family,
            "data.dataset": families.dataset.id,
            "training.max_steps": 1,
            "training.gradient_accumulation_steps": 1,
            "training.warmup_steps": 0.0,
            "training.precision": "fp32",
            "training.device": "cpu",
            "training.optim": "adamw_torch",  # pages of memory are a GPU's
            "evaluation.eval_strategy": "no",
            "evaluation.sample_max_new_tokens": 0,
            "tracking.save_strategy": "no",
        },
    )
    assert run_training(run.root, families.root, None) == "finished"
    assert torch.isfinite(torch.tensor(losses(run))).all()
    saved = json.loads((run.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert (saved["r"], saved["lora_alpha"]) == (config.adapter.r, config.adapter.lora_alpha)
    if isinstance(config.adapter.target_modules, list):
        assert sorted(saved["target_modules"]) == sorted(config.adapter.target_modules)


@pytest.mark.parametrize(
    "preset",
    [preset for preset in list_presets() if preset.config().method == "sft"],
    ids=lambda preset: preset.name,
)
def test_the_library_takes_its_arguments(preset: Any, tmp_path: Any) -> None:
    values = {**preset.config().values(), "training.device": "cpu", "training.precision": "fp32"}
    batch = values["training.per_device_train_batch_size"]
    values["training.per_device_train_batch_size"] = 1 if batch == "auto" else batch
    given = arguments(parse_config(values), RunFolder(tmp_path))
    checkpointing = given.pop("gradient_checkpointing")
    args = SFTConfig(**given, gradient_checkpointing=checkpointing is True)
    assert args.learning_rate == preset.config().training.learning_rate
    assert args.optim == preset.config().training.optim
