"""YAML and values: what a person writes comes back as it was, or is refused with the mend."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from core.config import RunConfig, flatten, nest
from core.errors import ConfigError
from core.rules import load_config, parse_config

EVERYTHING = {
    "name": "no",
    "model.model_name_or_path": "some/model",
    "adapter.target_modules": ["q_proj", "v_proj"],
    "adapter.modules_to_save": ["embed_tokens"],
    "training.learning_rate": 1e-5,
    "training.per_device_train_batch_size": 4,
    "training.gradient_checkpointing": False,
    "training.data_seed": 3,
    "training.lr_scheduler_type": "cosine_with_min_lr",
    "training.lr_scheduler_kwargs": {"min_lr_rate": 0.1},
    "training.extra": {"label_smoothing_factor": 0.1},
    "evaluation.eval_strategy": "no",
    "evaluation.sample_prompts": ["Hello, you: 1", "äöü\nnext line"],
    "tracking.save_total_limit": None,
}


def problems(values: dict[str, object]) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(values)
    return {problem.field: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize("full", [True, False])
def test_yaml_gives_back_the_same_config(tmp_path: Path, full: bool) -> None:
    config = parse_config(EVERYTHING)
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml(full=full), encoding="utf-8")
    assert load_config(path) == config
    # Any YAML reader has to see the same, not ours alone.
    assert parse_config(yaml.safe_load(path.read_text(encoding="utf-8"))) == config


def test_the_short_yaml_has_only_what_differs() -> None:
    config = parse_config({"training.seed": 1, "adapter.r": 8})
    assert yaml.safe_load(config.to_yaml(full=False)) == {
        "adapter": {"r": 8},
        "training": {"seed": 1},
    }
    assert RunConfig().to_yaml(full=False) == ""


def test_saving_writes_every_value(tmp_path: Path) -> None:
    RunConfig().save(tmp_path / "config.yaml")
    written = flatten(yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8")))
    assert written == RunConfig().values()


def test_yaml_is_read_as_people_mean_it(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "name: 2026-11-21\ntraining:\n  learning_rate: 1e-4\nevaluation:\n  eval_strategy: no\n",
        encoding="utf-8",
    )
    config = load_config(path)
    assert config.name == "2026-11-21"
    assert config.training.learning_rate == 1e-4
    assert config.evaluation.eval_strategy == "no"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("training: [1, 2", "line 1"),
        ("- a\n- b\n", "not a mapping"),
        ("training:\n  seed: 1\n  seed: 2\n", "seed stands there twice"),
        ("training: 5\n", "training: is a section"),
    ],
)
def test_a_broken_file_says_what_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=says):
        load_config(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere.yaml"):
        load_config(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("given", "suggested"),
    [
        ("training.learning_rat", "training.learning_rate"),
        ("trainig.learning_rate", "training.learning_rate"),
        ("learning_rate", "training.learning_rate"),
        ("adapter.lora_r", "adapter.r"),
        ("max_seq_length", "training.max_length"),
        ("training.warmup_ratio", "training.warmup_steps"),
        ("training.eval_steps", "evaluation.eval_steps"),
        ("adapter.kind", "adapter.method"),
        ("adapter.bottleneck_rank", None),
        ("training.sampling", None),
        ("training.clip_gradients", "training.max_grad_norm"),
        ("peft_type", "adapter.method"),
    ],
)
def test_an_unknown_key_is_answered_with_what_was_meant_or_with_nothing(
    given: str, suggested: str | None
) -> None:
    """A guess that is far off sends people to a setting that has nothing to do with theirs."""
    said = problems({given: 1})[given]
    if suggested is None:
        assert "did you mean" not in said and "--help" in said
    else:
        assert said == f"is not a setting; did you mean {suggested}?"


def test_every_problem_is_told_at_once() -> None:
    found = problems({"training": {"learning_rate": 5, "seed": -1}, "adapter": {"r": 0}, "foo": 1})
    assert set(found) == {"training.learning_rate", "training.seed", "adapter.r", "foo"}


def test_dotted_and_nested_values_are_the_same() -> None:
    nested = {"training": {"seed": 1, "extra": {"tf32": True}}, "name": "x"}
    assert nest(flatten(nested)) == nested
    assert parse_config(flatten(nested)) == parse_config(nested)


def test_a_number_that_is_not_finite_is_refused() -> None:
    assert "training.learning_rate" in problems({"training.learning_rate": float("nan")})
    assert "training.warmup_steps" in problems({"training.warmup_steps": float("inf")})


def test_a_changed_value_is_checked_when_it_is_set() -> None:
    config = RunConfig()
    with pytest.raises(ValueError, match="greater than 0"):
        config.training.learning_rate = -1.0
