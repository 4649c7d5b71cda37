"""Adapters that could not be trained, merged or measured are refused before the start, with the
reason and the fields that it lies in."""

from __future__ import annotations

from typing import Any

import pytest

from core.config import SPEC_BY_PATH, SPECS, RunConfig
from core.errors import ConfigError
from core.rules import parse_config

PISSA = {"adapter.init_lora_weights": "pissa"}
PREFIX = {"adapter.method": "prefix_tuning"}
BROKEN: list[tuple[dict[str, Any], str, str]] = [
    ({"adapter.method": "freeze", "adapter.quantization": "nf4"}, "quantization", "cannot be"),
    ({"adapter.method": "ia3", "adapter.target_modules": []}, "target_modules", "nothing to"),
    ({"adapter.layers_to_transform": [1]}, "layers_to_transform", "modules named"),
    ({"adapter.rank_pattern": {"layers.(": 4}}, "rank_pattern", "no regular expression"),
    ({"adapter.alpha_pattern": {"q_proj": 0}}, "alpha_pattern", "not 1 or more"),
    ({"adapter.method": "loha", "adapter.quantization": "fp4"}, "quantization", "packed"),
    ({"adapter.use_dora": True, "adapter.quantization": "int8"}, "use_dora", "scales"),
    ({**PISSA, "adapter.bias": "all"}, "bias", "cannot write"),
    (
        {**PISSA, "adapter.use_rslora": True, "adapter.rank_pattern": {"q_proj": 4}},
        "use_rslora",
        "cannot write",
    ),
    (
        {"adapter.init_lora_weights": "loftq", "training.device": "cpu"},
        "init_lora_weights",
        "on a GPU",
    ),
    ({"method": "grpo", "adapter.init_lora_weights": "eva"}, "init_lora_weights", "finished rows"),
    (
        {**PISSA, "model.start_from": "continue", "model.from_run": "20261121-2214-quiet-otter"},
        "init_lora_weights",
        "stands whole",
    ),
    ({"adapter.method": "adalora", "adapter.target_r": 24}, "target_r", "no rank would"),
    (
        {"adapter.method": "adalora", "training.max_steps": 20, "adapter.tinit": 20},
        "tinit",
        "none is left",
    ),
    (
        {"adapter.method": "freeze", "adapter.freeze_trainable_layers": 0},
        "freeze_trainable_layers",
        "nothing to train",
    ),
    ({**PREFIX, "method": "orpo"}, "method", "does not know"),
    (
        {"adapter.method": "prompt_tuning", "adapter.prompt_tuning_init": "TEXT"},
        "prompt_tuning_init_text",
        "Write an instruction",
    ),
]


@pytest.mark.parametrize(("values", "field", "why"), BROKEN, ids=str)
def test_what_cannot_work_is_refused_with_the_reason(
    values: dict[str, Any], field: str, why: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(values)
    found = {problem.field: problem for problem in caught.value.problems}
    assert why in found[f"adapter.{field}"].message
    assert all(other in SPEC_BY_PATH for other in found[f"adapter.{field}"].also)


@pytest.mark.parametrize(
    ("field", "value"),
    [("training.packing", True), ("training.gradient_checkpointing", True)],
)
def test_virtual_tokens_need_rows_of_their_own(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({**PREFIX, field: value})
    assert [problem.field for problem in caught.value.problems] == [field]


@pytest.mark.parametrize(
    "values",
    [
        {"adapter.method": "none", "adapter.target_modules": []},
        {"adapter.method": "vera", "adapter.init_lora_weights": "pissa", "adapter.use_dora": True},
        {"adapter.method": "lokr", "adapter.quantization": "int8"},
        {"adapter.quantization": "nf4", "adapter.use_dora": True},
        {"adapter.quantization": "nf4", "adapter.init_lora_weights": "eva"},
        {"adapter.init_lora_weights": "loftq"},
        {**PREFIX, "method": "dpo"},
        {**PREFIX, "method": "kto", "adapter.quantization": "int8"},
    ],
    ids=str,
)
def test_what_belongs_to_another_kind_does_not_matter(values: dict[str, Any]) -> None:
    assert parse_config(values).adapter.method


@pytest.mark.parametrize("kind", SPEC_BY_PATH["adapter.method"].choices)
def test_a_kind_shows_few_settings_and_none_of_another(kind: str) -> None:
    """Forty fields of ten kinds would hide the three that matter."""
    values = {**RunConfig().values(), "adapter.method": kind}
    shown = [spec.name for spec in SPECS if spec.section == "adapter" and spec.shown(values)]
    assert len(shown) <= 17
    assert ("init_r" in shown) == (kind == "adalora")
    assert ("lora_alpha" in shown) == (kind in ("lora", "adalora", "loha", "lokr"))
    assert ("quantization" in shown) == (kind not in ("freeze", "none"))
