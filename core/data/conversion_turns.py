"""Turns of a conversation, however they were written: roles, words, calls of tools."""

from __future__ import annotations

from typing import Any

from core.data.conversion_tools import calls_of
from core.data.conversion_values import Unusable, json_text, parsed, text_of
from core.data.readers import invalid_text, json_type

Turn = dict[str, str]

_ROLES = {
    "system": ("system", "developer"),
    "user": ("user", "human", "prompter", "customer"),
    "assistant": ("assistant", "gpt", "model", "bot", "chatgpt", "bing", "bard", "ai"),
    "tool": ("tool", "observation", "function", "function_response", "tool_response", "ipython"),
    "call": ("function_call", "tool_call", "function-call"),
}
ROLE_OF = {name: role for role, names in _ROLES.items() for name in names}
SPEAKER_KEYS = ("role", "from", "speaker")
WORDS_KEYS = ("content", "value", "text")


def turns_of(value: Any, what: str = "conversation") -> list[Turn]:
    """A list of turns, or its JSON text, as turns. Raises Unusable, naming `what` or the turn.

    Empty system turns are left out.
    """
    if type(value) is not list:
        value = parsed(value)
        if value is None:
            raise Unusable(f"the {what} is missing")
        if not isinstance(value, list):
            raise Unusable(f"the {what} is {json_type(value)}, not a list of turns")
    turns: list[Turn] = []
    for number, item in enumerate(value, 1):
        # Nearly all turns are two texts; they are not taken through every possibility.
        if type(item) is dict and len(item) == 2:
            role = item.get("role", item.get("from"))
            words = item.get("content", item.get("value"))
            known = ROLE_OF.get(role) if type(role) is str else None
            if (
                known
                and known != "call"
                and type(words) is str
                and words
                and not words.isspace()
                and (words.isascii() or not invalid_text(words))
            ):
                turns.append({"role": known, "content": words})
                continue
        turn = _turn(item, number)
        if turn:
            turns.append(turn)
    return turns


def _turn(item: Any, number: int) -> Turn | None:
    if not isinstance(item, dict):
        raise Unusable(f"turn {number} is {json_type(item)}, not an object with role and content")
    name = next((item[key] for key in SPEAKER_KEYS if item.get(key) is not None), None)
    if not isinstance(name, str):
        raise Unusable(f"turn {number} does not say who speaks")
    role = ROLE_OF.get(name.strip().lower())
    if role is None:
        raise Unusable(f"turn {number} has the unknown role {name[:80]!r}")
    words = next((item[key] for key in WORDS_KEYS if item.get(key) is not None), "")
    where = f"turn {number} ({'assistant' if role == 'call' else role})"
    if role == "call":
        return {"role": "assistant", "content": "", "tool_calls": calls_of(words, where)}
    content = _words(words, role, number)
    turn = {"role": role, "content": content}
    calls = item.get("tool_calls") or item.get("function_call")
    if calls and role == "assistant":
        turn["tool_calls"] = calls_of(calls, where)
        turn["content"] = content if content.strip() else ""
    elif not content.strip():
        if role == "system":
            return None
        raise Unusable(f"{where} is empty")
    for key in ("tool_call_id", "name"):
        if isinstance(item.get(key), str) and item[key].strip():
            turn[key] = item[key]
    for text in turn.values():
        bad = invalid_text(text)
        if bad:
            raise Unusable(f"{where} is {bad}")
    return turn


def _words(value: Any, role: str, number: int) -> str:
    """A turn's text: as it is, or the text parts of OpenAI's list of parts. What a tool gave
    back may be any JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and (role != "tool" or _are_parts(value)):
        return "".join(_part(part, number) for part in value)
    if role == "tool":
        return json_text(value, f"content of turn {number}")
    raise Unusable(f"turn {number} is {json_type(value)}, not text")


def _are_parts(value: list[Any]) -> bool:
    return all(isinstance(part, dict) and isinstance(part.get("type"), str) for part in value)


def _part(part: Any, number: int) -> str:
    text = part.get("text") if isinstance(part, dict) else part
    if not isinstance(text, str):
        kind = part.get("type", "other") if isinstance(part, dict) else "other"
        raise Unusable(f"turn {number} holds a part of type {kind}; only text can be learned")
    return text


def side_of(value: Any, role: str, what: str) -> list[Turn]:
    """A prompt or an answer: plain text (said by `role`), one turn, or a list of turns."""
    read = value
    if type(value) is str:
        if value[:1] not in "[{ \t\r\n":
            return [{"role": role, "content": text_of(value, what)}]
        # An answer that is JSON is an answer; only what names speakers is a list of turns.
        if any(f'"{key}"' in value for key in SPEAKER_KEYS):
            read = parsed(value)
    read = [read] if isinstance(read, dict) else read
    if isinstance(read, list) and (read is value or _speak(read)):
        turns = turns_of(read, what)
        if not turns:
            raise Unusable(f"the {what} is empty")
        return turns
    return [{"role": role, "content": text_of(value, what)}]


def _speak(items: list[Any]) -> bool:
    return bool(items) and all(
        isinstance(item, dict) and any(key in item for key in SPEAKER_KEYS) for item in items
    )


def split_system(turns: list[Turn]) -> tuple[list[Turn], list[Turn]]:
    """The system turn at the beginning, if there is one, and the rest."""
    cut = 1 if turns and turns[0]["role"] == "system" else 0
    return turns[:cut], turns[cut:]


def with_system(turns: list[Turn], own: str, fallback: str) -> list[Turn]:
    """Puts the row's own system text first, joined with a system turn it already has; without
    either, the fallback for the whole set."""
    has_one = bool(turns) and turns[0]["role"] == "system"
    if has_one and own:
        text = f"{turns[0]['content']}\n\n{own}"
        return [{**turns[0], "content": text}, *turns[1:]]
    text = own or fallback
    return turns if has_one or not text else [{"role": "system", "content": text}, *turns]


def check_order(turns: list[Turn]) -> None:
    """Raises Unusable where a tool answers and nobody can have called it."""
    before = ""
    for number, turn in enumerate(turns, 1):
        if turn["role"] == "tool" and before not in ("assistant", "tool"):
            raise Unusable(
                f"the roles are out of order: turn {number} is a tool's answer, and no turn of "
                "the assistant comes before it"
            )
        before = turn["role"]
