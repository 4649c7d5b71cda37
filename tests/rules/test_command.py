"""The command line's options: each field can be set from a shell, and what the page copies as a
command starts the same run."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import SPEC_BY_PATH, SPECS, RunConfig
from core.errors import ConfigError
from core.rules import parse_config
from core.rules.command import apply_overrides, as_command, field_help, split_overrides
from core.rules.presets import load_preset


def overridden(*argv: str) -> dict[str, Any]:
    return parse_config(apply_overrides({}, argv)).values()


@pytest.mark.parametrize(
    ("argv", "path", "value"),
    [
        (["--training.learning_rate", "1e-4"], "training.learning_rate", 1e-4),
        (["--training.learning_rate=1e-4"], "training.learning_rate", 1e-4),
        (["--training.max_steps", "-1"], "training.max_steps", -1),
        (["--training.seed", "7"], "training.seed", 7),
        (["--adapter.use_dora"], "adapter.use_dora", True),
        (["--adapter.use_dora", "true"], "adapter.use_dora", True),
        (["--adapter.use_dora", "no"], "adapter.use_dora", False),
        (["--training.gradient_checkpointing", "auto"], "training.gradient_checkpointing", "auto"),
        (["--training.gradient_checkpointing"], "training.gradient_checkpointing", True),
        (
            ["--training.per_device_train_batch_size", "auto"],
            "training.per_device_train_batch_size",
            "auto",
        ),
        (
            ["--adapter.target_modules", "q_proj,v_proj"],
            "adapter.target_modules",
            ["q_proj", "v_proj"],
        ),
        (
            ["--adapter.target_modules", "q_proj", "--adapter.target_modules", "v_proj"],
            "adapter.target_modules",
            ["q_proj", "v_proj"],
        ),
        (["--adapter.target_modules", "all-linear"], "adapter.target_modules", "all-linear"),
        (["--adapter.modules_to_save", "[]"], "adapter.modules_to_save", []),
        (
            [
                "--evaluation.sample_prompts",
                "Hello, you",
                "--evaluation.sample_prompts",
                "And you?",
            ],
            "evaluation.sample_prompts",
            ["Hello, you", "And you?"],
        ),
        (["--training.data_seed", "none"], "training.data_seed", None),
        (["--tracking.save_total_limit", ""], "tracking.save_total_limit", None),
        (["--adapter.quantization", "none"], "adapter.quantization", "none"),
        (["--data.system_prompt", "--be brief"], "data.system_prompt", "--be brief"),
        (["--data.system_prompt="], "data.system_prompt", ""),
        (
            ["--training.extra", "label_smoothing_factor=0.1,torch_compile=true"],
            "training.extra",
            {"label_smoothing_factor": 0.1, "torch_compile": True},
        ),
        (
            ["--training.extra", '{"label_names": ["labels"]}'],
            "training.extra",
            {"label_names": ["labels"]},
        ),
        (["--training.seed", "1", "--training.seed", "2"], "training.seed", 2),
    ],
)
def test_an_option_sets_its_field(argv: list[str], path: str, value: Any) -> None:
    assert overridden(*argv)[path] == value


@pytest.mark.parametrize(
    ("argv", "field", "says"),
    [
        (["--training.learning_rat", "1"], "training.learning_rat", "training.learning_rate?"),
        (["--training.learning_rate"], "training.learning_rate", "needs a value"),
        (["--training.learning_rate", "fast"], "training.learning_rate", "a number above 0"),
        (["--training.seed", "1.5"], "training.seed", "a whole number"),
        (["--training.seed", "none"], "training.seed", "a whole number"),
        (["--adapter.use_dora=maybe"], "adapter.use_dora", "true or false"),
        (["--adapter.modules_to_save", "[1,"], "adapter.modules_to_save", "is not JSON"),
        (["--training.extra", "tf32"], "training.extra", "key=value"),
        (["--training.extra", "[1]"], "training.extra", "key=value"),
        (["--adapter.bias", "some"], "adapter.bias", "one of none, all, lora_only"),
    ],
)
def test_a_wrong_option_names_its_field(argv: list[str], field: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        overridden(*argv)
    (problem,) = caught.value.problems
    assert problem.field == field
    assert says in problem.message


def test_options_are_told_apart_from_the_rest_wherever_they_stand() -> None:
    argv = ["train", "--training.max_steps", "-1", "quickstart", "--adapter.use_dora", "--json"]
    argv += ["--training.seed=3", "--name", "a.b", "--workspace", "c.d"]
    rest, overrides = split_overrides(argv)
    assert rest == ["train", "quickstart", "--json", "--workspace", "c.d"]
    values = overridden(*overrides)
    assert (values["adapter.use_dora"], values["training.seed"], values["name"]) == (True, 3, "a.b")


def test_options_change_the_values_they_are_given() -> None:
    values = apply_overrides({"training": {"seed": 1, "max_length": 64}}, ["--training.seed", "2"])
    assert values == {"training.seed": 2, "training.max_length": 64}


def test_every_field_is_in_the_help_with_what_it_takes() -> None:
    text = field_help()
    for spec in SPECS:
        assert f"--{spec.path}\n      {spec.help}\n      Takes {spec.allowed}." in text


def test_the_copied_command_is_what_a_person_would_write() -> None:
    config = parse_config({**load_preset("quickstart").settings, "training.learning_rate": 0.0002})
    assert (
        as_command(config, load_preset("quickstart"))
        == "python launch.py train quickstart --training.learning_rate 0.0002"
    )


def run_command(command: str) -> RunConfig:
    """The config that a shell's `train` would start."""
    words = shlex.split(command)
    assert words[:3] == ["python", "launch.py", "train"]
    rest, overrides = split_overrides(words[3:])
    values = apply_overrides(load_preset(rest[0]).settings, overrides)
    return parse_config(values)


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00", categories=("L", "P", "Z")))
WORDS = st.text("abc_.,", min_size=1, max_size=8)


@given(
    prompt=TEXTS,
    prompts=st.lists(TEXTS, max_size=3),
    modules=st.lists(WORDS, min_size=1, max_size=3),
    extra=st.dictionaries(st.sampled_from(["torch_compile_backend", "torch_compile_mode"]), TEXTS),
    rate=st.floats(1e-9, 1),
    limit=st.none() | st.integers(1, 9),
)
def test_the_copied_command_starts_the_same_run_whatever_the_values(
    prompt: str,
    prompts: list[str],
    modules: list[str],
    extra: dict[str, str],
    rate: float,
    limit: int | None,
) -> None:
    config = parse_config(
        {
            "name": "my run",
            "data.system_prompt": prompt,
            "evaluation.sample_prompts": prompts,
            "adapter.target_modules": modules,
            "adapter.use_dora": True,
            "training.extra": extra,
            "training.learning_rate": rate,
            "tracking.save_total_limit": limit,
        }
    )
    assert run_command(as_command(config, load_preset("quickstart"))) == config


def test_a_command_from_another_preset_goes_back_to_the_defaults() -> None:
    preset = load_preset("qlora-8gb")
    assert run_command(as_command(RunConfig(), preset)) == RunConfig()
    assert SPEC_BY_PATH["adapter.quantization"].path in as_command(RunConfig(), preset)
