"""Templates, labels, prompts and tools: what a field's cell may hold."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.data.conversion import convert
from core.data.forms import is_template
from core.data.values import Unusable

LABEL = {"text": "t", "label": "l"}


def text(row: dict[str, Any], template: str) -> str:
    result: str = convert(row, "text", {"text": template})["text"]
    return result


def labels(value: Any, **mapping: str) -> list[str]:
    row = {"t": "x", "l": value}
    result: list[str] = convert(row, "labelled-text", LABEL | mapping)["labels"]
    return result


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{q}\n\n{options}", "Why?\n\nyes\n2\ntrue"),
        ("Q: {q} ({my id})", "Q: Why? (7)"),
        ("{{q}} {q}", "{q} Why?"),
        ('{"question": "{q}"}', '{"question": "Why?"}'),
        ("{q} {empty}|{null}", "Why? |"),
        ("{deep}", '{"a": [1, "ü"]}'),
        ("{nested}", '[1, 2]\n{"b": 3}'),
        ("{half", "{half"),
    ],
)
def test_a_template_puts_columns_together(template: str, expected: str) -> None:
    row = {"q": "Why?", "options": ["yes", 2, True], "my id": 7, "empty": "", "null": None}
    row |= {"deep": {"a": [1, "ü"]}, "nested": [[1, 2], {"b": 3}], "{half": "{half"}
    assert text(row, template) == expected


def test_a_column_is_no_template() -> None:
    assert is_template("{a}") and is_template("x {a b}")
    assert not any(is_template(source) for source in ("a", "{{a}}", "{", "a{b", "{}", ""))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"a": "x"}, "the column b is missing"),
        ({"a": "", "b": None}, r"the columns of the template \(a, b\) are empty"),
        ({"a": "x", "b": float("nan"), "c": 1}, ""),
        ({"a": "x", "b": [float("inf"), {"c": float("inf")}]}, "JSON does not know"),
        ({"a": "x", "b": "\ud800"}, "half a character"),
    ],
)
def test_a_template_without_its_columns_drops_the_row(row: dict[str, Any], reason: str) -> None:
    if not reason:
        assert text(row, "{a}: {b}") == "x: "
        return
    with pytest.raises(Unusable, match=reason):
        text(row, "{a}: {b}")


def test_templates_stand_for_any_field_of_text() -> None:
    row = {"q": "Why?", "c": "It rains.", "a": "Clouds", "who": "a farmer"}
    mapping = {"prompt": "{c}\n\n{q}", "completion": "{a}.", "system": "You are {who}."}
    result = convert(row, "prompt-completion", mapping)
    assert [turn["content"] for turn in result["prompt"]] == [
        "You are a farmer.",
        "It rains.\n\nWhy?",
    ]
    assert result["completion"] == [{"role": "assistant", "content": "Clouds."}]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("spam", ["spam"]),
        (" spam ", ["spam"]),
        (3, ["3"]),
        (3.0, ["3"]),
        (False, ["false"]),
        (["a", "b", "a"], ["a", "b"]),
        ([], []),
        ('["a", "b"]', ["a", "b"]),
        ([1, "x"], ["1", "x"]),
        ("a|b", ["a|b"]),
        ("[odd] name", ["[odd] name"]),
    ],
)
def test_labels_are_names(value: Any, expected: list[str]) -> None:
    assert labels(value) == expected


def test_several_labels_in_one_text_are_told_apart_only_when_asked() -> None:
    """A comma may be a part of a label's name."""
    assert labels("law, tax") == ["law, tax"]
    assert labels("law, tax,", separator=",") == ["law", "tax"]
    assert labels("a|b|a", separator="|") == ["a", "b"]
    assert labels("a;b", separator=";") == ["a", "b"]
    assert labels(7, separator=";") == ["7"]


@pytest.mark.parametrize(
    ("value", "separator", "reason"),
    [
        (None, "", "the label is missing"),
        ("", "", "the label is empty"),
        (" , ", ",", "the label is empty"),
        ([None], "", "the label is missing"),
        ([["a"]], "", "a label is a list"),
        ({"a": 1}, "", "a label is an object"),
    ],
)
def test_a_row_without_a_label_has_its_reason(value: Any, separator: str, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        labels(value, separator=separator)


def test_a_prompt_keeps_its_reference_answer() -> None:
    """Rewards compare with it: a number must not turn into nothing."""
    mapping = {"prompt": "p", "answer": "a"}
    prompt = [{"role": "user", "content": "2+2"}]

    def asked(answer: Any) -> dict[str, Any]:
        return convert({"p": "2+2", "a": answer}, "prompt-only", mapping)

    assert asked("4") == asked(4) == {"prompt": prompt, "answer": "4"}
    assert asked(0) == {"prompt": prompt, "answer": "0"}
    assert asked(["4", "four"])["answer"] == "4\nfour"
    assert asked(None) == asked("") == {"prompt": prompt}
    assert convert({"p": prompt}, "prompt-only", {"prompt": "p"}) == {"prompt": prompt}


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("", "the prompt is empty"),
        (
            [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "ends with a turn of assistant, which asks nothing",
        ),
        ([{"role": "system", "content": "S"}], "no user turn"),
        ([{"role": "tool", "content": "2"}], "the roles are out of order: turn 1"),
    ],
)
def test_a_prompt_that_asks_nothing_has_its_reason(prompt: Any, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        convert({"p": prompt}, "prompt-only", {"prompt": "p"})


def called(calls: Any, **more: Any) -> list[dict[str, str]]:
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "tool_calls": calls, **more},
    ]
    result: list[dict[str, str]] = convert({"m": turns}, "messages", {"messages": "m"})["messages"]
    return result


@pytest.mark.parametrize("arguments", ['{"x": 1}', {"x": 1}])
def test_arguments_of_calls_are_objects(arguments: Any) -> None:
    turn = called([{"function": {"name": "f", "arguments": arguments}}], content="Let me see.")[1]
    assert turn["content"] == "Let me see."
    assert json.loads(turn["tool_calls"])[0]["function"]["arguments"] == {"x": 1}


def test_calls_without_arguments_and_the_older_spelling_are_read() -> None:
    old = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}}
    turns = [{"role": "user", "content": "q"}, old]
    result = convert({"m": turns}, "messages", {"messages": "m"})["messages"]
    assert json.loads(result[1]["tool_calls"])[0]["function"] == {"name": "f", "arguments": {}}


def test_keys_that_parquet_filled_in_are_not_learned() -> None:
    """A column of objects has the keys of all of them in each: nobody passed those nulls."""
    filled = {"function": {"name": "f", "arguments": {"x": 1, "y": None}}, "id": None}
    assert json.loads(called([filled])[1]["tool_calls"]) == [
        {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    ]
    meant = '[{"name": "f", "arguments": {"x": null}}]'
    (call,) = json.loads(called(meant)[1]["tool_calls"])
    assert call["function"]["arguments"] == {"x": None}


def test_what_a_tool_gave_back_may_be_any_json() -> None:
    calls = [{"function": {"name": "f"}}]
    end = {"role": "assistant", "content": "a"}
    for given, kept in (({"t": 21}, '{"t": 21}'), ([1, 2], "[1, 2]"), (5, "5"), ("ok", "ok")):
        turns = [*called(calls), {"role": "tool", "content": given}, end]
        result = convert({"m": turns}, "messages", {"messages": "m"})["messages"]
        assert result[2]["content"] == kept


@pytest.mark.parametrize(
    ("calls", "reason"),
    [
        ([{"function": {"arguments": {}}}], r"turn 2 \(assistant\) calls a tool without a name"),
        ([{"function": {"name": "f", "arguments": "{x"}}], "calls f, but its arguments are not"),
        ([{"function": {"name": "f", "arguments": [1]}}], "calls f, but its arguments are not"),
        ("find it", "the call is text, not JSON"),
    ],
)
def test_a_call_that_no_template_could_write_has_its_reason(calls: Any, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        called(calls)


@pytest.mark.parametrize(
    ("tools", "reason"),
    [
        ("find", "the tools are text"),
        (["find"], "tool 1 is text"),
        ([{"name": "f"}, {"description": "d"}], "tool 2 has no name"),
    ],
)
def test_tools_that_cannot_be_called_have_their_reason(tools: Any, reason: str) -> None:
    row = {"p": "q", "c": "a", "t": tools}
    mapping = {"prompt": "p", "completion": "c", "tools": "t"}
    with pytest.raises(Unusable, match=reason):
        convert(row, "prompt-completion", mapping)
    assert "tools" not in convert(row | {"t": "[]"}, "prompt-completion", mapping)
