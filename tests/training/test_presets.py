"""Each preset, down to a step of its trainer and what is saved, on a tiny model of its family."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from core.data.prepare import import_dataset
from core.methods import METHODS
from core.rules import parse_config
from core.rules.presets import list_presets, load_preset
from core.worker.training.recipe import prepare
from core.workspace import Workspace
from tests.preferences import THINGS, bring, judged, pairs
from tests.tiny_model import CHATML, tiny_tokenizer, tiny_world
from tests.training.labelled import LabelWorld, labelled_rows, tiny_bert_tokenizer
from tests.training.reading import TextWorld, plain_texts

PRESETS = list_presets()
SIZE: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
# What each is known for.
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
    "classify-chinese-roberta-3way": {
        "adapter.r": 16,
        "adapter.lora_alpha": 32,
        "training.num_train_epochs": 3.0,
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
DATA = {
    "sft": "colours",
    "cpt": "plain",
    "mlm": "plain",
    "classification": "labels",
    "kto": "judged",
    "grpo": "sums",
    "rloo": "sums",
}


def family(model: str) -> str:
    """The tiny model that stands for one of the Hub."""
    words = ("SmolLM2", "TinyLlama", "Qwen", "MiniLM", "ModernBERT", "roberta")
    return next(word for word in words if word in model)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    world = tiny_world(tmp_path_factory.mktemp("presets"))
    made = world.workspace
    causal = {**SIZE, "num_key_value_heads": 2, "max_position_embeddings": 8192}
    marks = {"bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
    encoder = {**SIZE, "pad_token_id": 0}
    bert = tiny_bert_tokenizer()
    # A base such as TinyLlama's first comes without a chat template, MiniLM without a head.
    for name, model, tokenizer in (
        ("SmolLM2", LlamaForCausalLM(LlamaConfig(**causal)), tiny_tokenizer(CHATML)),
        ("TinyLlama", LlamaForCausalLM(LlamaConfig(**causal)), tiny_tokenizer(None)),
        ("Qwen", Qwen2ForCausalLM(Qwen2Config(**causal)), tiny_tokenizer(CHATML)),
        ("MiniLM", BertModel(BertConfig(**encoder)), bert),
        ("ModernBERT", ModernBertForMaskedLM(ModernBertConfig(**encoder, **marks)), bert),
        ("roberta", BertForMaskedLM(BertConfig(**encoder)), bert),
    ):
        model.save_pretrained(made.models / name)
        tokenizer.save_pretrained(made.models / name)
    bring(made, pairs(THINGS[:4]), pairs(THINGS[4:]), "pairs")
    bring(made, judged(THINGS[:4]), judged(THINGS[4:]), "judged")
    TextWorld(made).data("plain", plain_texts(24), plain_texts(8, 1))
    LabelWorld(made).data("labels", labelled_rows(64), labelled_rows(24, 1))
    path = made.uploads / "sums.jsonl"
    sums = [{"prompt": f"What is {n} and {n}?", "ground_truth": str(2 * n)} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in sums))
    import_dataset(made, [path], name="sums", eval_fraction=0.0)
    return made


@pytest.mark.parametrize("name", sorted(KNOWN_FOR))
def test_a_preset_has_its_figures(name: str) -> None:
    values = load_preset(name).config().values()
    assert {path: values[path] for path in KNOWN_FOR[name]} == KNOWN_FOR[name]


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_its_trainer_takes_a_step_and_is_saved(preset: Any, workspace: Workspace) -> None:
    """Whoever chose the preset would learn of a wrong setting after a download of hours."""
    given = preset.config()
    method, training, adapter = METHODS[given.method], given.training, given.adapter
    measured = method.makes == "classifier"  # its best checkpoint is chosen by what is measured
    values = given.values() | {
        "model.model_name_or_path": family(given.model.model_name_or_path),
        "data.dataset": DATA.get(method.name, "pairs"),
        "training.device": "cpu",
        "training.precision": "fp32",
        "training.max_steps": 1,
        "training.gradient_accumulation_steps": training.gradient_accumulation_steps
        if method.generates
        else 1,
        "training.optim": "adamw_torch",  # pages of memory are a GPU's
        "evaluation.sample_max_new_tokens": 0,
        "reinforcement.max_completion_length": 4,
    }
    if not measured:
        values |= {"evaluation.eval_strategy": "no", "tracking.save_strategy": "no"}
    run = workspace.run(preset.name.replace(".", "-"))
    run.root.mkdir(parents=True)
    config = parse_config(values)
    config.save(run.config)
    recipe, trainer = prepare(run, workspace, config, None)
    args, chosen = trainer.args, recipe.config.training
    assert args.learning_rate == training.learning_rate
    assert args.gradient_checkpointing is chosen.gradient_checkpointing
    is_encoder = method.makes in ("filler", "classifier")
    assert chosen.max_length == (64 if is_encoder else training.max_length)  # its tokenizer's
    if method.section == "preference" and method.writes:
        assert trainer.beta == given.preference.beta
    if method.generates:
        assert args.num_generations == given.reinforcement.num_generations
        assert args.generation_batch_size % args.num_generations == 0
        assert trainer.beta == given.reinforcement.kl_beta
    trainer.train()
    assert trainer.state.global_step == 1
    first = trainer.state.log_history[0]
    assert torch.isfinite(torch.tensor(first["loss"]))
    assert ("reward" in first) == method.generates
    if measured:
        assert any("eval_f1_macro" in log for log in trainer.state.log_history)
    recipe.save(trainer)
    if not adapter.is_adapter:
        assert (run.model / "config.json").is_file()
        return
    saved = json.loads((run.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert (saved["r"], saved["lora_alpha"]) == (adapter.r, adapter.lora_alpha)
    if isinstance(adapter.target_modules, list):
        assert sorted(saved["target_modules"]) == sorted(adapter.target_modules)
