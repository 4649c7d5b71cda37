"""Tools that a row offers and calls of them: in one structure, and as text.

A call is {"type": "function", "function": {"name", "arguments"}} with `arguments` as an object,
and `id` where its source had one; a tool is {"type": "function", "function": {...}}. Turns and
rows keep lists of them as JSON text.
"""

from __future__ import annotations

import json
from typing import Any

from core.data.conversion_values import Unusable, json_text, parsed
from core.data.readers import json_type


def calls_of(value: Any, where: str) -> str:
    """Calls as they are kept: JSON text of a list. `value` is one call or several, in OpenAI's
    shape, as {"name", "arguments"}, or as JSON text of either. Raises Unusable."""
    value = parsed(value) if isinstance(value, str) else _without_nulls(value)
    items = value if isinstance(value, list) else [value]
    if not items:
        raise Unusable(f"{where} calls no tool")
    return json_text([_call(item, where) for item in items], "call of a tool")


def _call(item: Any, where: str) -> dict[str, Any]:
    item = parsed(item)
    function = item.get("function", item) if isinstance(item, dict) else item
    if not isinstance(function, dict):
        raise Unusable(f"{where} calls a tool, but the call is {json_type(function)}, not JSON")
    name = function.get("name")
    if not isinstance(name, str) or not name.strip():
        raise Unusable(f"{where} calls a tool without a name")
    arguments = function.get("arguments", function.get("parameters"))
    arguments = parsed(arguments)
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        arguments = {}
    if not isinstance(arguments, dict):
        raise Unusable(f"{where} calls {name}, but its arguments are not a JSON object")
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
        raise Unusable(f"the tools are {json_type(value)}, not a list")
    tools = [_tool(parsed(item), number) for number, item in enumerate(value, 1)]
    return json_text(tools, "list of tools")


def _without_nulls(value: Any) -> Any:
    """Objects without what is null in them: Parquet fills each object of a column with the keys
    of all others. TRL does the same when it trains. JSON in text says what it means."""
    try:
        return _cleaned(value)
    except RecursionError as error:
        raise Unusable("the tools or their calls are nested too deeply") from error


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _cleaned(item) for key, item in value.items() if item is not None}
    return [_cleaned(item) for item in value] if isinstance(value, list) else value


def _tool(item: Any, number: int) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise Unusable(f"tool {number} is {json_type(item)}, not an object with a name")
    if isinstance(item.get("function"), dict):
        function, tool = item["function"], item
    else:
        function, tool = item, {"type": "function", "function": item}
    if not isinstance(function.get("name"), str) or not function["name"].strip():
        raise Unusable(f"tool {number} has no name")
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
