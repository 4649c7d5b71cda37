"""The prompt of a row: its text or turns, what goes before them, and its tools."""

from __future__ import annotations

from typing import Any

from core.data.conversion_tools import tools_of
from core.data.conversion_turns import Turn, side_of, split_system, turns_of, with_system
from core.data.conversion_values import Fields, Unusable, parsed, text_of
from core.data.readers import Row, json_type


def asked(fields: Fields, row: Row, field: str = "prompt") -> list[Turn]:
    """The turns of the field that asks; the row's `input` stands at the end of the question."""
    turns = side_of(fields.required(row, field), "user", field)
    extra = fields.optional(row, "input") if "input" in fields else None
    if extra is None:
        return turns
    *before, last = turns
    if last["role"] != "user":
        raise Unusable(f"the prompt ends with a turn of {last['role']}, so the input has no place")
    return [*before, {**last, "content": f"{last['content']}\n\n{text_of(extra, 'input')}"}]


def prompt_with(fields: Fields, row: Row, turns: list[Turn], system_prompt: str) -> list[Turn]:
    """The prompt with the row's system text and history before it. Raises Unusable when nobody
    asks anything in it."""
    asks = turns[-1]["role"] == "user" or any(t["role"] in ("user", "tool") for t in turns)
    if not asks:
        raise Unusable("the prompt has no user turn")
    if turns[-1]["role"] == "system":
        raise Unusable("the prompt ends with a turn of system, which asks nothing")
    if "history" in fields:
        system, rest = split_system(turns)
        turns = [*system, *_history(fields.optional(row, "history")), *rest]
    return with_system(turns, own_system(fields, row), system_prompt)


def own_system(fields: Fields, row: Row) -> str:
    """The system text of the row's own column, or ""."""
    value = fields.optional(row, "system") if "system" in fields else None
    return "" if value is None else text_of(value, "system text")


def add_tools(result: Row, fields: Fields, row: Row) -> Row:
    """`result`, with the tools that the row offers."""
    tools = tools_of(fields.optional(row, "tools")) if "tools" in fields else ""
    if tools:
        result["tools"] = tools
    return result


def _history(value: Any) -> list[Turn]:
    """Earlier turns: pairs of question and answer (Alpaca's), or turns."""
    value = parsed(value)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Unusable(f"the history is {json_type(value)}, not a list")
    turns: list[Turn] = []
    for pair in value:
        if isinstance(pair, dict):
            turns += turns_of([pair])
        elif isinstance(pair, list) and len(pair) == 2:
            turns.append({"role": "user", "content": text_of(pair[0], "question in the history")})
            answer = text_of(pair[1], "answer in the history")
            turns.append({"role": "assistant", "content": answer})
        else:
            raise Unusable("the history is no list of question and answer pairs")
    return turns
