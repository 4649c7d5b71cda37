"""The right calls of tools: names and arguments compared as JSON."""

from __future__ import annotations

import json
import re
from typing import Any

from core.evaluation.answers.metric import Answered, RowMetric
from core.language import N_, Said

_MARKED = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|$)", re.DOTALL)
_MOST = 0.5


def calls_in(text: str) -> list[tuple[str, str]]:
    """(name, arguments as sorted JSON) of each call in an answer: JSON between <tool_call> marks,
    or an answer that is one call or a list of them. What cannot be read is no call."""
    parts = _MARKED.findall(text) or [text]
    found = []
    for part in parts:
        try:
            value = json.loads(part)
        except (ValueError, RecursionError):
            continue
        for call in value if isinstance(value, list) else [value]:
            one = _call(call)
            if one is not None:
                found.append(one)
    return sorted(found)


def _call(value: Any) -> tuple[str, str] | None:
    if not isinstance(value, dict):
        return None
    value = value.get("function", value)
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return None
    return value["name"], json.dumps(arguments, sort_keys=True, ensure_ascii=False)


class ToolCalls(RowMetric):
    key = "tool_calls"
    place = 40
    title = Said(N_("Calls right"))
    meaning = Said(
        N_("Share of rows with exactly the expected calls of tools, or none where none is expected")
    )

    def fits(self, rows: Answered) -> bool:
        called = sum("<tool_call>" in text and bool(calls_in(text)) for text in rows.expected)
        return called > 0

    def score(self, answer: str, expected: str, rows: Answered) -> float:
        return float(calls_in(answer) == calls_in(expected))


METRIC = ToolCalls()
