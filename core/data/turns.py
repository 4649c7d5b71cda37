"""Turns of a conversation, however they were written: roles, words, tools and calls of them.

A turn is {"role", "content"} with the roles system, user, assistant and tool, and where there are
any `tool_calls`, `tool_call_id`, `name`, `reasoning_content` (the thought before the answer) and
`weight` (0: the turn is read and not learned, 1: it is marked to be learned, between: how much its
loss counts). A call is {"type": "function", "function": {"name", "arguments"}} with `arguments` as
an object, and `id` where its source had one; a tool is {"type": "function", "function": {...}}.
Turns and rows keep lists of them as JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from core.data.python_text import LISTS, begins_as_turns
from core.data.read.row import invalid_text, json_type
from core.data.turn_keys import (
    OPENED_THOUGHT,
    SPEAKER_KEYS,
    content_of,
    is_of_tools,
    mark_share,
    refuse_media,
    speaker_of,
    thought_of,
    tools_apart,
    unread_keys,
    weight_of,
    words_of,
)
from core.data.values import Unusable, json_text, parsed, text_of, why_not_read, written
from core.language import N_, _

Turn = dict[str, Any]

_ROLES = {
    "system": ("system", "developer"),
    "user": ("user", "human", "prompter", "customer"),
    "assistant": ("assistant", "gpt", "model", "bot", "chatgpt", "bing", "bard", "ai"),
    "tool": ("tool", "observation", "function", "function_response", "tool_response", "ipython"),
    "call": ("function_call", "tool_call", "function-call"),
    "thought": ("reasoning", "thinking", "thought", "think", "analysis"),
}
ROLE_OF = {name: role for role, names in _ROLES.items() for name in names}
_SPOKEN = ("system", "user", "assistant", "tool")


_CONVERSATION, _THOUGHT = N_("conversation"), N_("thought")
_CALL, _TOOLS = N_("call of a tool"), N_("list of tools")


def turns_of(value: Any, what: str = _CONVERSATION) -> list[Turn]:
    """A list of turns, or its JSON text, as turns. Raises Unusable, naming `what` or the turn.

    Empty system turns are left out.
    """
    if type(value) is not list:
        value = parsed(value)
        if value is None:
            raise Unusable(_("the {what} is missing", what=what))
        if not isinstance(value, list):
            why = why_not_read(value)
            raise Unusable(
                _(
                    "the {what} is {kind}, not a list of turns{why}",
                    what=what,
                    kind=json_type(value),
                    why=why,
                )
            )
    turns: list[Turn] = []
    for number, item in enumerate(value, 1):
        # Nearly all turns are two texts; they are not taken through every possibility.
        if type(item) is dict and len(item) == 2:
            role = item.get("role", item.get("from"))
            words = item.get("content", item.get("value"))
            known = ROLE_OF.get(role) if type(role) is str else None
            if (
                known in _SPOKEN
                and type(words) is str
                and words
                and not words.isspace()
                and (words.isascii() or not invalid_text(words))
            ):
                turns.append({"role": known, "content": words})
                continue
        for one in _apart(item):
            turn = _turn(one, number)
            if turn:
                turns.append(turn)
    return _with_thoughts(turns) if any(turn["role"] == "thought" for turn in turns) else turns


def _apart(item: Any) -> list[Any]:
    """The turns that an item is: several where its parts bring what tools gave back."""
    parts = (item.get("content") or item.get("parts")) if isinstance(item, dict) else None
    if type(parts) is not list or not any(map(is_of_tools, parts)):
        return [item]
    name = speaker_of(item)
    role = ROLE_OF.get(name.strip().lower()) if isinstance(name, str) else None
    return tools_apart(item, role) if role in ("user", "assistant") else [item]


def _turn(item: Any, number: int) -> Turn | None:
    if not isinstance(item, dict):
        raise Unusable(
            _(
                "turn {number} is {kind}, not an object with role and content",
                number=number,
                kind=json_type(item),
            )
        )
    name = speaker_of(item)
    if not isinstance(name, str):
        raise Unusable(_("turn {number} does not say who speaks", number=number))
    role = ROLE_OF.get(name.strip().lower())
    if role is None:
        raise Unusable(
            _("turn {number} has the unknown role {name!r}", number=number, name=name[:80])
        )
    if role == "assistant" and item.get("channel") == "analysis":  # as gpt-oss writes a thought
        role = "thought"
    speaker = "assistant" if role == "call" else role
    where = _("turn {number} ({role})", number=number, role=speaker)
    refuse_media(item, where)
    if role == "call":
        turn = {"role": "assistant", "content": "", "tool_calls": calls_of(words_of(item), where)}
        return _with_keys(turn, item, "", where)
    content, thought = content_of(words_of(item), role, number)
    turn = {"role": role, "content": content}
    calls = item.get("tool_calls") or item.get("function_call")
    if calls and role == "assistant":
        turn["tool_calls"] = calls_of(calls, where)
        turn["content"] = content if content.strip() else ""
    elif not content.strip():
        if role == "system":
            return None
        raise Unusable(_("{where} is empty", where=where))
    return _with_keys(turn, item, thought, where)


def _with_keys(turn: Turn, item: dict[str, Any], thought: str, where: str) -> Turn:
    """The turn with what else its source says of it; `thought` is what its parts say."""
    for key in ("tool_call_id", "name"):
        if isinstance(item.get(key), str) and item[key].strip():
            turn[key] = item[key]
    if turn["role"] == "assistant":
        named = thought_of(item)[0]
        both = [text for text in (named, thought) if text.strip()]
        if both:
            turn["reasoning_content"] = "\n\n".join(dict.fromkeys(both))
    weight = weight_of(item)[0]
    if weight is not None:
        turn["weight"] = weight
    for text in turn.values():
        bad = invalid_text(text) if isinstance(text, str) else ""
        if bad:
            raise Unusable(_("{where} is {bad}", where=where, bad=bad))
    return turn


def _with_thoughts(turns: list[Turn]) -> list[Turn]:
    """Thoughts that stand as turns of their own, put to the answers that follow them."""
    joined: list[Turn] = []
    thoughts: list[str] = []
    for number, turn in enumerate(turns, 1):
        if turn["role"] == "thought":
            thoughts.append(turn["content"])
            continue
        if thoughts and turn["role"] != "assistant":
            raise Unusable(_("no answer follows the thought before turn {number}", number=number))
        if thoughts:
            own = [turn["reasoning_content"]] if "reasoning_content" in turn else []
            turn = {**turn, "reasoning_content": "\n\n".join([*thoughts, *own])}
            thoughts = []
        joined.append(turn)
    if thoughts:
        raise Unusable(_("the conversation ends with a thought, and no answer follows it"))
    return joined


def with_thought(turns: list[Turn], value: Any) -> list[Turn]:
    """The turns, the last of which is an answer, with a thought that stands beside them before it;
    where the answer has one of its own that stays. Raises Unusable."""
    last = turns[-1]
    words = last["content"]
    if "reasoning_content" in last or "</think>" in words or OPENED_THOUGHT.match(words):
        return turns
    return [*turns[:-1], {**last, "reasoning_content": text_of(written(value), _THOUGHT)}]


def with_weights(turns: list[Turn], value: Any) -> list[Turn]:
    """The turns with marks of how much of each is learned that stand beside them: one for each
    turn, one for each of the assistant's, or one for all of those. Of a turn's own mark and this
    the least counts. Raises Unusable where they fit none of it."""
    marks = parsed(value)
    roles = [turn["role"] for turn in turns]
    if mark_share(marks) is not None:
        marks = [marks] * roles.count("assistant")
    if not isinstance(marks, list):
        raise Unusable(
            _(
                "the weights are {kind}, not a list{why}",
                kind=json_type(marks),
                why=why_not_read(marks),
            )
        )
    places = marked_turns(roles, len(marks))
    if not places:
        raise Unusable(
            _(
                "{weights} weights stand beside {turns} turns, {answers} of them of the assistant: "
                "nobody can say which is whose",
                weights=len(marks),
                turns=len(turns),
                answers=roles.count("assistant"),
            )
        )
    weighted = list(turns)
    for place, mark in zip(places, marks, strict=True):
        share = mark_share(mark)
        if share is None and mark is not None:
            raise Unusable(
                _("the weight of turn {number} is no number from 0 to 1", number=place + 1)
            )
        if share is not None:
            own = turns[place].get("weight", share)
            weighted[place] = {**turns[place], "weight": min(own, share)}
    return weighted


def marked_turns(roles: Sequence[str | None], marks: int) -> list[int]:
    """The places of the turns that so many marks belong to, in their order; none where they can
    belong to no turns."""
    answers = [place for place, role in enumerate(roles) if role in ("assistant", "call")]
    if marks == len(roles):
        return list(range(marks))
    return answers if marks == len(answers) else []


def unused_keys(value: Any) -> Iterator[str]:
    """The keys of turns in a cell that say something which is not kept, once for each turn."""
    items = parsed(value) if type(value) is str else value
    for item in [items] if isinstance(items, dict) else items if isinstance(items, list) else ():
        if not isinstance(item, dict):
            continue
        # Nearly all turns are two texts.
        said = item.get("content", item.get("value")) if len(item) == 2 else None
        if said and type(said) is str and ("role" in item or "from" in item):
            continue
        name = speaker_of(item)
        role = ROLE_OF.get(name.strip().lower()) if isinstance(name, str) else None
        if role:
            read = {"channel"} if item.get("channel") in ("analysis", "final") else set()
            yield from dict.fromkeys(key for key in unread_keys(item, role) if key not in read)


def side_of(value: Any, role: str, what: str) -> list[Turn]:
    """A prompt or an answer: plain text (said by `role`), one turn, or a list of turns."""
    read = value
    if type(value) is str:
        if value[:1] not in "[{ \t\r\n" and not value.startswith(LISTS):
            return [{"role": role, "content": text_of(value, what)}]
        # An answer that is JSON is an answer; only what names speakers is a list of turns.
        if any(f'"{key}"' in value or f"'{key}'" in value for key in SPEAKER_KEYS):
            read = parsed(value)
        if read is value and begins_as_turns(value):
            raise Unusable(
                _(
                    "the {what} is text, not a list of turns{why}",
                    what=what,
                    why=why_not_read(value),
                )
            )
    read = [read] if isinstance(read, dict) else read
    if isinstance(read, list) and (read is value or _speak(read)):
        turns = turns_of(read, what)
        if not turns:
            raise Unusable(_("the {what} is empty", what=what))
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
                _(
                    "the roles are out of order: turn {number} is a tool's answer, and no turn of "
                    "the assistant comes before it",
                    number=number,
                )
            )
        before = turn["role"]


def calls_of(value: Any, where: str) -> str:
    """Calls as they are kept: JSON text of a list. `value` is one call or several, in OpenAI's
    shape, as {"name", "arguments"}, or as JSON text of either. Raises Unusable."""
    value = parsed(value) if isinstance(value, str) else _without_nulls(value)
    items = value if isinstance(value, list) else [value]
    if not items:
        raise Unusable(_("{where} calls no tool", where=where))
    return json_text([_call(item, where) for item in items], _CALL)


def _call(item: Any, where: str) -> dict[str, Any]:
    item = parsed(item)
    function = item.get("function", item) if isinstance(item, dict) else item
    if not isinstance(function, dict):
        raise Unusable(
            _(
                "{where} calls a tool, but the call is {kind}, not JSON",
                where=where,
                kind=json_type(function),
            )
        )
    name = function.get("name")
    if not isinstance(name, str) or not name.strip():
        raise Unusable(_("{where} calls a tool without a name", where=where))
    arguments = function.get("arguments", function.get("parameters"))
    arguments = parsed(arguments)
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        arguments = {}
    if not isinstance(arguments, dict):
        raise Unusable(
            _(
                "{where} calls {name}, but its arguments are not a JSON object",
                where=where,
                name=name,
            )
        )
    call: dict[str, Any] = {}
    if isinstance(item.get("id"), str) and item["id"]:
        call["id"] = item["id"]
    return {**call, "type": "function", "function": {"name": name, "arguments": arguments}}


def tools_of(value: Any) -> str:
    """The tools of a row as they are kept: JSON text of a list, or "" when there are none.

    Raises Unusable for what is no list of named tools.
    """
    value = parsed(value) if isinstance(value, str) else _without_nulls(value)
    if value is None or value in ("", [], {}):
        return ""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise Unusable(
            _(
                "the tools are {kind}, not a list{why}",
                kind=json_type(value),
                why=why_not_read(value),
            )
        )
    declared = [tool for item in value for tool in _declared(parsed(item))]
    tools = [_tool(parsed(item), number) for number, item in enumerate(declared, 1)]
    return json_text(tools, _TOOLS)


def _without_nulls(value: Any) -> Any:
    """Objects without what is null in them: Parquet fills each object of a column with the keys
    of all others. TRL does the same when it trains. JSON in text says what it means."""
    try:
        return _cleaned(value)
    except RecursionError as error:
        raise Unusable(_("the tools or their calls are nested too deeply")) from error


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _cleaned(item) for key, item in value.items() if item is not None}
    return [_cleaned(item) for item in value] if isinstance(value, list) else value


def _declared(item: Any) -> list[Any]:
    """The tools that an item offers: itself, or several together, as Gemini writes them."""
    inside = item.get("functionDeclarations") if isinstance(item, dict) else None
    return inside if isinstance(inside, list) else [item]


def _tool(item: Any, number: int) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise Unusable(
            _(
                "tool {number} is {kind}, not an object with a name",
                number=number,
                kind=json_type(item),
            )
        )
    if isinstance(item.get("function"), dict):
        function, tool = item["function"], item
    else:
        function, tool = item, {"type": "function", "function": item}
    if not isinstance(function.get("name"), str) or not function["name"].strip():
        raise Unusable(_("tool {number} has no name", number=number))
    return tool


def tool_text(calls: Any) -> str:
    """Calls of tools as text: a line of JSON in <tool_call> marks for each, as Hermes and Qwen
    models write them. `calls` is a list of calls, one call, or JSON text of either; text that is
    no JSON stands between the marks as it is."""
    calls = parsed(calls)
    items = calls if isinstance(calls, list) else [calls]
    lines = []
    for item in items:
        call = item.get("function", item) if isinstance(item, dict) else item
        if isinstance(call, dict) and "name" in call:
            call = {"name": call["name"], "arguments": parsed(call.get("arguments", {}))}
        text = call if isinstance(call, str) else json.dumps(call, ensure_ascii=False)
        lines.append(f"<tool_call>\n{text}\n</tool_call>")
    return "\n".join(lines)


def tools_text(tools: Any) -> str:
    """What a system prompt says of tools, for a chat template that knows none; "" without any.

    `tools` is a list of them or its JSON text.
    """
    tools = parsed(tools)
    if not tools:
        return ""
    items = tools if isinstance(tools, list) else [tools]
    lines = "\n".join(
        json.dumps(
            item.get("function", item) if isinstance(item, dict) else item,
            ensure_ascii=False,
            default=str,
        )
        for item in items
    )
    return (
        f"You can call these tools:\n<tools>\n{lines}\n</tools>\n"
        'Call one by writing <tool_call>{"name": ..., "arguments": {...}}</tool_call>.'
    )
