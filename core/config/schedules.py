"""Every schedule of the learning rate that the installed transformers lists, and what it takes.

Tests hold the list and the arguments against transformers' own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from core.config.arguments import Argument
from core.language import N_, Said

_COUNT = Argument(int, minimum=0)
_STEPS = Argument(int, minimum=1)
_SHARE = Argument(float, minimum=0, maximum=1)
_SMALL = Argument(float, minimum=0)
_POSITIVE = Argument(float, above=0)
_FACTOR = Argument(float, above=0, below=1)
_CURVE = Argument(str, choices=("linear", "cosine", "1-sqrt"))
_MEASURED = {
    "mode": Argument(str, choices=("min", "max")),
    "factor": _FACTOR,
    "patience": _COUNT,
    "threshold": _SMALL,
    "threshold_mode": Argument(str, choices=("rel", "abs")),
    "cooldown": _COUNT,
    "min_lr": _SMALL,
    "eps": _SMALL,
}
_LOWEST = {"num_cycles": _POSITIVE, "min_lr": _SMALL, "min_lr_rate": _SHARE}


@dataclass(frozen=True)
class Schedule:
    """One schedule. `one_of` are arguments of which exactly one has to be given, `needed` those
    that always have to. `measured` follows a measured value instead of the steps."""

    name: str
    sentence: Said = Said()
    arguments: dict[str, Argument] = field(default_factory=dict)
    needed: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    warms_up: bool = True
    measured: bool = False


_ALL = (
    Schedule("linear", N_("Falls evenly to zero.")),
    Schedule(
        "cosine",
        N_("Stays high for long, falls quickest in the middle and settles near zero."),
        {"num_cycles": _POSITIVE},
    ),
    Schedule(
        "cosine_with_restarts",
        N_("Falls like a cosine num_cycles times, each time from the full rate again."),
        {"num_cycles": _STEPS},
    ),
    Schedule(
        "cosine_with_min_lr",
        N_("A cosine that ends at min_lr, or at the share min_lr_rate of the rate, not at zero."),
        _LOWEST,
        one_of=("min_lr", "min_lr_rate"),
    ),
    Schedule(
        "cosine_warmup_with_min_lr",
        N_("The same, with a warm-up that begins at the share warmup_lr_rate of the rate."),
        {**_LOWEST, "warmup_lr_rate": _SHARE},
        one_of=("min_lr", "min_lr_rate"),
    ),
    Schedule(
        "warmup_stable_decay",
        N_(
            "Stays at the full rate and falls over the last num_decay_steps: a run can be made "
            "longer from before the fall."
        ),
        {
            "num_decay_steps": _STEPS,
            "num_stable_steps": _COUNT,
            "warmup_type": _CURVE,
            "decay_type": _CURVE,
            "min_lr_ratio": _SHARE,
            "num_cycles": _POSITIVE,
        },
        needed=("num_decay_steps",),
    ),
    Schedule(
        "polynomial",
        N_("Falls to lr_end by a power: 1 is a straight line, 2 falls quickly first."),
        {"lr_end": _SMALL, "power": _POSITIVE},
    ),
    Schedule(
        "inverse_sqrt",
        N_("Falls by the square root of the steps and never ends; timescale is where it begins."),
        {"timescale": _STEPS},
    ),
    Schedule("constant", N_("Stays as it is, without a warm-up."), warms_up=False),
    Schedule("constant_with_warmup", N_("Rises over the warm-up and stays.")),
    Schedule(
        "reduce_lr_on_plateau",
        N_(
            "Multiplies the rate by factor when the measured loss has not improved for patience "
            "evaluations. No warm-up."
        ),
        _MEASURED,
        warms_up=False,
        measured=True,
    ),
    Schedule(
        "greedy",
        N_(
            "Raises the rate while the measured loss improves and lowers it when it does not, "
            "between min_lr and max_lr. No warm-up."
        ),
        {
            **_MEASURED,
            "warmup": _COUNT,
            "max_lr": _POSITIVE,
            "verbose": Argument(bool),
            "smooth": Argument(bool),
            "window_size": _STEPS,
            "reset_start": _COUNT,
        },
        warms_up=False,
        measured=True,
    ),
)
SCHEDULES: dict[str, Schedule] = {schedule.name: schedule for schedule in _ALL}
STAYS_AT_ZERO = N_(
    "The warm-up takes the only step of the run, whose learning rate is 0: nothing is learned. "
    "Set training.warmup_steps to 0, or take more steps."
)


def stays_at_zero(name: str, given: dict[str, Any], warmup_steps: float, steps: int) -> bool:
    """Whether the rate of a run of so many steps is 0 at each of them: a warm-up begins at 0, and
    one that is a share of the steps is rounded up to a whole step."""
    if name == "cosine_warmup_with_min_lr":
        return steps == 1 and warmup_steps > 0 and given.get("warmup_lr_rate") == 0
    warms_up = SCHEDULES[name].warms_up and not given.get("min_lr_ratio")
    return steps == 1 and warmup_steps > 0 and warms_up


if TYPE_CHECKING:
    ScheduleName: TypeAlias = str
else:
    ScheduleName = Literal[tuple(SCHEDULES)]
