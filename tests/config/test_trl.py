"""Our fields against the installed transformers, PEFT and TRL: a run must not fail at its start
because a library renamed or dropped what a config may say."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from core.config import SPEC_BY_PATH, SPECS, RunConfig
from core.config.adapter import PROMPTS, TUNERS
from core.methods import METHODS
from core.rules import parse_config
from core.rules.extra import REFUSED, config_fields

# The values that a worker resolves before it builds TRL's config.
RESOLVED = {"per_device_train_batch_size": 1, "gradient_checkpointing": False}
# Fields of these two sections that are Tunesmith's own.
OWN = {
    "training.precision",
    "training.device",
    "training.devices",
    "training.strategy",
    "training.offload",
    "training.deepspeed",  # the launcher is told of it
    "training.ray_address",
    "training.ray_num_cpus",
    "training.ray_num_nodes",
    "training.extra",
    "evaluation.early_stopping_patience",
    "evaluation.early_stopping_threshold",
    "evaluation.sample_prompts",
    "evaluation.sample_max_new_tokens",
    # The trackers stand beside the trainer, where none can end a run.
    "tracking.report_to",
    "tracking.project",
    "tracking.wandb_mode",
    "tracking.swanlab_mode",
    "tracking.mlflow_mode",
    "training.on_out_of_memory",
    "training.sft_loss_type",  # TRL's loss_type
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


def method_classes() -> dict[str, Any]:
    """TRL's config class of each method."""
    import importlib

    return {
        "sft": importlib.import_module("trl").SFTConfig,
        "dpo": importlib.import_module("trl").DPOConfig,
        "kto": importlib.import_module("trl").KTOConfig,
        "orpo": importlib.import_module("trl.experimental.orpo").ORPOConfig,
        "cpo": importlib.import_module("trl.experimental.cpo").CPOConfig,
        "grpo": importlib.import_module("trl").GRPOConfig,
        "rloo": importlib.import_module("trl").RLOOConfig,
    }


@pytest.mark.parametrize("method", ["sft", "dpo", "kto", "orpo", "cpo", "grpo", "rloo"])
def test_the_fields_read_from_the_source_are_those_of_the_class(method: str) -> None:
    real = {field.name for field in dataclasses.fields(method_classes()[method])}
    read = set(config_fields(METHODS[method]))
    assert real <= read, "extra would refuse fields that TRL has"
    # bf16 and the like are declared again with other defaults, nothing else may be left over
    assert read <= real, "extra would take fields that TRL has not"


def test_what_extra_refuses_is_a_field_of_some_method() -> None:
    real = {f.name for cls in method_classes().values() for f in dataclasses.fields(cls)}
    refused = set(REFUSED).union(*(method.refused_arguments for method in METHODS.values()))
    assert refused - real <= {"logging_dir"}


def test_every_loss_of_dpo_is_one_of_trl_and_none_is_missing() -> None:
    """A loss would end the run at its first step, or could not be chosen."""
    import inspect
    import re

    from trl import DPOTrainer

    known = set(re.findall(r'loss_type == "(\w+)"', inspect.getsource(DPOTrainer._compute_loss)))
    assert set(SPEC_BY_PATH["preference.loss_type"].choices) == known


def test_every_loss_of_grpo_is_one_of_trl_and_none_is_missing() -> None:
    """A loss would end the run at its first step, or could not be chosen."""
    import inspect
    import re

    from trl import GRPOTrainer

    source = inspect.getsource(GRPOTrainer._compute_loss)
    found = re.findall(r'self\.loss_type (?:==|in) (\[[^\]]*\]|"\w+")', source)
    known = set(re.findall(r'"(\w+)"', " ".join(found)))
    assert set(SPEC_BY_PATH["reinforcement.grpo_loss_type"].choices) == known


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
    from core.worker.training.adapters import peft_config

    config = RunConfig.model_validate({"adapter": {"bias": bias, "init_lora_weights": weights}})
    made: Any = peft_config(config)
    assert made.bias == bias
    assert made.init_lora_weights == (True if weights == "default" else weights)


# Fields of `adapter` that PEFT has under another name or not at all.
NOT_PEFTS = {"method", "quantization", "loraplus_lr_ratio", "eva_rho", "prompt_tuning_init_text"}


@pytest.mark.parametrize("kind", [*TUNERS, *PROMPTS])
def test_every_field_of_a_kind_is_one_of_pefts_and_reaches_it(kind: str) -> None:
    """A setting would be shown and change nothing."""
    from core.worker.training.adapters import peft_config

    chosen = {"adapter.method": kind}
    names = {
        spec.name
        for spec in SPECS
        if spec.section == "adapter" and spec.shown({**RunConfig().values(), **chosen})
    } - NOT_PEFTS
    made = peft_config(parse_config(chosen))
    known = set(vars(made)) | ({"lora_alpha"} if hasattr(made, "alpha") else set())
    assert names <= known


def test_every_attention_is_known_to_transformers() -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    choices = set(SPEC_BY_PATH["model.attn_implementation"].choices) - {"auto", "eager"}
    assert choices <= set(ALL_ATTENTION_FUNCTIONS.valid_keys())
