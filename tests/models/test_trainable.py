"""What a plan says that an adapter trains is what PEFT trains, in each family's way of layers."""

from __future__ import annotations

import copy
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from core.models.describe import describe_model, trainable_parameters
from core.models.trainable import SlowPattern, freeze, pattern_fits
from core.rules import parse_config
from core.rules.base_model import adapter_misfits

KINDS: list[dict[str, Any]] = [
    {"method": "adalora", "init_r": 6, "target_r": 3, "bias": "all"},
    {"method": "loha", "rank_pattern": {"layers.0.*": 3}},
    {"method": "lokr", "r": 2},
    {"method": "lokr", "r": 2, "decompose_both": True, "decompose_factor": 4},
    {"method": "vera", "r": 8},
    {"method": "oft", "oft_block_size": 12},
    {"method": "oft", "oft_block_size": 64},
    {"method": "ia3"},
    {"method": "prompt_tuning", "num_virtual_tokens": 7},
    {"method": "prefix_tuning", "num_virtual_tokens": 7},
    {"method": "prefix_tuning", "prefix_projection": True, "encoder_hidden_size": 9},
    {"method": "freeze", "freeze_trainable_layers": 1},
    {"method": "freeze", "freeze_trainable_layers": 0, "freeze_extra_modules": ["lm_head"]},
]
FAMILIES = ["llama", "gpt2", "modernbert", "neox"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """Each family's folder and model."""
    import transformers as hub

    small = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "vocab_size": 100,
    }
    keys = {"num_key_value_heads": 2}
    made = {
        "llama": hub.LlamaForCausalLM(hub.LlamaConfig(**small, **keys, head_dim=6)),
        "gpt2": hub.GPT2LMHeadModel(
            hub.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=100, n_positions=64)
        ),
        "modernbert": hub.ModernBertForMaskedLM(hub.ModernBertConfig(**small, pad_token_id=0)),
        "neox": hub.GPTNeoXForCausalLM(hub.GPTNeoXConfig(**small)),
    }
    places = {}
    for name, model in made.items():
        folder = tmp_path_factory.mktemp("families") / name
        model.save_pretrained(folder)
        places[name] = folder, model
    return places


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_told_number_is_pefts(
    models: dict[str, tuple[Path, Any]], family: str, kind: dict[str, Any]
) -> None:
    """The plan and the estimate of memory would speak of another training."""
    from peft import get_peft_model

    from core.worker.training.adapters import peft_config

    config = parse_config({"adapter": kind})
    folder, model = models[family]
    facts = describe_model(folder)
    if family == "gpt2" and kind["method"] in ("loha", "lokr", "oft"):
        problem = next(adapter_misfits(facts, config))
        assert "Conv1D" in problem.message
        return
    encodes = "bert" in family
    if encodes and (config.adapter.is_prompt or "freeze_extra_modules" in kind):
        pytest.skip("an encoder has no virtual tokens and no lm_head")
    model = copy.deepcopy(model)
    given = peft_config(config, "FEATURE_EXTRACTION" if encodes else "CAUSAL_LM")
    if given is None:
        freeze(model, config.adapter)
        real = sum(p.numel() for p in model.parameters() if p.requires_grad)
    else:
        real = get_peft_model(model, given).get_nb_trainable_parameters()[0]
    assert trainable_parameters(facts, config) == real


@pytest.mark.parametrize("pattern", [r"((\w|\.)+)+\d", r"(([a-z_.]+)+)+!", r"(\w*\.*)*\d\d"])
def test_no_pattern_keeps_the_page_waiting(pattern: str) -> None:
    """The plan compares it with hundreds of names at each change; `re` never comes back from it."""
    begun = time.process_time()
    for layer in range(100):
        with suppress(SlowPattern):
            assert not pattern_fits(pattern, f"model.layers.{layer}.self_attn.q_proj.base_layer")
    assert time.process_time() - begun < 5
