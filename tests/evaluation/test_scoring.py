"""A wrong score praises a bad model or blames a good one."""

from __future__ import annotations

import pytest

from core.evaluation.scoring import (
    FieldRule,
    field_rules,
    fields_right,
    parse_object,
    same_value,
    token_f1,
)

TICKET = '{"product": "lock", "urgency": "high", "summary": "Front door opens by itself"}'
RULES = [FieldRule("product"), FieldRule("urgency"), FieldRule("summary", "token_f1")]


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (TICKET, ["product", "urgency", "summary"]),
        ('{"urgency":"HIGH ","product":" Lock"}', ["product", "urgency"]),
        ('{"product": "lock", "summary": "door opens itself at night"}', ["product", "summary"]),
        ('{"product": "lock", "summary": "door broken at night"}', ["product"]),
        ('```json\n{"product": "lock"}\n```', ["product"]),
        ('The product is {"product": "lock"}', []),
        ('{"product": "lock"', []),
        ('["lock", "high"]', []),
        ("", []),
    ],
)
def test_fields_of_a_json_answer(answer: str, right: list[str]) -> None:
    assert fields_right(answer, TICKET, RULES) == right


def test_a_field_that_should_be_absent_is_wrong_when_it_is_there() -> None:
    rules = [FieldRule("product"), FieldRule("urgency")]
    assert fields_right('{"product": "lock"}', '{"product": "lock"}', rules) == [
        "product",
        "urgency",
    ]
    both = '{"product": "lock", "urgency": "low"}'
    assert fields_right(both, '{"product": "lock"}', rules) == ["product"]


def test_f1_at_the_threshold_counts_as_right() -> None:
    """Expected 4 words, answer 4 words, 2 in common: precision = recall = F1 = 0.5."""
    assert token_f1("door stays open today", "Door opens by stays") == 0.5
    rule = [FieldRule("s", "token_f1")]
    assert fields_right('{"s": "a b c d"}', '{"s": "a b x y"}', rule) == ["s"]
    assert fields_right('{"s": "a b c d e"}', '{"s": "a b x y"}', rule) == []


@pytest.mark.parametrize(
    ("answer", "expected", "f1"),
    [
        ("the cat sat", "the cat sat", 1.0),
        ("The cat", "the cat sat on it", 4 / 7),
        ("the the the", "the cat", 2 / 5),
        ("dog", "cat", 0.0),
        ("", "", 1.0),
        ("", "cat", 0.0),
        ("猫が好き", "猫が嫌い", 0.5),
    ],
)
def test_token_f1_by_hand(answer: str, expected: str, f1: float) -> None:
    assert token_f1(answer, expected) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (" High", "high", True),
        (1, 1.0, True),
        (True, 1, False),
        (None, None, True),
        ("1", 1, False),
        (["A", 2], ["a ", 2], True),
        (["a"], ["a", "b"], False),
        ({"x": "A"}, {"x": "a"}, True),
        ({"x": 1}, {"y": 1}, False),
    ],
)
def test_same_value(one: object, other: object, same: bool) -> None:
    assert same_value(one, other) is same


def test_the_task_names_the_fields() -> None:
    task = {"fields": [{"name": "product", "score": "exact"}, {"name": "note"}]}
    assert field_rules(task, [TICKET]) == [FieldRule("product"), FieldRule("note")]
    sample = {"fields": [{"name": "summary", "score": "token_f1"}]}
    assert field_rules(sample, [TICKET]) == [FieldRule("summary", "token_f1")]


def test_without_a_task_the_fields_are_those_that_nearly_all_answers_have() -> None:
    answers = ['{"a": 1, "b": 2}'] * 9 + ['{"a": 1}']
    assert field_rules(None, answers) == [FieldRule("a"), FieldRule("b")]
    assert field_rules(None, answers + ['{"a": 1}']) == [FieldRule("a")]


def test_plain_answers_have_no_fields() -> None:
    """Else a data set of prose would be scored as JSON, all wrong."""
    assert field_rules({"fields": [{"name": "a"}]}, ["Paris.", "Rome."]) == []
    assert field_rules(None, []) == []


def test_a_deeply_nested_answer_does_not_crash_the_evaluation() -> None:
    assert parse_object("[" * 100_000) is None
