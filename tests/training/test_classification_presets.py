"""The presets for large encoders, down to a training on a tiny model of the same family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, ModernBertConfig, ModernBertForMaskedLM

from core.config.presets import load_preset
from core.models.trained import find_trained
from tests.training.conftest import events
from tests.training.labelled import (
    LabelWorld,
    label_world,
    labelled_rows,
    tiny_bert_tokenizer,
)

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "pad_token_id": 0,
}


def tiny(preset: str) -> Any:
    """A model of the family that the preset names, from a config."""
    torch.manual_seed(0)
    if preset == "classify-modernbert":
        marks = {"bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
        return ModernBertForMaskedLM(ModernBertConfig(**SIZES, **marks))
    return BertForMaskedLM(BertConfig(**SIZES))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> LabelWorld:
    made = label_world(tmp_path_factory.mktemp("presets"))
    made.data("rule", labelled_rows(64), labelled_rows(24, 1))
    return made


@pytest.mark.parametrize(
    "name", ["classify-modernbert", "classify-chinese-roberta-3way", "classify-minilm"]
)
def test_a_preset_trains_on_its_family(world: LabelWorld, name: str) -> None:
    """Whoever chose the preset would learn of a wrong module after a download of hours."""
    preset = load_preset(name)
    folder = world.workspace.models / name
    tiny(name).save_pretrained(folder)
    tiny_bert_tokenizer().save_pretrained(folder)
    settings = {**preset.settings, "model.model_name_or_path": name}
    run = world.train(name, "rule", **settings)
    trained = find_trained(run)
    assert trained.is_adapter == (name != "classify-minilm")
    assert [e for e in events(run, "metrics") if "eval_f1_macro" in e]
    if name == "classify-chinese-roberta-3way":
        config = preset.config()
        assert (config.adapter.r, config.adapter.lora_alpha) == (16, 32)
        assert config.training.num_train_epochs == 3.0
