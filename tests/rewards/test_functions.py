"""What each reward function says of an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import TrainingError
from core.rewards.functions import PLAIN, length, matches, read_part, schema_problem
from core.rewards.kinds import KINDS, Length, Regex
from core.rewards.texts import Number, numbers_in, same_number, text_of


def scored(kind: str, text: str, answer: str | None = None, **options: Any) -> float | None:
    section = KINDS[kind].model_validate(options)
    return PLAIN[kind](section, read_part(section, text), answer)


@pytest.mark.parametrize(
    ("text", "answer", "options", "reward"),
    [
        ("Paris", "paris", {}, 1),
        (" **Paris.** ", "Paris", {}, 1),
        ("It is Paris", "Paris", {}, 0),
        ("paris", "Paris", {"ignore_case": False}, 0),
        ("５", "5", {}, 1),
        ("-5", "5", {}, 0),
        ("First\n\nParis\n", "Paris", {"find": "last_line"}, 1),
        ("so #### Lyon\n#### Paris\nDone", "Paris", {"find": "after_marker"}, 1),
        ("no marker: Paris", "Paris", {"find": "after_marker"}, 0),
        (r"thus \boxed{\frac{1}{2}}", r"\frac{1}{2}", {"find": "boxed"}, 1),
        (r"thus \boxed{never closed", "never closed", {"find": "boxed"}, 0),
        ("<think>Lyon?</think>Paris", "Paris", {}, 1),
        ("<think>Paris", "Paris", {}, 0),
        ("Paris", "a whole way\n#### Paris", {}, 1),
        ("Paris", None, {}, None),
        ("Paris", " ", {}, None),
    ],
)
def test_an_exact_answer(text: str, answer: str | None, options: Any, reward: float | None) -> None:
    assert scored("exact_answer", text, answer, **options) == reward


@pytest.mark.parametrize(
    ("text", "answer", "options", "reward"),
    [
        ("It costs $1,234.50.", "1234.5", {}, 1),
        ("答案是72。", "solution text 3 * 24 = 72\n#### 72", {}, 1),
        ("10-5 is 5", "5", {}, 1),
        ("minus three: -3", "3", {}, 0),
        (r"\boxed{\frac{3}{4}}", "0.75", {"find": "boxed"}, 1),
        ("1 1/2 cups", "1.5", {}, 1),
        ("50%", "50", {}, 1),
        ("50%", "0.5", {}, 1),
        ("3.14", "3.14159", {}, 0),
        ("3.14", "3.14159", {"tolerance": 0.01}, 1),
        ("first 72, then 3", "72", {}, 0),
        ("#### 72 of 100", "72", {"find": "after_marker"}, 1),
        ("none", "72", {}, 0),
        ("72", "many", {}, None),
        ("72", None, {}, None),
        ("1e999 5/0", "5", {}, 0),
    ],
)
def test_a_numeric_answer(text: str, answer: str | None, options: Any, reward: float) -> None:
    assert scored("numeric_answer", text, answer, **options) == reward


@settings(deadline=None)
@given(st.floats(min_value=-1e12, max_value=1e12).map(lambda x: round(x, 4)))
def test_a_number_is_read_back_however_it_is_written(value: float) -> None:
    for written in (repr(value), f"{value:,.4f}", f"so ${value:.4f}."):
        found = numbers_in(written)
        assert len(found) == 1 and same_number(found[0], Number(value), 1e-9), written


@pytest.mark.parametrize(
    ("text", "options", "reward"),
    [
        ('{"a": 1}', {}, 1),
        ("[1, 2]", {"top": "object"}, 0),
        ("[1, 2]", {"top": "array"}, 1),
        ('{"a": NaN}', {}, 0),
        ('{"a": 1,}', {}, 0),
        ('Here:\n```json\n{"a": 1}\n```\nDone.', {}, 0),
        ('Here:\n```json\n{"a": 1}\n```\nDone.', {"where": "block"}, 1),
        ("[" * 100_000, {}, 0),
        ("", {}, 0),
    ],
)
def test_valid_json(text: str, options: Any, reward: float) -> None:
    assert scored("json_valid", text, **options) == reward


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=8))
def test_whatever_is_written_as_json_is_valid(value: Any) -> None:
    assert scored("json_valid", json.dumps(value), skip_thinking=False) == 1


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": "^[A-Z]"}, "age": {"$ref": "#/$defs/n"}},
    "required": ["name", "age"],
    "$defs": {"n": {"type": "integer", "minimum": 0}},
}


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ('{"name": "Ada", "age": 36}', 1),
        ('{"name": "ada", "age": 36}', 0.2),
        ('{"name": "Ada", "age": -1}', 0.2),
        ("[]", 0.2),
        ("Ada, 36", 0),
    ],
)
def test_json_by_its_schema(text: str, reward: float) -> None:
    assert scored("json_schema", text, json_schema=PERSON, only_json=0.2) == reward


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "objekt"}, "objekt"),
        ({"$ref": "#"}, "without end"),
        ({"$ref": "https://example.com/schema.json"}, "nothing is fetched|not in it"),
        ({"properties": 3}, "properties"),
    ],
)
def test_a_schema_that_cannot_be_used_is_found_before_the_run(schema: Any, said: str) -> None:
    import re

    assert re.search(said, schema_problem(schema))
    assert schema_problem(PERSON) == ""


@pytest.mark.parametrize(
    ("text", "options", "reward"),
    [
        ("<think>a\nb</think><answer>3</answer>", {"pattern": "<think>.*</think>"}, 1),
        ("a\nb", {"pattern": "a.b", "dot_all": False}, 0),
        ("say yes", {"pattern": "yes", "match": "whole"}, 0),
        ("YES", {"pattern": "yes", "ignore_case": True}, 1),
    ],
)
def test_a_regular_expression(text: str, options: Any, reward: float) -> None:
    assert scored("regex", text, **options) == reward


def test_a_pattern_without_end_is_stopped() -> None:
    """Else the run would hang at one answer for hours."""
    with pytest.raises(TrainingError, match=r"took more than 0.05 s for a text of 61"):
        matches(Regex(pattern=r"(a|aa)+$"), "a" * 60 + "b", None, seconds=0.05)


@pytest.mark.parametrize(
    ("text", "options", "reward"),
    [
        ("one two", {"target": 2}, 1),
        ("one", {"target": 2}, 0.5),
        ("one two three", {"target": 2}, 0.5),
        ("a b c d e", {"target": 2}, 0),
        ("", {"minimum": 4}, 0),
        ("abc", {"unit": "characters", "minimum": 4}, 0.75),
        ("abcd", {"unit": "characters", "minimum": 2, "maximum": 4}, 1),
        ("abcdef", {"unit": "characters", "maximum": 4}, 0.5),
        ("abc", {"unit": "tokens", "target": 6}, 1),
    ],
)
def test_a_length(text: str, options: Any, reward: float) -> None:
    assert length(Length.model_validate(options), text, lambda t: 2 * len(t)) == reward


def test_the_text_of_a_conversation_is_the_last_thing_the_assistant_wrote() -> None:
    written = [
        {"role": "assistant", "content": "", "tool_calls": []},
        {"role": "tool", "content": "7"},
        {"role": "assistant", "content": [{"type": "text", "text": "It is 7."}]},
    ]
    assert text_of(written) == "It is 7."
    assert text_of("plain") == "plain"
    assert text_of([]) == ""
