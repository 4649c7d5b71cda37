"""A model's facts from its files: a wrong count would promise a small adapter and train a large
one, or name modules that PEFT does not find."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from core.errors import ModelError
from core.models.describe import describe_model, trainable_parameters, unknown_modules
from core.rules import parse_config

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
}
GROUPED = {**SIZES, "num_key_value_heads": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {**GROUPED, "tie_word_embeddings": True},
    "qwen2": GROUPED,
    "qwen3": {**GROUPED, "head_dim": 8},
    "gemma2": {**GROUPED, "head_dim": 8},
    "phi3": {**GROUPED, "pad_token_id": 0},
    "gpt_neox": SIZES,
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 100, "n_positions": 64},
}
ADAPTERS: list[dict[str, Any]] = [
    {},
    {"r": 4},
    {"use_dora": True},
    {"bias": "all"},
    {"bias": "lora_only"},
    {"modules_to_save": ["lm_head"]},
    {"target_modules": "first two"},
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One tiny saved model of each family."""
    transformers = pytest.importorskip("transformers")
    folders = {}
    for family, sizes in FAMILIES.items():
        config = transformers.AutoConfig.for_model(family, **sizes)
        folders[family] = tmp_path_factory.mktemp(family)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folders[family])
    return folders


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parameters_are_those_that_transformers_loads(
    models: dict[str, Path], family: str
) -> None:
    from transformers import AutoModelForCausalLM

    facts = describe_model(models[family])
    assert facts.exact
    assert facts.parameters == AutoModelForCausalLM.from_pretrained(models[family]).num_parameters()
    assert (facts.hidden_size, facts.num_layers, facts.vocab_size) == (32, 2, 100)


@pytest.mark.parametrize("adapter", ADAPTERS, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_trained_share_is_what_peft_trains(
    models: dict[str, Path], family: str, adapter: dict[str, Any]
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    facts = describe_model(models[family])
    if adapter.get("target_modules") == "first two":
        adapter = {"target_modules": facts.linear_modules[:2]}
    model = AutoModelForCausalLM.from_pretrained(models[family])
    settings = {"r": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **adapter}
    real, _ = get_peft_model(model, LoraConfig(**settings)).get_nb_trainable_parameters()
    assert trainable_parameters(facts, parse_config({"adapter": adapter})) == real


def test_full_fine_tuning_trains_every_parameter(models: dict[str, Path]) -> None:
    facts = describe_model(models["qwen2"])
    assert trainable_parameters(facts, parse_config({"adapter.method": "none"})) == facts.parameters


def test_the_modules_to_choose_from_are_the_models_own(models: dict[str, Path]) -> None:
    assert set(describe_model(models["llama"]).linear_modules) == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }
    assert set(describe_model(models["gpt2"]).linear_modules) == {"c_attn", "c_proj", "c_fc"}


def test_modules_that_the_model_lacks_are_found(models: dict[str, Path]) -> None:
    facts = describe_model(models["llama"])
    names = ["q_proj", "layers.0.self_attn.v_proj", "lm_head", "embed_tokens", "query", "proj"]
    assert unknown_modules(facts, names) == ["query", "proj"]


def test_shards_are_counted_together(models: dict[str, Path], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(models["qwen2"])
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    whole = describe_model(models["qwen2"])
    assert describe_model(tmp_path).shapes == whole.shapes
    assert describe_model(tmp_path).parameters == whole.parameters


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_without_weights_the_config_gives_the_size_nearly(
    models: dict[str, Path], tmp_path: Path, family: str
) -> None:
    (tmp_path / "config.json").write_bytes((models[family] / "config.json").read_bytes())
    guess, real = describe_model(tmp_path), describe_model(models[family])
    assert not guess.exact
    assert guess.parameters == pytest.approx(real.parameters, rel=0.01)
    assert set(guess.linear_modules) == set(real.linear_modules)
    config = parse_config({})
    assert trainable_parameters(guess, config) == trainable_parameters(real, config)


def test_an_architecture_that_is_not_known_gives_no_number(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["OddForCausalLM"], "n_embd": 8}')
    facts = describe_model(tmp_path)
    assert facts.parameters is None
    assert trainable_parameters(facts, parse_config({})) is None


def test_experts_of_a_mixture_give_no_wrong_number(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.MixtralConfig(**GROUPED, num_local_experts=2)
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    facts = describe_model(tmp_path)
    assert facts.parameters == model.num_parameters()
    assert trainable_parameters(facts, parse_config({})) is None


@pytest.mark.parametrize(
    ("files", "has"),
    [
        ({}, False),
        ({"chat_template.jinja": "{{ messages }}"}, True),
        ({"tokenizer_config.json": '{"chat_template": "{{ messages }}"}'}, True),
        ({"tokenizer_config.json": '{"eos_token": "x"}'}, False),
    ],
)
def test_a_chat_template_is_seen(tmp_path: Path, files: dict[str, str], has: bool) -> None:
    (tmp_path / "config.json").write_text("{}")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert describe_model(tmp_path).has_chat_template is has


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no model"):
        describe_model(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="is an adapter"):
        describe_model(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234",
        struct.pack("<Q", 1 << 40) + b"{}",
        struct.pack("<Q", 10) + b"{",
        struct.pack("<Q", 4) + b"[1]\n",
        struct.pack("<Q", 9) + b'{"a": {}}',
    ],
    ids=["empty", "short", "huge header", "cut off", "no mapping", "no shape"],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="model.safetensors"):
        describe_model(tmp_path)


def test_an_index_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    header = json.dumps({"secret.weight": {"dtype": "F32", "shape": [2, 2]}}).encode()
    (tmp_path / "outside.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (model / "config.json").write_text("{}")
    index = {"weight_map": {"secret.weight": "../outside.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="outside.safetensors"):
        describe_model(model)
