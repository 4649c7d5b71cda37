"""Our fields against the installed transformers, PEFT and TRL: a run must not fail at its start
because a library renamed or dropped what a config may say."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from core.config import SPEC_BY_PATH, SPECS, RunConfig
from core.config.extra import REFUSED, sft_config_fields

# The values that a worker resolves before it builds TRL's config.
RESOLVED = {"per_device_train_batch_size": 1, "gradient_checkpointing": False}
# Fields of these two sections that are Tunesmith's own.
OWN = {
    "training.precision",
    "training.device",
    "training.extra",
    "evaluation.early_stopping_patience",
    "evaluation.early_stopping_threshold",
    "evaluation.sample_prompts",
    "evaluation.sample_max_new_tokens",
}


@pytest.fixture(scope="module")
def sft_config() -> Any:
    trl = pytest.importorskip("trl")
    return trl.SFTConfig


def handed_over() -> dict[str, Any]:
    """The defaults of every field that goes to SFTConfig under its own name."""
    values = {}
    for spec in SPECS:
        if spec.section in ("training", "evaluation", "tracking") and spec.path not in OWN:
            values[spec.name] = spec.default
    return {**values, **RESOLVED}


def test_every_default_is_taken_by_trl(sft_config: Any, tmp_path: Path) -> None:
    values = handed_over()
    made = sft_config(
        output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", **values
    )
    assert made.learning_rate == RunConfig().training.learning_rate
    assert made.max_length == RunConfig().training.max_length
    assert made.warmup_steps == RunConfig().training.warmup_steps


def test_the_fields_read_from_the_source_are_those_of_the_class(sft_config: Any) -> None:
    real = {field.name for field in dataclasses.fields(sft_config)}
    read = set(sft_config_fields())
    assert real <= read, "extra would refuse fields that TRL has"
    # bf16 and the like are declared again with other defaults, nothing else may be left over
    assert read <= real, "extra would take fields that TRL has not"
    assert set(REFUSED) - real <= {"logging_dir"}


@pytest.mark.parametrize(
    ("path", "enumeration"),
    [
        ("training.optim", "training_args.OptimizerNames"),
        ("training.lr_scheduler_type", "trainer_utils.SchedulerType"),
        ("evaluation.eval_strategy", "trainer_utils.IntervalStrategy"),
        ("tracking.save_strategy", "trainer_utils.SaveStrategy"),
    ],
)
def test_every_choice_is_one_of_transformers(path: str, enumeration: str) -> None:
    import importlib

    module, _, name = enumeration.partition(".")
    known = {
        item.value for item in getattr(importlib.import_module(f"transformers.{module}"), name)
    }
    assert set(SPEC_BY_PATH[path].choices) <= known


@pytest.mark.parametrize("bias", SPEC_BY_PATH["adapter.bias"].choices)
@pytest.mark.parametrize("weights", SPEC_BY_PATH["adapter.init_lora_weights"].choices)
def test_every_way_to_set_lora_is_taken_by_peft(bias: str, weights: str) -> None:
    peft = pytest.importorskip("peft")
    adapter = RunConfig().adapter
    made = peft.LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.lora_alpha,
        lora_dropout=adapter.lora_dropout,
        target_modules=adapter.target_modules,
        bias=bias,
        use_dora=adapter.use_dora,
        use_rslora=adapter.use_rslora,
        init_lora_weights=True if weights == "default" else weights,
        modules_to_save=adapter.modules_to_save or None,
    )
    assert made.bias == bias


def test_every_attention_is_known_to_transformers() -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    choices = set(SPEC_BY_PATH["model.attn_implementation"].choices) - {"auto", "eager"}
    assert choices <= set(ALL_ATTENTION_FUNCTIONS.valid_keys())
