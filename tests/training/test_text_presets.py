"""Each preset for plain text, down to the built trainer, on a tiny model of the same family."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from core.config import parse_config
from core.config.presets import list_presets
from core.methods import named
from tests.tiny_model import tiny_tokenizer
from tests.training.labelled import tiny_bert_tokenizer
from tests.training.reading import TextWorld, text_world

METHODS_HERE = named(section="text")
PRESETS = [preset for preset in list_presets() if preset.config().method in METHODS_HERE]
SIZE: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TextWorld:
    made = text_world(tmp_path_factory.mktemp("presets"))
    decoder = LlamaForCausalLM(LlamaConfig(**SIZE, max_position_embeddings=8192))
    encoder = BertModel(BertConfig(**SIZE, max_position_embeddings=512))  # without a head
    for name, model, tokenizer in (
        ("SmolLM2-135M-Instruct", decoder, tiny_tokenizer()),
        ("all-MiniLM-L6-v2", encoder, tiny_bert_tokenizer()),
    ):
        model.save_pretrained(made.workspace.models / f"tiny-{name}")
        tokenizer.save_pretrained(made.workspace.models / f"tiny-{name}")
    return made


def test_there_are_presets_for_both() -> None:
    assert {"cpt-domain", "mlm-domain"} <= {preset.name for preset in PRESETS}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_its_trainer_can_be_built_and_takes_a_step(preset: Any, world: TextWorld) -> None:
    """A preset would fail after its model was fetched."""
    given = preset.config()
    values = {
        **given.values(),
        "model.model_name_or_path": f"tiny-{given.model.model_name_or_path}",
        "data.dataset": "plain",
        "training.device": "cpu",
        "training.precision": "fp32",
        "training.max_steps": 1,
        "evaluation.eval_strategy": "no",
        "tracking.save_strategy": "no",
    }
    run = world.workspace.run(preset.name)
    run.root.mkdir(parents=True)
    config = parse_config(values)
    config.save(run.config)
    module = importlib.import_module(config.training_method.module)
    trainer, start = module.prepare(run, world.workspace, config, None)
    assert trainer.args.learning_rate == given.training.learning_rate
    longest = 64 if config.method == "mlm" else given.training.max_length  # its tokenizer's
    assert start.config.training.max_length == longest
    trainer.train()
    assert trainer.state.global_step == 1
    assert torch.isfinite(torch.tensor(trainer.state.log_history[0]["loss"]))
