"""The reward functions of a config: what is understood, and what is refused in which words."""

from __future__ import annotations

from typing import Any

import pytest

from core.commands.rewards import OPTIONS
from core.errors import ConfigError
from core.rewards.kinds import KINDS
from core.rewards.specs import FIELD, catalogue, option_specs, parse_rewards, plain_reward

GIVEN: dict[str, dict[str, Any]] = {
    "json_schema": {"json_schema": {"type": "object"}},
    "regex": {"pattern": "a+"},
    "length": {"target": 10},
    "reward_model": {"model": "20261121-2214-quiet-otter"},
    "judge": {"model": "some-model"},
    "own": {"file": "mine/my_rewards.py", "function": "short"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_needs_no_more_than_what_has_no_default(kind: str) -> None:
    (spec,) = parse_rewards([{"kind": kind, **GIVEN.get(kind, {})}])
    assert spec.kind == kind and spec.weight == 1.0 and spec.number == 1
    again = plain_reward(kind, spec.options.model_dump())
    assert parse_rewards([again]) == [spec]
    if kind in GIVEN:
        with pytest.raises(ConfigError, match=rf"reward 1 \({kind}\)"):
            parse_rewards([{"kind": kind}])


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_is_explained(kind: str) -> None:
    """Somebody who chooses a function in the page or the shell would have to guess."""
    assert KINDS[kind].sentence().endswith(".") and KINDS[kind].title
    for spec in option_specs(kind):
        assert spec.help and spec.label and spec.path in OPTIONS, spec.path
    assert [one["kind"] for one in catalogue()] == list(KINDS)


def test_each_function_has_a_curve_of_its_own() -> None:
    values: list[dict[str, Any]] = [
        {"kind": "json_valid"},
        {"kind": "json_valid", "weight": -2},
        {"kind": "json_valid", "name": "clean"},
        {"kind": "own", "file": "a.py", "function": "short"},
    ]
    specs = parse_rewards(values)
    assert [spec.name for spec in specs] == ["json_valid", "json_valid_2", "clean", "short"]
    assert [spec.weight for spec in specs] == [1.0, -2.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({}, "reward 1: kind is missing: one of exact_answer"),
        ({"kind": "jsn_valid"}, "did you mean json_valid?"),
        ({"kind": ["a"]}, "is not known"),
        ("json", "is no mapping"),
        ({"kind": "json_valid", "weigth": 1}, "did you mean weight?"),
        ({"kind": "json_valid", "weight": "much"}, "weight must be a number from -1000 to 1000"),
        ({"kind": "json_valid", "name": "two words"}, "name is not allowed"),
        ({"kind": "regex", "pattern": "(a"}, "pattern is no regular expression: missing )"),
        ({"kind": "length"}, "give a target, or a minimum, a maximum or both"),
        ({"kind": "length", "target": 5, "maximum": 9}, "give a target, or"),
        ({"kind": "length", "minimum": 9, "maximum": 5}, "minimum 9 is above maximum 5"),
        ({"kind": "json_schema", "json_schema": {"type": 1}}, "json_schema is no JSON Schema"),
        ({"kind": "own", "file": "../a.py", "function": "f"}, "file is not allowed"),
        ({"kind": "own", "file": "/etc/a.py", "function": "f"}, "file is not allowed"),
        ({"kind": "own", "file": "a.py", "function": "f()"}, "function is not allowed"),
    ],
)
def test_a_wrong_entry_is_refused_at_its_field(value: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_rewards([value])
    (problem,) = caught.value.problems
    assert problem.field == FIELD and said in problem.message


@pytest.mark.parametrize(
    ("values", "said"),
    [([], "is empty"), ([{"kind": "json_valid", "weight": 0}], "all weights are 0")],
)
def test_a_list_that_teaches_nothing_is_refused(values: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_rewards(values)
