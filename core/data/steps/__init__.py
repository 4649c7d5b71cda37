"""The steps that a data set can go through, by name; YAML and the shell name them so."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from core.config.fields import field_specs
from core.config.problems import problems_of
from core.data.steps.base import Step
from core.errors import ConfigError, DataError, did_you_mean
from core.language import _

# In the order in which a person is offered them.
_MODULES = ("quality", "duplicates", "leaks", "personal", "cut", "shape", "labels", "split")


@lru_cache
def known_steps() -> Mapping[str, type[Step]]:
    """Every kind of step by its `op`."""
    found: dict[str, type[Step]] = {}
    for name in _MODULES:
        module = importlib.import_module(f"core.data.steps.{name}")
        found |= {step.op: step for step in module.STEPS}
    return MappingProxyType(found)


def parse_step(spec: Mapping[str, Any], place: str = "step") -> Step:
    """A step from its record. Raises ConfigError that names the wrong field as `place.field`,
    DataError for a step that does not exist."""
    op = str(spec.get("op", ""))
    kind = known_steps().get(op)
    if kind is None:
        end = did_you_mean(op, known_steps())
        raise DataError(
            _("There is no step {op}{end}", op=op, end=end) if op else _("A step has no op."),
            _("The steps are {names}.", names=", ".join(known_steps())),
        )
    try:
        return kind.model_validate({name: value for name, value in spec.items() if name != "op"})
    except ValidationError as error:
        specs = {spec.path: spec for spec in field_specs(kind)}
        raise ConfigError(
            [
                replace(problem, field=f"{place}.{problem.field}")
                for problem in problems_of(error, specs)
            ]
        ) from error


def parse_steps(specs: Sequence[Mapping[str, Any]]) -> list[Step]:
    """Steps from their records, in order."""
    return [parse_step(spec, f"steps.{number}") for number, spec in enumerate(specs, 1)]


def with_step(steps: Sequence[Step], step: Step) -> list[Step]:
    """The steps with one more, where it belongs: before the split, unless it needs the parts
    apart. A second split takes the place of the first."""
    if step.op == "split":
        others = [one for one in steps if one.op != "split"]
        first_after = next((i for i, one in enumerate(others) if one.after_split), len(others))
        return [*others[:first_after], step, *others[first_after:]]
    place = next((i for i, one in enumerate(steps) if one.op == "split"), len(steps))
    if step.after_split:
        place = len(steps)
    return [*steps[:place], step, *steps[place:]]


def write_recipe(recipe: Mapping[str, Any]) -> str:
    """A recipe as YAML: form, mapping, system_prompt and steps."""
    return str(yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True))


def read_recipe(path: Path) -> dict[str, Any]:
    """A recipe from a YAML file: a mapping with `steps`, and `form`, `mapping`, `system_prompt`
    if they are fixed; a bare list is its steps. Raises DataError for anything else."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            _("{name} cannot be read: {reason}.", name=path.name, reason=error.strerror),
            _("Choose a YAML file."),
        ) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise DataError(
            _("{name} is not YAML.", name=path.name), _("Choose a YAML file.")
        ) from error
    except yaml.YAMLError as error:
        raise DataError(
            _("{name} is not YAML: {error}.", name=path.name, error=error),
            _("Mend the line named."),
        ) from error
    if isinstance(found, list):
        found = {"steps": found}
    try:
        recipe = _Recipe.model_validate(found, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(
            _(
                "{name} is no recipe: {place}: {error}.",
                name=path.name,
                place=place,
                error=first["msg"],
            )
            if place
            else _("{name} is no recipe.", name=path.name),
            _(
                "It is a mapping with {fields}; write each step as `- op: drop_duplicates`, with "
                "its settings below.",
                fields=", ".join(_Recipe.model_fields),
            ),
        ) from error
    return recipe.model_dump(exclude_none=True)


class _Recipe(BaseModel):
    model_config = ConfigDict(extra="forbid")

    form: str | None = None
    mapping: dict[str, str] | None = None
    system_prompt: str | None = None
    steps: list[dict[str, Any]] = []
