"""One row to its standard form, or the reason why not: what is learned starts here."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.data.conversion import convert
from core.data.turns import tool_text, tools_text
from core.data.values import Unusable

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
QA = {"prompt": "q", "completion": "a"}
ALPACA = {"instruction": "instruction", "input": "input", "output": "output"} | {
    "system": "system",
    "history": "history",
}


def qa(row: dict[str, Any], **more: Any) -> dict[str, Any]:
    return convert(row, "prompt-completion", QA | {"system": "system"}, **more)


def chat(messages: Any, **columns: Any) -> list[dict[str, str]]:
    mapping = {"messages": "m", "system": "system", "tools": "tools"}
    result: list[dict[str, str]] = convert({"m": messages, **columns}, "messages", mapping)[
        "messages"
    ]
    return result


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def test_text_stays_as_it_is() -> None:
    assert convert({"t": "  a\n"}, "text", {"text": "t"}) == {"text": "  a\n"}


def test_a_question_and_its_answer_become_turns() -> None:
    assert qa({"q": "Hi", "a": 42}) == {"prompt": [user("Hi")], "completion": [assistant("42")]}
    with_system = qa({"q": "Hi", "a": "Yo", "system": "Be brief."})
    assert with_system["prompt"] == [system("Be brief."), user("Hi")]


def test_the_system_prompt_of_the_set_goes_where_none_is() -> None:
    assert qa({"q": "Hi", "a": "Yo"}, system_prompt="S")["prompt"][0] == system("S")
    kept = qa({"q": "Hi", "a": "Yo", "system": "own"}, system_prompt="S")
    assert kept["prompt"] == [system("own"), user("Hi")]


def test_alpaca_joins_instruction_and_input_and_puts_history_first() -> None:
    row = {"instruction": "Sum", "input": "1 2", "output": "3"}
    assert convert(row, "instruction", ALPACA)["prompt"] == [user("Sum\n\n1 2")]
    row |= {"input": " ", "system": "Count.", "history": [["Hi", "Yo"]]}
    assert convert(row, "instruction", ALPACA)["prompt"] == [
        system("Count."),
        user("Hi"),
        assistant("Yo"),
        user("Sum"),
    ]


def test_turns_may_be_prompt_and_answer() -> None:
    row = {"q": TURNS[:1], "a": {"from": "gpt", "value": "a"}}
    assert qa(row) == {"prompt": TURNS[:1], "completion": TURNS[1:]}
    in_cells = {"q": json.dumps(TURNS[:1]), "a": json.dumps(TURNS[1:])}
    assert qa(in_cells) == {"prompt": TURNS[:1], "completion": TURNS[1:]}


def test_an_answer_that_is_json_text_stays_text() -> None:
    """The sample task answers with JSON: it must not be taken apart."""
    answer = '{"product": "router"}'
    assert qa({"q": "Hi", "a": answer})["completion"] == [assistant(answer)]
    assert qa({"q": "Hi", "a": '["x"]'})["completion"] == [assistant('["x"]')]


def test_names_of_speakers_become_roles() -> None:
    shared = [
        {"from": "system", "value": "S"},
        {"from": "human", "value": "q"},
        {"from": "gpt", "value": "a"},
    ]
    mapping = {"conversations": "c"}
    assert convert({"c": shared}, "sharegpt", mapping)["messages"] == [system("S"), *TURNS]
    assert chat(json.dumps(TURNS)) == TURNS
    assert chat([{"role": "developer", "content": "S"}, *TURNS]) == [system("S"), *TURNS]


def test_parts_of_text_are_joined() -> None:
    parts = [{"type": "text", "text": "q"}, {"type": "text", "text": "?"}]
    assert chat([{"role": "user", "content": parts}, TURNS[1]])[0] == user("q?")


CALL = {"type": "function", "function": {"name": "find", "arguments": {"x": 1}}}
TOOL = {"type": "function", "function": {"name": "find"}}


def test_calls_of_tools_in_sharegpt_keep_their_structure() -> None:
    """A chat template can only write a call in its model's own way if it is still a call."""
    shared = [
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": '{"name": "find", "arguments": {"x": 1}}'},
        {"from": "observation", "value": "[2]"},
        {"from": "gpt", "value": "a"},
    ]
    row = {"c": shared, "tools": '[{"name": "find"}]'}
    result = convert(row, "sharegpt", {"conversations": "c", "tools": "tools"})
    messages = result["messages"]
    assert [turn["role"] for turn in messages] == ["user", "assistant", "tool", "assistant"]
    assert messages[1]["content"] == "" and json.loads(messages[1]["tool_calls"]) == [CALL]
    assert messages[2] == {"role": "tool", "content": "[2]"}
    assert json.loads(result["tools"]) == [TOOL]


def test_openai_tool_calls_become_the_same() -> None:
    calls = [{"id": "7", "type": "function"}]
    calls[0]["function"] = {"name": "find", "arguments": '{"x": 1}'}  # type: ignore[assignment]
    turns = [
        user("q"),
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "2", "tool_call_id": "7", "name": "find"},
        assistant("a"),
    ]
    result = convert({"m": turns, "t": [TOOL]}, "messages", {"messages": "m", "tools": "t"})
    messages = result["messages"]
    assert messages[1]["content"] == ""
    assert json.loads(messages[1]["tool_calls"]) == [{"id": "7", **CALL}]
    assert messages[2] == {"role": "tool", "content": "2", "tool_call_id": "7", "name": "find"}
    assert json.loads(result["tools"]) == [TOOL]


def test_calls_and_tools_can_be_written_as_text() -> None:
    """For models whose chat template knows no tools."""
    text = '<tool_call>\n{"name": "find", "arguments": {"x": 1}}\n</tool_call>'
    assert tool_text([CALL]) == tool_text(json.dumps([CALL])) == text
    assert tool_text('{"name": "find", "arguments": "{\\"x\\": 1}"}') == text
    assert '\n{"name": "find"}\n' in tools_text(json.dumps([TOOL])) == tools_text([TOOL])
    assert tools_text("[]") == tools_text(None) == ""


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"a": "x"}, "the column q is missing"),
        ({"q": None, "a": "x"}, "the prompt is missing"),
        ({"q": " \n", "a": "x"}, "the prompt is empty"),
        ({"q": "x", "a": ""}, "the answer is empty"),
        ({"q": "x", "a": True}, "the answer is true or false, not text"),
        ({"q": "x", "a": {"k": 1}}, "the answer is an object, not text"),
        ({"q": ["x"], "a": "y"}, "turn 1 is text, not an object"),
        ({"q": "x", "a": float("nan")}, "the answer is missing"),
        ({"q": "x", "a": "\ud800"}, "half a character"),
        ({"q": [assistant("x")], "a": "y"}, "the prompt has no user turn"),
        ({"q": "x", "a": [user("y")]}, "the answer ends with a turn of user"),
        ({"q": [user("x"), system("S")], "a": "y"}, "the prompt ends with a turn of system"),
        ({"q": "x", "a": []}, "the answer is empty"),
        ({"q": "x", "a": "y", "system": 1.5j}, "the system text is"),
    ],
)
def test_a_bad_question_or_answer_has_its_reason(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        qa(row)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (None, "the conversation is missing"),
        ("hello", "the conversation is text, not a list"),
        ([], "the conversation is empty"),
        ([system("S")], "the conversation is empty"),
        ([user("q")], "no turn of the assistant"),
        ([*TURNS, user("more")], "the last turn is of user"),
        (
            [user("q"), {"role": "tool", "content": "2"}, assistant("a")],
            "the roles are out of order: turn 2 is a tool's answer",
        ),
        ([user("q"), {"role": "narrator", "content": "a"}], "turn 2 has the unknown role"),
        ([user("q"), {"content": "a"}], "turn 2 does not say who speaks"),
        ([user(" "), assistant("a")], r"turn 1 \(user\) is empty"),
        ([user("q"), assistant("")], r"turn 2 \(assistant\) is empty"),
        ([user("q"), {"role": "assistant", "content": 5}], "turn 2 is a number, not text"),
        (["q", "a"], "turn 1 is text"),
        (
            [{"role": "user", "content": [{"type": "image_url"}]}, TURNS[1]],
            "a picture of type image_url",
        ),
    ],
)
def test_a_bad_conversation_has_its_reason(messages: Any, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        chat(messages)


@pytest.mark.parametrize(
    ("history", "reason"),
    [("x", "history is text"), ([["q"]], "no list of"), ([["", "a"]], "empty")],
)
def test_a_bad_history_has_its_reason(history: Any, reason: str) -> None:
    row = {"instruction": "i", "output": "o", "history": history}
    with pytest.raises(Unusable, match=reason):
        convert(row, "instruction", ALPACA)
