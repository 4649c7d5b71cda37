"""The texts and values of a standard row, whatever its form.

A row is a dict as `core.data.rowfile` reads it: the columns of its form and `meta`, a dict of what
else its source said of it. Columns of both can be named in conditions, templates and statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from core.data.read.row import Row

TURN_COLUMNS = ("messages", "prompt", "completion", "chosen", "rejected")
TEXT_COLUMNS = ("text", "answer")
_SAID = ("content", "reasoning_content")
_ANSWERS = ("completion", "chosen", "rejected", "answer")


def turns_text(turns: list[dict[str, str]]) -> str:
    """The words of turns, a blank line between them; what is said, not by whom."""
    return "\n\n".join(turn["content"] for turn in turns if turn["content"])


def row_text(row: Row) -> str:
    """All that a row says, for comparing rows and guessing languages."""
    return "\n\n".join(part for part in texts(row) if part)


def texts(row: Row) -> Iterator[str]:
    """Each text of a row: its plain columns, then thought and content of each turn."""
    for column in TEXT_COLUMNS:
        if row.get(column):
            yield row[column]
    for column in TURN_COLUMNS:
        for turn in row.get(column) or ():
            if "reasoning_content" in turn:
                yield turn["reasoning_content"]
            yield turn["content"]


def prompt_text(row: Row) -> str:
    """What comes before the answer: the prompt, all turns up to the last answer, or the text."""
    if "messages" in row:
        turns = row["messages"]
        last = max((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), default=0)
        return turns_text(turns[:last])
    return turns_text(row["prompt"]) if "prompt" in row else row.get("text") or ""


def answer_texts(row: Row) -> list[str]:
    """What is to be learned: each answer of the assistant; nothing in plain and labelled text."""
    if "messages" in row:
        return [turn["content"] for turn in row["messages"] if turn["role"] == "assistant"]
    found = []
    for column in _ANSWERS:
        value = row.get(column)
        if value:
            found.append(value if isinstance(value, str) else turns_text(value))
    return found


def map_texts(row: Row, change: Callable[[str], str]) -> Row:
    """The row with `change` made to each of its texts; the row itself if none was changed."""
    changed = dict(row)
    for column in TEXT_COLUMNS:
        if changed.get(column):
            changed[column] = change(changed[column])
    for column in TURN_COLUMNS:
        if changed.get(column):
            changed[column] = [
                {**turn, **{key: change(turn[key]) for key in _SAID if key in turn}}
                for turn in changed[column]
            ]
    return row if changed == row else changed


def value_of(row: Row, column: str) -> Any:
    """The value that a column's name means: turns as their words, one label as itself, several
    as a list; then what `meta` holds under that name. None where the row has no such column."""
    if column == "label" and "labels" in row:
        labels = row["labels"]
        return labels[0] if len(labels) == 1 else labels
    if column in TURN_COLUMNS and column in row:
        return turns_text(row[column])
    if column in row and column != "meta":
        return row[column]
    return (row.get("meta") or {}).get(column)


def named_values(row: Row) -> dict[str, Any]:
    """Every name that `value_of` knows for this row, with its value."""
    names = [name for name in row if name not in ("meta", "labels")]
    values = {name: value_of(row, name) for name in names}
    if "labels" in row:
        values["label"] = value_of(row, "label")
    return {**(row.get("meta") or {}), **values}
