"""Rules that span fields: settings that would fail hours later, or train the wrong thing, are
refused before the start, and the message names both fields."""

from __future__ import annotations

from typing import Any

import pytest

from core.config import SPEC_BY_PATH
from core.errors import ConfigError
from core.rules import parse_config, rule_problems

NO_EVAL = {"evaluation.eval_strategy": "no"}
BROKEN: list[tuple[dict[str, Any], str, str]] = [
    (
        {"adapter.method": "none", "adapter.quantization": "nf4"},
        "adapter.quantization",
        "adapter.method",
    ),
    (
        {"training.precision": "fp16", "training.device": "cpu"},
        "training.precision",
        "training.device",
    ),
    (
        {"adapter.use_dora": True, "adapter.init_lora_weights": "pissa"},
        "adapter.init_lora_weights",
        "adapter.use_dora",
    ),
    (
        {"adapter.quantization": "int8", "adapter.init_lora_weights": "olora"},
        "adapter.init_lora_weights",
        "adapter.quantization",
    ),
    ({"adapter.target_modules": []}, "adapter.target_modules", "adapter.method"),
    (
        NO_EVAL | {"evaluation.early_stopping_patience": 2},
        "evaluation.early_stopping_patience",
        "evaluation.eval_strategy",
    ),
    (
        NO_EVAL | {"evaluation.load_best_model_at_end": True},
        "evaluation.load_best_model_at_end",
        "evaluation.eval_strategy",
    ),
    (
        NO_EVAL | {"training.lr_scheduler_type": "reduce_lr_on_plateau"},
        "training.lr_scheduler_type",
        "evaluation.eval_strategy",
    ),
    (
        {"evaluation.load_best_model_at_end": True, "tracking.save_strategy": "epoch"},
        "tracking.save_strategy",
        "evaluation.eval_strategy",
    ),
    (
        {
            "evaluation.load_best_model_at_end": True,
            "evaluation.eval_steps": 20,
            "tracking.save_steps": 30,
        },
        "tracking.save_steps",
        "evaluation.eval_steps",
    ),
    (
        {"evaluation.early_stopping_patience": 2, "tracking.save_strategy": "no"},
        "tracking.save_strategy",
        "evaluation.early_stopping_patience",
    ),
    (
        {"evaluation.greater_is_better": True},
        "evaluation.greater_is_better",
        "evaluation.metric_for_best_model",
    ),
    (
        {"training.lr_scheduler_type": "cosine_with_min_lr"},
        "training.lr_scheduler_kwargs",
        "training.lr_scheduler_type",
    ),
    (
        {"training.lr_scheduler_type": "warmup_stable_decay"},
        "training.lr_scheduler_kwargs",
        "training.lr_scheduler_type",
    ),
    ({"training.max_steps": 0}, "training.max_steps", "training.num_train_epochs"),
]


@pytest.mark.parametrize(("values", "field", "also"), BROKEN, ids=[str(b[0]) for b in BROKEN])
def test_a_broken_rule_names_both_fields(values: dict[str, Any], field: str, also: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(values)
    (problem,) = caught.value.problems
    assert problem.field == field
    assert also in problem.also
    assert also in str(problem), "the message itself has to name the other field"
    assert also in SPEC_BY_PATH


ALLOWED: list[dict[str, Any]] = [
    {},
    {"adapter.method": "none"},
    {"adapter.quantization": "nf4"},
    {"training.precision": "fp16"},
    {"evaluation.load_best_model_at_end": True},
    {
        "evaluation.load_best_model_at_end": True,
        "evaluation.eval_steps": 20,
        "tracking.save_steps": 40,
    },
    {"evaluation.early_stopping_patience": 3},
    {"evaluation.eval_strategy": "no", "tracking.save_strategy": "no"},
    {"evaluation.greater_is_better": True, "evaluation.metric_for_best_model": "eval_accuracy"},
    {
        "training.lr_scheduler_type": "cosine_with_min_lr",
        "training.lr_scheduler_kwargs": {"min_lr": 1e-6},
    },
    # What LoRA would have been does not matter once the whole model is trained.
    {"adapter.method": "none", "adapter.use_dora": True, "adapter.init_lora_weights": "pissa"},
]


@pytest.mark.parametrize("values", ALLOWED, ids=str)
def test_what_can_work_is_not_refused(values: dict[str, Any]) -> None:
    assert rule_problems(parse_config(values)) == []


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("label_smoothing_facto", 0.1, "did you mean label_smoothing_factor"),
        ("learning_rate", 0.1, "training.learning_rate"),
        ("eval_steps", 5, "evaluation.eval_steps"),
        ("output_dir", "elsewhere", "not allowed"),
        ("trust_remote_code", True, "never run"),
        ("hub_token", "hf_x", "secrets"),
        ("bf16", True, "training.precision"),
        ("label_smoothing_factor", "much", "takes float"),
        ("torch_compile", 1, "takes bool"),
        ("dataloader_num_workers", "2", "takes int"),
    ],
)
def test_extra_is_checked_against_the_class_of_trl(key: str, value: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"training.extra": {key: value}})
    (problem,) = caught.value.problems
    assert problem.field == "training.extra"
    assert key in problem.message
    assert says in problem.message


def test_extra_takes_what_trl_takes() -> None:
    extra: dict[str, Any] = {
        "label_smoothing_factor": 0.1,
        "torch_compile": True,
        "dataloader_num_workers": 2,
    }
    extra |= {"label_names": ["labels"], "torch_compile_mode": "default", "tf32": None}
    assert parse_config({"training.extra": extra}).training.extra == extra
