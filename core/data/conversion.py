"""One raw row to one row of a standard form, or the reason why it cannot be one.

`text` rows become {"text"}; question-and-answer rows {"prompt", "completion"}, both lists of
turns; conversations {"messages"}. A turn is {"role", "content"} with the roles system, user,
assistant and tool. Calls of tools are written as text in the turns (see `tool_text`), so that
they can be learned with any chat template.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from core.data.readers import Row, invalid_text, json_type

Turn = dict[str, str]

_ROLES = {
    "system": ("system", "developer"),
    "user": ("user", "human", "prompter", "customer"),
    "assistant": ("assistant", "gpt", "model", "bot", "chatgpt", "bing", "bard", "ai"),
    "tool": ("tool", "observation", "function", "function_response", "tool_response", "ipython"),
    "call": ("function_call", "tool_call", "function-call"),
}
_ROLE_OF = {name: role for role, names in _ROLES.items() for name in names}
_SPEAKER_KEYS = ("role", "from", "speaker")
_WORDS_KEYS = ("content", "value", "text")


class Unusable(Exception):
    """Why a row cannot be learned from, in words for the person who brought it."""


def convert(row: Row, form: str, mapping: Mapping[str, str], system_prompt: str = "") -> Row:
    """The row in its standard form. Raises Unusable with the reason.

    `mapping` gives the column of each field of the source form (see `formats.FORMS`).
    `system_prompt` goes before a conversation that has no system turn.
    """
    if form == "text":
        return {"text": _text(_value(row, mapping, "text"), "text")}
    if form in ("messages", "sharegpt"):
        field = "messages" if form == "messages" else "conversations"
        messages = _turns(_value(row, mapping, field))
        messages = _with_system(messages, _system(row, mapping), system_prompt)
        _check_conversation(messages)
        return {"messages": messages}
    if form == "instruction":
        prompt = _instruction(row, mapping)
        answer = _value(row, mapping, "output")
    else:
        prompt = _side(_value(row, mapping, "prompt"), "user", "prompt")
        answer = _value(row, mapping, "completion")
    completion = _side(answer, "assistant", "answer")
    if not any(turn["role"] in ("user", "tool") for turn in prompt):
        raise Unusable("the prompt has no user turn")
    if completion[-1]["role"] != "assistant":
        raise Unusable(f"the answer ends with a turn of {completion[-1]['role']}")
    history = _history(row, mapping)
    system, turns = _split_system(prompt)
    return {
        "prompt": _with_system([*system, *history, *turns], _system(row, mapping), system_prompt),
        "completion": completion,
    }


def _value(row: Row, mapping: Mapping[str, str], field: str) -> Any:
    column = mapping[field]
    if column not in row:
        raise Unusable(f"the column {column} is missing")
    return row[column]


def _optional(row: Row, mapping: Mapping[str, str], field: str) -> Any:
    """The value of a field that may be left out: None when it is, or is empty."""
    value = row.get(mapping.get(field, ""))
    return None if value is None or value in ("", [], {}) else value


def _text(value: Any, what: str) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:
        value = str(value)
    if value is None or value != value:  # a number that is not one is an empty cell
        raise Unusable(f"the {what} is missing")
    if not isinstance(value, str):
        raise Unusable(f"the {what} is {json_type(value)}, not text")
    if not value.strip():
        raise Unusable(f"the {what} is empty")
    bad = invalid_text(value)
    if bad:
        raise Unusable(f"the {what} is {bad}")
    return value


def _side(value: Any, role: str, what: str) -> list[Turn]:
    """A prompt or an answer: plain text, one turn, or a list of turns."""
    read = _parsed(value)
    read = [read] if isinstance(read, dict) else read
    if isinstance(read, list) and (read is value or _look_like_turns(read)):
        turns = _turns(read)
        if not turns:
            raise Unusable(f"the {what} is empty")
        return turns
    return [{"role": role, "content": _text(value, what)}]


def _look_like_turns(items: list[Any]) -> bool:
    return bool(items) and all(
        isinstance(item, dict) and any(key in item for key in _SPEAKER_KEYS) for item in items
    )


def _instruction(row: Row, mapping: Mapping[str, str]) -> list[Turn]:
    instruction = _text(_value(row, mapping, "instruction"), "instruction")
    extra = _optional(row, mapping, "input")
    if extra is not None and (not isinstance(extra, str) or extra.strip()):
        instruction = f"{instruction}\n\n{_text(extra, 'input')}"
    return [{"role": "user", "content": instruction}]


def _history(row: Row, mapping: Mapping[str, str]) -> list[Turn]:
    """Earlier turns: pairs of question and answer (Alpaca's), or turns."""
    value = _parsed(_optional(row, mapping, "history"))
    if value is None:
        return []
    if not isinstance(value, list):
        raise Unusable(f"the history is {json_type(value)}, not a list")
    turns: list[Turn] = []
    for pair in value:
        if isinstance(pair, dict):
            turns += _turns([pair])
        elif isinstance(pair, list) and len(pair) == 2:
            turns.append({"role": "user", "content": _text(pair[0], "question in the history")})
            turns.append({"role": "assistant", "content": _text(pair[1], "answer in the history")})
        else:
            raise Unusable("the history is no list of question and answer pairs")
    return turns


def _parsed(value: Any) -> Any:
    """A list or object that stands as JSON text in a cell, as in CSV, is read."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _turns(value: Any) -> list[Turn]:
    value = _parsed(value)
    if value is None:
        raise Unusable("the conversation is missing")
    if not isinstance(value, list):
        raise Unusable(f"the conversation is {json_type(value)}, not a list of turns")
    turns = [_turn(item, number) for number, item in enumerate(value, 1)]
    return [turn for turn in turns if turn["role"] != "system" or turn["content"].strip()]


def _turn(item: Any, number: int) -> Turn:
    if not isinstance(item, dict):
        raise Unusable(f"turn {number} is {json_type(item)}, not an object with role and content")
    name = next((item[key] for key in _SPEAKER_KEYS if item.get(key) is not None), None)
    if not isinstance(name, str):
        raise Unusable(f"turn {number} does not say who speaks")
    role = _ROLE_OF.get(name.strip().lower())
    if role is None:
        raise Unusable(f"turn {number} has the unknown role {name!r}")
    words = next((item[key] for key in _WORDS_KEYS if item.get(key) is not None), "")
    content = _words(words, number)
    calls = item.get("tool_calls") or item.get("function_call")
    if role == "call":
        return {"role": "assistant", "content": tool_text(_parsed(content))}
    if calls:
        content = "\n".join(part for part in (content.strip(), tool_text(calls)) if part)
    if role != "system" and not content.strip():
        raise Unusable(f"turn {number} ({role}) is empty")
    bad = invalid_text(content)
    if bad:
        raise Unusable(f"turn {number} ({role}) is {bad}")
    return {"role": role, "content": content}


def _words(value: Any, number: int) -> str:
    """A turn's text: as it is, or the text parts of OpenAI's list of parts."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise Unusable(f"turn {number} is {json_type(value)}, not text")
    texts = []
    for part in value:
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str):
            kind = part.get("type", "other") if isinstance(part, dict) else "other"
            raise Unusable(f"turn {number} holds a part of type {kind}; only text can be learned")
        texts.append(text)
    return "".join(texts)


def tool_text(calls: Any) -> str:
    """Calls of tools as text: a line of JSON in <tool_call> marks for each, as Hermes and Qwen
    models write them. Text that is no JSON stands between the marks as it is."""
    items = calls if isinstance(calls, list) else [calls]
    written = []
    for item in items:
        call = item.get("function", item) if isinstance(item, dict) else item
        if isinstance(call, dict) and "name" in call:
            call = {"name": call["name"], "arguments": _parsed(call.get("arguments", {}))}
        text = call if isinstance(call, str) else json.dumps(call, ensure_ascii=False)
        written.append(f"<tool_call>\n{text}\n</tool_call>")
    return "\n".join(written)


def _system(row: Row, mapping: Mapping[str, str]) -> str:
    """The system text of the row's own columns: its system column and its list of tools."""
    system = _optional(row, mapping, "system")
    parts = [] if system is None or system == "" else [_text(system, "system text")]
    tools = _parsed(_optional(row, mapping, "tools"))
    if tools:
        if not isinstance(tools, list):
            raise Unusable(f"the tools are {json_type(tools)}, not a list")
        lines = "\n".join(json.dumps(tool, ensure_ascii=False, default=str) for tool in tools)
        parts.append(
            f"You can call these tools:\n<tools>\n{lines}\n</tools>\n"
            'Call one by writing <tool_call>{"name": ..., "arguments": {...}}</tool_call>.'
        )
    return "\n\n".join(parts)


def _split_system(turns: list[Turn]) -> tuple[list[Turn], list[Turn]]:
    cut = 1 if turns and turns[0]["role"] == "system" else 0
    return turns[:cut], turns[cut:]


def _with_system(turns: list[Turn], own: str, fallback: str) -> list[Turn]:
    """Puts the row's own system text first, joined with a system turn it already has; without
    either, the fallback for the whole set."""
    first, rest = _split_system(turns)
    texts = [turn["content"] for turn in first] + ([own] if own else [])
    text = "\n\n".join(texts) or fallback.strip()
    return [{"role": "system", "content": text}, *rest] if text else rest


def _check_conversation(messages: list[Turn]) -> None:
    spoken = [turn for turn in messages if turn["role"] != "system"]
    if not spoken:
        raise Unusable("the conversation is empty")
    if not any(turn["role"] == "assistant" for turn in spoken):
        raise Unusable("no turn of the assistant, so there is nothing to learn")
    if spoken[-1]["role"] != "assistant":
        raise Unusable(f"the last turn is of {spoken[-1]['role']}, not of the assistant")
