"""What the columns of some rows hold: text, turns, labels, judgements."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from core.data.conversion_judged import judgement
from core.data.conversion_labels import SEPARATORS
from core.data.conversion_turns import ROLE_OF
from core.data.conversion_values import Unusable, template_of
from core.data.readers import Row

_LONGEST_LABEL = 100
_LARGEST_LABEL = 2**53
_ONE_IN = 10
"""Of so many labels more than one holds a sign that stands between several."""
_ROWS_TO_COMPARE = 20
"""With fewer rows, values that are all different say nothing."""


class Columns:
    """Some rows by their columns; what was found out of a column is kept."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.names = list(dict.fromkeys(name for row in rows for name in row))
        # A name that reads as a template could not be told from one in a mapping.
        self.usable = [name for name in self.names if not template_of(name)]
        self._rows = rows
        self._values: dict[str, list[Any]] = {}
        self._turns: dict[str, list[list[Any]]] = {}

    def named(self, known: Sequence[str], free: Sequence[str] | None = None) -> list[str]:
        """The columns with a known name, in the order of `known`."""
        usable = self.usable if free is None else free
        lowered = {column.strip().lower(): column for column in usable}
        return [lowered[name] for name in known if name in lowered]

    def values(self, column: str) -> list[Any]:
        """The values that are not empty."""
        if column not in self._values:
            self._values[column] = [
                row[column] for row in self._rows if row.get(column) not in (None, "")
            ]
        return self._values[column]

    def holds_text(self, column: str) -> bool:
        values = self.values(column)
        scalars = sum(isinstance(v, (str, int, float)) and not isinstance(v, bool) for v in values)
        return bool(values) and scalars * 2 > len(values)

    def holds_turns(self, column: str, keys: tuple[str, str] | None = None) -> bool:
        """Whether most values of a column are lists of turns, with these keys if given."""
        pairs = (keys,) if keys else (("role", "content"), ("from", "value"))
        turns = sum(
            any(pair[0] in value[0] for pair in pairs) for value in self._lists_of_turns(column)
        )
        return turns > 0 and turns * 2 > len(self.values(column))

    def holds_questions(self, column: str) -> bool:
        """Whether most lists of turns in a column end before anybody answers."""
        lists = self._lists_of_turns(column)
        return bool(lists) and sum(_role(turns[-1]) == "user" for turns in lists) * 2 > len(lists)

    def has_calls(self, column: str) -> bool:
        """Whether a turn in a column calls a tool."""
        return any(
            _role(turn) == "call" or turn.get("tool_calls") or turn.get("function_call")
            for turns in self._lists_of_turns(column)
            for turn in turns
            if isinstance(turn, dict)
        )

    def _lists_of_turns(self, column: str) -> list[list[Any]]:
        if column not in self._turns:
            read = (_as_list(value) for value in self.values(column))
            self._turns[column] = [turns for turns in read if turns and isinstance(turns[0], dict)]
        return self._turns[column]

    def judges(self, column: str) -> bool:
        """Whether all values of a column say good or bad."""
        values = self.values(column)
        return bool(values) and all(_is_judgement(value) for value in values)

    def labels(self, column: str) -> set[str] | None:
        """The different labels in a column, or None when its values cannot be labels."""
        found: set[str] = set()
        for value in self.values(column):
            items = value if isinstance(value, (list, tuple)) else [value]
            for item in items:
                if isinstance(item, float) and not item.is_integer():
                    return None
                if isinstance(item, int) and abs(item) > _LARGEST_LABEL:
                    return None
                if not isinstance(item, (str, int, float)) or len(str(item)) > _LONGEST_LABEL:
                    return None
                found.add(str(item))
        return found or None

    def separators(self, column: str) -> list[str]:
        """The signs that may stand between several labels in a column: there are many texts with
        one, and fewer different labels when they are taken apart there."""
        texts = [value for value in self.values(column) if isinstance(value, str)]
        found = []
        for sign in SEPARATORS:
            apart = {part.strip() for text in texts for part in text.split(sign)}
            joined = sum(sign in text for text in texts)
            if joined * _ONE_IN > len(texts) and len(apart) < len(set(texts)):
                found.append(sign)
        return found

    def labels_by_name(self, column: str) -> bool:
        """Whether a column that is named as a label can hold labels: most come again."""
        found, rows = self.labels(column), len(self.values(column))
        return found is not None and (rows < _ROWS_TO_COMPARE or len(found) <= 0.8 * rows)

    def labels_by_values(self, column: str) -> bool:
        """Whether a column of unknown name must hold labels: a few values, again and again."""
        found, rows = self.labels(column), len(self.values(column))
        return found is not None and rows >= _ROWS_TO_COMPARE and 2 <= len(found) <= rows / 5

    def mean_length(self, column: str) -> float:
        """Characters of a text in the column, on average."""
        values = [v for v in self.values(column) if isinstance(v, str)]
        return sum(map(len, values)) / len(values) if values else 0.0

    def varies(self, column: str) -> bool:
        """Whether most values of a text column are different."""
        values = [v for v in self.values(column) if isinstance(v, str)]
        return len(set(values)) * 2 > len(values)


def _as_list(value: Any) -> list[Any] | None:
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if isinstance(value, dict):
        return [value]
    return value if isinstance(value, list) else None


def _role(turn: Any) -> str | None:
    name = (turn.get("role") or turn.get("from")) if isinstance(turn, dict) else None
    return ROLE_OF.get(name.strip().lower()) if isinstance(name, str) else None


def _is_judgement(value: Any) -> bool:
    try:
        judgement(value)
    except Unusable:
        return False
    return True
