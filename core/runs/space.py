"""Which settings a search tries: values of each, or a range, and what comes next."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from core.config import SPEC_BY_PATH, RunConfig
from core.config.fields import FieldSpec, Section, field_specs, knob
from core.config.problems import problems_of, unknown_field
from core.errors import ConfigError, Problem
from core.language import _
from core.rules import parse_config
from core.rules.command import apply_overrides

Search = Literal["grid", "random", "tpe"]
OVER = "over"
# More runs than anybody waits for: a slip in a range.
MOST_TRIALS = 1000
_RANDOMLY = {"search": ["random", "tpe"]}
# What cannot differ between runs that are compared.
_FIXED = ("name", "method", "data.dataset", "data.dataset_fingerprint", "training.device")


class SweepSettings(Section):
    """What a search tries and how."""

    over: list[str] = knob([], "Settings to try", level="basic", free_text=True)
    """One setting on each line, by its path, with its values: `training.learning_rate=1e-4,2e-4`,
    or a range for random and TPE: `training.learning_rate=1e-5..1e-3:log`, `adapter.r=4..64`."""

    search: Search = knob("grid", "Search", level="basic")
    """The grid tries each combination. Random draws from the ranges. TPE (Optuna) learns from the
    runs so far where good values lie; it is worth its package from about twenty runs on."""

    trials: int = knob(10, "Runs", level="basic", when=_RANDOMLY, unit="runs", ge=1, le=MOST_TRIALS)
    """So many runs are tried. The grid has as many as it has combinations."""

    at_once: int = knob(1, "Runs in the queue at once", ge=1, le=64)
    """More than one only helps where several devices are free; TPE then knows less of each."""


def sweep_settings(**given: Any) -> SweepSettings:
    """The settings of a search from what somebody typed. Raises ConfigError, each problem at its
    field."""
    try:
        return SweepSettings(**given)
    except ValidationError as error:
        specs = {spec.path: spec for spec in field_specs(SweepSettings)}
        raise ConfigError(problems_of(error, specs)) from error


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    log: bool
    whole: bool

    def at(self, share: float) -> float | int:
        """The number at a share of the way, 0 to 1."""
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            found = math.exp(low + (high - low) * share)
        else:
            found = self.low + (self.high - self.low) * share
        return round(found) if self.whole else float(f"{found:.4g}")


Space = dict[str, "list[Any] | Range"]


def parse_space(over: Sequence[str], search: Search = "grid") -> Space:
    """The settings and their values, in their order. Raises ConfigError with every problem, each at
    the setting it is about, or at `over`."""
    space: Space = {}
    problems: list[Problem] = []
    for line in over:
        path, equals, text = (part.strip() for part in line.partition("="))
        try:
            if not equals or not text:
                message = _("{line} is no setting with values: PATH=VALUE,VALUE.", line=repr(line))
                raise ConfigError([Problem(OVER, message)])
            if path in space:
                message = _("{path} stands there twice.", path=path)
                raise ConfigError([Problem(OVER, message)])
            space[path] = _values(path, text, search)
        except ConfigError as error:
            problems += error.problems
    if not over:
        problems.append(Problem(OVER, _("Name a setting and the values to try.")))
    if problems:
        raise ConfigError(problems)
    return space


def _values(path: str, text: str, search: Search) -> list[Any] | Range:
    spec = SPEC_BY_PATH.get(path)
    if spec is None:
        raise ConfigError([unknown_field(path, SPEC_BY_PATH)])
    if path in _FIXED:
        message = _("{path} is the same in all runs of a search.", path=path)
        raise ConfigError([Problem(OVER, message)])
    if ".." in text and spec.kind in ("int", "float"):
        found = _range(spec, text)
        if search == "grid":
            message = _("{path}: a grid takes values, not a range.", path=path)
            raise ConfigError([Problem(OVER, message)])
        return found
    # The values of a list have commas of their own.
    parts = text.split("|" if "|" in text else ",")
    given = [part.strip() for part in parts if part.strip()]
    values = [apply_overrides({}, [f"--{path}={part}"])[path] for part in given]
    unique = [one for place, one in enumerate(values) if one not in values[:place]]
    if len(unique) < 2:
        message = _("{path} has one value: a search needs two, or a range.", path=path)
        raise ConfigError([Problem(OVER, message)])
    return unique


def _range(spec: FieldSpec, text: str) -> Range:
    numbers, colon, scale = text.partition(":")
    low, _dots, high = numbers.partition("..")
    try:
        found = Range(float(low), float(high), scale.strip() == "log", spec.kind == "int")
    except ValueError:
        found = None
    if found is None or colon and not found.log or not found.low < found.high:
        message = _("{path}={text} is no range: LOW..HIGH, or LOW..HIGH:log.")
        told = message.format(path=spec.path, text=text)
        raise ConfigError([Problem(OVER, told)])
    if found.log and found.low <= 0:
        message = _("{path}={text}: a logarithmic range begins above 0.", path=spec.path, text=text)
        raise ConfigError([Problem(OVER, message)])
    return found


def check_space(space: Space, settings: SweepSettings, config: RunConfig) -> int:
    """How many runs a search has. Raises ConfigError where one of them could not be started: each
    run of a grid is looked at, of a range its ends."""
    number = settings.trials
    if settings.search == "grid":
        number = math.prod(len(values) for values in space.values() if isinstance(values, list))
    if number > MOST_TRIALS:
        message = _(
            "These are {n:,} runs; {most:,} are the most. Take fewer values, or search at random.",
            n=number,
            most=MOST_TRIALS,
        )
        raise ConfigError([Problem(OVER, message)])
    problems: dict[tuple[str, str], Problem] = {}
    for changes in _looked_at(space, settings.search):
        try:
            with_changes(config, changes)
        except ConfigError as error:
            problems |= {(one.field, str(one.message)): one for one in error.problems}
    if problems:
        raise ConfigError(list(problems.values()))
    return number


def _looked_at(space: Space, search: Search) -> list[dict[str, Any]]:
    if search == "grid":
        return combinations(space)
    ends = {
        path: values if isinstance(values, list) else [values.at(0), values.at(1)]
        for path, values in space.items()
    }
    return [{path: value} for path, values in ends.items() for value in values]


def combinations(space: Space) -> list[dict[str, Any]]:
    """All of a grid; the last setting changes first."""
    lists = [values for values in space.values() if isinstance(values, list)]
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*lists)]


def with_changes(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """`config` with some settings changed. Raises ConfigError where they do not go together."""
    return parse_config({**config.values(), **changes})


@dataclass(frozen=True)
class Tried:
    """What became of one run: its changes, and its score, None where it has none."""

    changes: Mapping[str, Any]
    score: float | None


def propose(
    space: Space,
    search: Search,
    number: int,
    tried: Sequence[Tried],
    *,
    higher: bool,
    seed: int,
) -> dict[str, Any]:
    """The changes of run `number`, counted from 0. The same settings and the same runs before it
    give the same."""
    if search == "grid":
        return combinations(space)[number]
    if search == "random":
        draw = random.Random(f"{seed} {number}")
        return {
            path: draw.choice(values) if isinstance(values, list) else values.at(draw.random())
            for path, values in space.items()
        }
    return _by_tpe(space, number, tried, higher=higher, seed=seed)


def _by_tpe(
    space: Space, number: int, tried: Sequence[Tried], *, higher: bool, seed: int
) -> dict[str, Any]:
    """What Optuna's sampler proposes, told all runs so far. A list of values is told by the place
    in it, since Optuna takes no lists as a value."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kinds = optuna.distributions
    distributions: dict[str, Any] = {}
    for path, values in space.items():
        if isinstance(values, list):
            distributions[path] = kinds.CategoricalDistribution(range(len(values)))
        elif values.whole:
            distributions[path] = kinds.IntDistribution(
                int(values.low), int(values.high), log=values.log
            )
        else:
            distributions[path] = kinds.FloatDistribution(values.low, values.high, log=values.log)
    sampler = optuna.samplers.TPESampler(seed=seed + number)
    study = optuna.create_study(direction="maximize" if higher else "minimize", sampler=sampler)
    for one in tried:
        if one.score is None:
            continue
        params = {
            path: values.index(one.changes[path]) if isinstance(values, list) else one.changes[path]
            for path, values in space.items()
        }
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=distributions, value=one.score)
        )
    asked = study.ask(distributions).params
    return {
        path: values[asked[path]]
        if isinstance(values, list)
        else asked[path]
        if values.whole
        else float(f"{asked[path]:.4g}")
        for path, values in space.items()
    }
