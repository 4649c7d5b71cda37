"""Tools and calls of tools, handed to a chat template in the way that it knows.

Rows keep both as JSON text. A template that mentions `tools` or `tool_calls` gets them as lists;
for one that does not they are written as text, so that every template can learn from them.
"""

from __future__ import annotations

import json
from typing import Any

from core.data import turns as conversion
from core.tokens.chat_templates import names_used
from core.tokens.thoughts import thought_for

Message = dict[str, Any]


def template_text(tokenizer: Any, *, with_tools: bool = False) -> str:
    """The text of a tokenizer's template; of several, the one that transformers would take."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        wanted = ("tool_use", "default") if with_tools else ("default",)
        template = next((template[name] for name in wanted if name in template), "")
    return template or ""


def for_template(
    messages: list[Message], tools: Any, template: str
) -> tuple[list[Message], list[Any] | None]:
    """(turns, tools) as they are given to `apply_chat_template`, thoughts where it expects them.

    What a turn's `weight` says is not for a template. `tools` and each turn's `tool_calls` may be
    JSON text or lists. Tools are None where there are none, or where they now stand in the system
    turn. The turns given stay as they are.
    """
    messages = [_without_weight(thought_for(message, template)) for message in messages]
    if not tools and not any("tool_calls" in message for message in messages):
        return messages, None
    used = names_used(template)
    ready = [_called(message, as_text="tool_calls" not in used) for message in messages]
    listed = _parsed(tools) or None
    if listed is None or "tools" in used:
        return ready, listed
    return _with_tools_text(ready, conversion.tools_text(listed)), None


def calls_of(message: Message) -> list[Any]:
    """The calls of tools of a turn as a list."""
    return list(_parsed(message.get("tool_calls")) or [])


def answer_text(message: Message) -> str:
    """What an assistant turn says, its calls of tools written as text."""
    return str(_called(message, as_text=True)["content"])


def rendered_with_calls(
    messages: list[Message], tokenizer: Any, tools: list[Any] | None, **options: Any
) -> str:
    """What `apply_chat_template` makes of turns and tools. Raises whatever the template raises.

    Some templates put the arguments of a call between other texts and need them as JSON text.
    """
    try:
        text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, **options)
    except TypeError:
        if not any(message.get("tool_calls") for message in messages):
            raise
        turns = [_with_argument_texts(message) for message in messages]
        text = tokenizer.apply_chat_template(turns, tools=tools, tokenize=False, **options)
    return str(text)


def _with_argument_texts(message: Message) -> Message:
    calls = []
    for call in message.get("tool_calls") or ():
        function = dict(call["function"])
        if not isinstance(function.get("arguments"), str):
            function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
        calls.append({**call, "function": function})
    return {**message, "tool_calls": calls} if calls else message


def _without_weight(message: Message) -> Message:
    return {key: value for key, value in message.items() if key != "weight"}


def _called(message: Message, *, as_text: bool) -> Message:
    calls = calls_of(message)
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    rest.setdefault("content", "")
    if not calls:
        return rest
    if not as_text:
        return {**rest, "tool_calls": calls}
    parts = (str(rest["content"] or "").strip(), conversion.tool_text(calls))
    return {**rest, "content": "\n".join(part for part in parts if part)}


def _with_tools_text(messages: list[Message], text: str) -> list[Message]:
    """The text at the end of the system turn; as a system turn of its own where there is none."""
    if messages and messages[0]["role"] == "system":
        first = messages[0]
        joined = "\n\n".join(part for part in (first["content"], text) if part)
        return [{**first, "content": joined}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _parsed(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) and value.strip() else value
