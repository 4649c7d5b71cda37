"""From the list `reinforcement.rewards` of a config to what each reward function is to do.

Imports neither torch nor a tokenizer. A module that `core.config` itself imports reaches this one
inside a function, for it stands on `core.config.fields`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from core.config.fields import FieldSpec, field_specs
from core.config.problems import problems_of
from core.errors import ConfigError, Problem, did_you_mean
from core.language import _
from core.rewards.kinds import KINDS, Reward

FIELD = "reinforcement.rewards"
_EXAMPLE = "{kind: json_valid, weight: 1}"


@dataclass(frozen=True)
class RewardSpec:
    """One reward function of a run. `name` is unique in the run and names its curve; `options` is
    the section of its kind; `number` counts from 1."""

    kind: str
    weight: float
    name: str
    options: Reward
    number: int


def parse_rewards(values: Sequence[Mapping[str, Any]]) -> list[RewardSpec]:
    """The reward functions of a config, in their order.

    Raises ConfigError with every problem, each at `reinforcement.rewards` and naming the entry.
    """
    problems: list[Problem] = []
    specs: list[RewardSpec] = []
    for number, value in enumerate(values, start=1):
        try:
            kind, options = parse_reward(value)
        except ConfigError as error:
            kind_name = value.get("kind") if isinstance(value, Mapping) else None
            place = (
                _("reward {number} ({name})", number=number, name=kind_name)
                if kind_name
                else _("reward {number}", number=number)
            )
            problems += [Problem(FIELD, _joined(place, one)) for one in error.problems]
            continue
        taken = {spec.name for spec in specs}
        name = _free_name(options.name or _short(kind, options), taken)
        specs.append(RewardSpec(kind, options.weight, name, options, number))
    if not values:
        wrong = _("is empty: name at least one function, such as {example}.", example=_EXAMPLE)
        problems.append(Problem(FIELD, wrong))
    elif not problems and all(spec.weight == 0 for spec in specs):
        problems.append(Problem(FIELD, _("all weights are 0: nothing would be learned.")))
    if problems:
        raise ConfigError(problems)
    return specs


def parse_reward(value: Mapping[str, Any]) -> tuple[str, Reward]:
    """(kind, options) of one entry. Raises ConfigError whose problems stand at its options."""
    if not isinstance(value, Mapping):
        wrong = _("is no mapping of options, such as {example}.", example=_EXAMPLE)
        raise ConfigError([Problem("", wrong)])
    given = dict(value)
    kind = given.pop("kind", None)
    if kind is None:
        wrong = _("is missing: one of {kinds}.", kinds=", ".join(KINDS))
        raise ConfigError([Problem("kind", wrong)])
    if not isinstance(kind, str) or kind not in KINDS:
        wrong = _(
            "{kind} is not known{end} There are {kinds}.",
            kind=repr(kind),
            end=did_you_mean(str(kind), KINDS),
            kinds=", ".join(KINDS),
        )
        raise ConfigError([Problem("kind", wrong)])
    section = KINDS[kind]
    try:
        options = section.model_validate(given)
        # A default is not validated: an option that must be given is found here.
        options = section.model_validate(options.model_dump())
    except ValidationError as error:
        raise ConfigError(problems_of(error, {s.path: s for s in option_specs(kind)})) from error
    problems = [Problem("", text) for text in options.problems()]
    if problems:
        raise ConfigError(problems)
    return kind, options


def option_specs(kind: str) -> list[FieldSpec]:
    """The options of a kind as fields for a form, those of its own before weight and name."""
    specs = field_specs(KINDS[kind])
    shared = set(Reward.model_fields)
    return [s for s in specs if s.path not in shared] + [s for s in specs if s.path in shared]


def plain_reward(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """An entry for a config: the kind, the weight and what differs from the defaults."""
    kept = {
        spec.path: options[spec.path]
        for spec in option_specs(kind)
        if spec.path in options and (options[spec.path] != spec.default or spec.path == "weight")
    }
    weight = kept.pop("weight", 1.0)
    return {"kind": kind, "weight": weight, **kept}


def _joined(place: str, problem: Problem) -> str:
    field, message = problem.field, problem.message
    if not field:
        return _("{place}: {message}", place=place, message=message)
    return _("{place}: {field} {message}", place=place, field=field, message=message)


def _short(kind: str, options: Reward) -> str:
    return str(getattr(options, "function", "")) if kind == "own" else kind


def _free_name(name: str, taken: set[str]) -> str:
    """`name`, or with a number behind it where another function has it."""
    found, count = name, 1
    while found in taken:
        count += 1
        found = f"{name}_{count}"
    return found


def catalogue() -> list[dict[str, Any]]:
    """Every kind with its title, sentence and options, for a list."""
    return [
        {
            "kind": kind,
            "title": section.title,
            "sentence": section.sentence(),
            "needs_answer": section.needs_answer,
            "options": [
                {
                    "name": spec.path,
                    "allowed": spec.allowed,
                    "default": spec.default,
                    "help": spec.help,
                }
                for spec in option_specs(kind)
            ],
        }
        for kind, section in KINDS.items()
    ]
