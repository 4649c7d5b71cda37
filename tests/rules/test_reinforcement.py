"""Settings that cannot go together when a model learns from rewards: found before the start."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import RunConfig
from core.config.run import answers_a_step, batches_an_epoch, nearest_batch
from core.errors import ConfigError
from core.estimate.summary import optimizer_steps
from core.methods import named
from core.rules import parse_config
from core.rules.command import as_command
from core.rules.presets import load_preset
from tests.rules.test_command import run_command

REWARDED = {"method": "grpo", "reinforcement.rewards": ["json_valid"]}


@pytest.mark.parametrize(
    ("settings", "field", "says"),
    [
        ({"reinforcement.rewards": []}, "reinforcement.rewards", "at least one function"),
        ({"reinforcement.rewards": ["jsonvalid"]}, "reinforcement.rewards", "json_valid"),
        ({"reinforcement.num_generations": 1}, "reinforcement.num_generations", "from 2"),
        (
            {"training.per_device_train_batch_size": 6},
            "training.per_device_train_batch_size",
            "no multiple of reinforcement.num_generations 8. Take 8, or auto.",
        ),
        (
            {"training.per_device_train_batch_size": 3, "training.gradient_accumulation_steps": 4},
            "training.per_device_train_batch_size",
            "3 times training.gradient_accumulation_steps 4 are 12 answers",
        ),
        (
            {"reinforcement.num_generations_eval": 3},
            "evaluation.per_device_eval_batch_size",
            "Take 9",
        ),
        ({"training.packing": True}, "training.packing", "Turn it off"),
        ({"training.extra": {"auto_find_batch_size": True}}, "training.extra", "tear the answers"),
        ({"training.extra": {"use_vllm": True}}, "training.extra", "no vLLM server"),
        ({"training.extra": {"beta": 0.1}}, "training.extra", "set reinforcement.kl_beta"),
        (
            {"training.extra": {"max_completion_length": 9}},
            "training.extra",
            "set reinforcement.max_completion_length",
        ),
        (
            {"reinforcement.grpo_loss_type": "luspo"},
            "reinforcement.importance_sampling_level",
            "Take sequence",
        ),
        (
            {"reinforcement.importance_sampling_level": "sequence"},
            "reinforcement.importance_sampling_level",
            "GSPO",
        ),
        (
            {"evaluation.metric_for_best_model": "eval_reward"},
            "evaluation.greater_is_better",
            "Turn it on",
        ),
        ({"adapter.target_modules": ["q_proj", "lm_head"]}, "adapter.target_modules", "lm_head"),
        (
            {"reinforcement.kl_beta": 0.1, "adapter.init_lora_weights": "pissa"},
            "adapter.init_lora_weights",
            "which is the reference",
        ),
        ({"reinforcement.kl_beta": 0.1, "adapter.bias": "all"}, "adapter.bias", "trained too"),
    ],
)
def test_what_cannot_work_is_said_at_its_field(
    settings: dict[str, Any], field: str, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({**REWARDED, **settings})
    assert field in [problem.field for problem in caught.value.problems]
    assert says in str(caught.value)


def test_rules_of_rewards_leave_other_methods_alone() -> None:
    parse_config({"training.per_device_train_batch_size": 6, "training.packing": True})


@given(
    group=st.integers(2, 12),
    accumulation=st.integers(1, 6),
    written=st.none() | st.integers(1, 6),
    batch=st.integers(1, 40),
    rows=st.integers(1, 200),
)
def test_the_batch_size_that_is_advised_is_allowed_and_gives_the_steps_of_the_plan(
    group: int, accumulation: int, written: int | None, batch: int, rows: int
) -> None:
    settings = {
        **REWARDED,
        "reinforcement.num_generations": group,
        "reinforcement.steps_per_generation": written,
        "training.gradient_accumulation_steps": accumulation,
    }
    config = parse_config(settings)
    advised = nearest_batch(config, batch)
    assert answers_a_step(config, advised) % group == 0
    config = parse_config({**settings, "training.per_device_train_batch_size": advised})
    prompts = answers_a_step(config, advised) // group
    # Each whole set of prompts is written once and gone through in so many batches.
    assert batches_an_epoch(config, rows, advised) == rows // prompts * (written or accumulation)
    assert optimizer_steps(config, rows) is not None


def test_functions_come_back_from_the_copied_command_and_from_words_alone() -> None:
    config = parse_config(
        {
            **load_preset("quickstart").settings,
            **REWARDED,
            "reinforcement.rewards": [
                {"kind": "regex", "pattern": "a, b", "weight": 0.5},
                "json_valid",
            ],
        }
    )
    assert config.reinforcement.rewards[1] == {"kind": "json_valid"}
    back = run_command(as_command(config, load_preset("quickstart")))
    assert back.reinforcement == config.reinforcement


def test_fields_of_rewards_hide_for_other_methods() -> None:
    from core.config import SPECS

    values = RunConfig().values()
    for spec in SPECS:
        if spec.section == "reinforcement":
            assert not spec.shown(values)
            assert set(spec.when["method"]) <= set(named(generates=True))
