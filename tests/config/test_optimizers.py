"""The optimizers and schedules that a person can choose are those of the installed library, and
what does not go together is said before anything starts."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import SPEC_BY_PATH
from core.config.arguments import Argument
from core.config.optimizers import OPTIMIZERS
from core.config.schedules import SCHEDULES
from core.errors import ConfigError
from core.rules import parse_config
from core.setup.extras import EXTRAS


def test_every_optimizer_of_transformers_is_offered_and_no_other() -> None:
    """After an update: what is new could not be chosen, what is gone would end at the start."""
    from transformers.training_args import OptimizerNames

    assert set(OPTIMIZERS) == {name.value for name in OptimizerNames}
    assert set(SPEC_BY_PATH["training.optim"].choices) == set(OPTIMIZERS)


def test_every_schedule_of_transformers_is_offered_and_no_other() -> None:
    from transformers.trainer_utils import SchedulerType

    assert set(SCHEDULES) == {name.value for name in SchedulerType}
    assert set(SPEC_BY_PATH["training.lr_scheduler_type"].choices) == set(SCHEDULES)


def test_a_schedule_takes_what_its_function_takes() -> None:
    from torch.optim.lr_scheduler import ReduceLROnPlateau
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, GreedyLR
    from transformers.trainer_utils import SchedulerType

    given_by_trainer = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
    classes = {"reduce_lr_on_plateau": ReduceLROnPlateau, "greedy": GreedyLR}
    for name, schedule in SCHEDULES.items():
        function = classes.get(name) or TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(name)]
        parameters = inspect.signature(function).parameters
        assert set(schedule.arguments) == set(parameters) - given_by_trainer, name
        needed = {
            key
            for key, parameter in parameters.items()
            if parameter.default is parameter.empty and key not in given_by_trainer
        }
        assert set(schedule.needed) == needed, name


def test_an_optimizer_takes_what_the_library_reads() -> None:
    """An argument that the library never looks at would be ignored without a word."""
    from transformers import trainer_optimizer
    from transformers.trainer_optimizer import _OPTIMIZER_HANDLERS

    for name, optimizer in OPTIMIZERS.items():
        handler = inspect.getsource(_OPTIMIZER_HANDLERS[name])
        if "rmsprop_bnb" in name:
            assert "additional_optim_kwargs = ctx.optim_args" in handler  # it takes them all
            continue
        for argument in optimizer.arguments:
            assert f'"{argument}"' in handler, (name, argument)
    assert "optim_args.get" in inspect.getsource(trainer_optimizer)


def test_everything_says_what_it_is() -> None:
    for thing in (*OPTIMIZERS.values(), *SCHEDULES.values()):
        assert thing.sentence.endswith("."), thing.name
    for optimizer in OPTIMIZERS.values():
        assert not optimizer.extra or optimizer.extra in EXTRAS
        assert optimizer.instead in OPTIMIZERS
        # What is named for another machine runs there without a package of its own kind.
        other = OPTIMIZERS[optimizer.instead]
        assert other.extra in ("", optimizer.extra) and not other.module
        assert "cuda" not in other.devices or "cpu" in other.devices


FULL = {"adapter.method": "none"}
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"training.optim": "galore_adamw"}, "training.optim", "adapter.method is lora"),
    (
        FULL | {"training.optim": "apollo_adamw", "training.weight_decay": 0.1},
        "training.weight_decay",
        "Set it to 0",
    ),
    (
        FULL | {"training.optim": "galore_adamw", "training.optim_target_modules": []},
        "training.optim_target_modules",
        "all-linear",
    ),
    (
        FULL | {"training.optim": "lomo", "training.gradient_accumulation_steps": 2},
        "training.gradient_accumulation_steps",
        "changes the weights at every batch",
    ),
    (
        FULL | {"training.optim": "galore_adamw_layerwise", "training.precision": "fp16"},
        "training.precision",
        "bf16 or fp32",
    ),
    ({"training.optim": "schedule_free_adamw"}, "training.lr_scheduler_type", "Choose constant"),
    (
        {"training.optim": "sgd", "training.optim_args": {"momentun": 0.9}},
        "training.optim_args",
        "did you mean momentum?",
    ),
    (
        {"training.optim": "sgd", "training.optim_args": {"momentum": 1.0}},
        "training.optim_args",
        "a number of at least 0 and below 1, not 1.0",
    ),
    (
        {"training.optim": "sgd", "training.optim_args": {"nesterov": True}},
        "training.optim_args",
        "needs momentum",
    ),
    (
        {"training.optim_args": {"rank": 8}},
        "training.optim_args",
        "adamw_torch_fused takes no arguments. Remove rank.",
    ),
    (
        {"training.lr_scheduler_kwargs": {"num_cycle": 2}},
        "training.lr_scheduler_kwargs",
        "did you mean num_cycles?",
    ),
    (
        {
            "training.lr_scheduler_type": "cosine_with_restarts",
            "training.lr_scheduler_kwargs": {"num_cycles": 1.5},
        },
        "training.lr_scheduler_kwargs",
        "a whole number of at least 1, not 1.5",
    ),
    (
        {
            "training.lr_scheduler_type": "cosine_with_min_lr",
            "training.lr_scheduler_kwargs": {"min_lr": 1e-6, "min_lr_rate": 0.1},
        },
        "training.lr_scheduler_kwargs",
        "needs one of min_lr and min_lr_rate",
    ),
    (
        {
            "training.lr_scheduler_type": "polynomial",
            "training.lr_scheduler_kwargs": {"lr_end": 1e-3},
        },
        "training.lr_scheduler_kwargs",
        "the rate has to fall",
    ),
    (
        {"training.lr_scheduler_type": "greedy"},
        "training.lr_scheduler_kwargs",
        "min_lr is 0.001 and training.learning_rate 0.0002",
    ),
    (
        {
            "training.lr_scheduler_type": "greedy",
            "training.lr_scheduler_kwargs": {"min_lr": 1e-6},
            "evaluation.eval_strategy": "no",
            "tracking.save_strategy": "no",
        },
        "training.lr_scheduler_type",
        "needs a measured loss",
    ),
]


@pytest.mark.parametrize(("values", "field", "says"), WRONG)
def test_what_does_not_go_together_is_told_at_its_field(values, field, says) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(values)
    (problem,) = caught.value.problems
    assert problem.field == field and says in problem.message


def test_arguments_are_taken_as_transformers_writes_them_too() -> None:
    """`optim_args` of a config that somebody brings along is a text."""
    values = {"training.optim": "sgd", "training.optim_args": "momentum=0.9, nesterov=true"}
    assert parse_config(values).training.optim_args == {"momentum": 0.9, "nesterov": True}
    with pytest.raises(ConfigError, match="not 'much'"):
        parse_config({"training.optim": "sgd", "training.optim_args": "momentum=much"})


def test_fields_that_an_optimizer_does_not_read_are_not_shown() -> None:
    shown = {
        name: {path for path, spec in SPEC_BY_PATH.items() if spec.shown({"training.optim": name})}
        for name in OPTIMIZERS
    }
    assert "training.adam_beta1" not in shown["sgd"] and "training.adam_beta1" in shown["lion_8bit"]
    assert "training.adam_epsilon" not in shown["lion_8bit"]
    assert "training.max_grad_norm" not in shown["lomo"]
    assert "training.optim_target_modules" in shown["galore_adamw"]
    assert "training.optim_target_modules" not in shown["adamw_torch"]
    assert "training.optim_args" not in shown["adamw_torch"]


@given(
    value=st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    kind=st.sampled_from([bool, int, float, str]),
    minimum=st.none() | st.integers(-5, 5),
    below=st.none() | st.integers(6, 9),
)
def test_what_an_argument_takes_is_of_its_kind_and_within_its_bounds(
    value, kind, minimum, below
) -> None:
    argument = Argument(kind, minimum=minimum, below=below)
    if argument.takes(value):
        assert isinstance(value, kind) or kind is float and isinstance(value, int)
        assert kind is bool or not isinstance(value, bool)
        if kind in (int, float):
            assert minimum is None or value >= minimum
            assert below is None or value < below
