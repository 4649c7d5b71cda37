"""Texts with labels: one or several, by name or by number."""

from __future__ import annotations

from typing import Any

from core.data.conversion_values import Fields, Unusable, parsed, text_of, written
from core.data.readers import Row, json_type

SEPARATORS = ("|", ";", ",")
"""What may stand between several labels in one text, when a person says that it does."""


def labelled_text(fields: Fields, system_prompt: str, row: Row) -> Row:
    """{"text", "labels"}. `system_prompt` has no place here.

    The field `separator` is a sign, not a column. An empty list says that no label applies.
    """
    text = text_of(fields.required(row, "text"), "text")
    return {
        "text": text,
        "labels": labels_of(fields.required(row, "label"), fields.columns.get("separator", "")),
    }


def labels_of(value: Any, separator: str = "") -> list[str]:
    """The labels in a cell: a list (also as JSON text), one label, or several in one text.

    Raises Unusable for a missing label and for what is none.
    """
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        value = parsed(value)
    if isinstance(value, (list, tuple)):
        return list(dict.fromkeys(_label(item) for item in value))
    if separator and isinstance(value, str):
        parts = [part for part in value.split(separator) if part.strip()]
        if not parts:
            raise Unusable("the label is empty")
        return list(dict.fromkeys(_label(part) for part in parts))
    return [_label(value)]


def _label(value: Any) -> str:
    if isinstance(value, bool):
        return written(value)
    if isinstance(value, (list, dict)):
        raise Unusable(f"a label is {json_type(value)}, not a name or a number")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return text_of(value, "label").strip()
