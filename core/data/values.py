"""What stands in a row's cells: text, JSON in text, and text put together from several columns."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from core.data.python_text import LISTS, NotRead, begins_as_turns, is_python, read_python
from core.data.read.row import Row, invalid_text, json_type
from core.language import N_, Text, _

_PARTS = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")


class Unusable(Exception):
    """Why a row cannot be learned from, in words for the person who brought it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


BOTH, EITHER = N_("{first} and {then}"), N_("{first} or {then}")
ALSO, APART, BEHIND = N_("{first}, {then}"), N_("{first}; {then}"), N_("{first} {then}")
"""How parts of a sentence are joined, and sentences."""


def joined(by: Text, parts: Sequence[str]) -> str:
    """One sentence of several parts, as by BOTH; "" for none."""
    if len(parts) < 2:
        return parts[0] if parts else ""
    half = len(parts) // 2
    return _(by.template, first=joined(by, parts[:half]), then=joined(by, parts[half:]))


def counted(reason: str, count: int) -> str:
    """A reason, and how many rows it is that of."""
    return _("{reason} ({count:,})", reason=reason, count=count)


def text_of(value: Any, what: str) -> str:
    """A text as it is, a number as text. Raises Unusable, naming `what`, for anything else."""
    if type(value) is not str:
        if value is None or value != value:  # a number that is not one is an empty cell
            raise Unusable(_("the {what} is missing", what=what))
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise Unusable(_("the {what} is {kind}, not text", what=what, kind=json_type(value)))
        value = written(value)
    text: str = value
    if not text or text.isspace():
        raise Unusable(_("the {what} is empty", what=what))
    bad = "" if text.isascii() else invalid_text(text)
    if bad:
        raise Unusable(_("the {what} is {bad}", what=what, bad=bad))
    return text


_LIST, _OBJECT = N_("list"), N_("object")


def written(value: Any) -> str:
    """A cell as text: lists one item a line, objects as JSON, nothing for an empty cell.

    Raises Unusable for what cannot be written.
    """
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "\n".join(
            json_text(item, _LIST) if isinstance(item, (list, dict)) else written(item)
            for item in value
        )
    if isinstance(value, dict):
        return json_text(value, _OBJECT)
    try:
        return str(value)
    except ValueError as error:  # Python writes no number of more than 4,300 digits
        raise Unusable(_("a number has too many digits")) from error


def parsed(value: Any) -> Any:
    """A list or object that stands as text in a cell, as in CSV, is read: JSON, or what Python
    writes. What cannot be read stays as it is; `why_not_read` says why."""
    if isinstance(value, str) and value.lstrip().startswith(LISTS):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            with suppress(NotRead):
                return read_python(value) if is_python(value) else value
    return value


def why_not_read(value: Any) -> str:
    """What is wrong with a text that looks like a list as Python writes it, as an addition to a
    sentence; "" for anything else."""
    if isinstance(value, str) and (is_python(value) or begins_as_turns(value)):
        try:
            read_python(value)
        except NotRead as error:
            return _(
                "; it looks like a list that was written as text, but {reason}", reason=error.reason
            )
    return ""


def json_text(value: Any, what: str) -> str:
    """A value as JSON text that can be kept. Raises Unusable, naming `what`."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    except RecursionError as error:
        raise Unusable(_("the {what} is nested too deeply", what=what)) from error
    except (TypeError, ValueError) as error:
        raise Unusable(_("the {what} holds a value that JSON does not know", what=what)) from error
    bad = invalid_text(text)
    if bad:
        raise Unusable(_("the {what} is {bad}", what=what, bad=bad))
    return text


@dataclass(frozen=True)
class Template:
    """A text with places for columns: `parts` are (text before, column or None) in order."""

    parts: tuple[tuple[str, str | None], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(column for _before, column in self.parts if column is not None))

    def fill(self, row: Row) -> str:
        """The text for a row; "" when all its columns are empty. Raises Unusable for a missing
        column."""
        texts: list[str] = []
        said = False
        for before, column in self.parts:
            texts.append(before)
            if column is None:
                continue
            text = written(cell(row, column))
            said = said or bool(text.strip())
            texts.append(text)
        return "".join(texts) if said else ""


@lru_cache(maxsize=256)
def template_of(source: str) -> Template | None:
    """The template that a mapping's value is, or None where it is a column's name.

    `{column}` is a place, `{{` and `}}` are braces; any other brace stands for itself.
    """
    parts: list[tuple[str, str | None]] = []
    text, end = "", 0
    for match in _PARTS.finditer(source):
        text += source[end : match.start()]
        end = match.end()
        if match.group(1) is None:
            text += match.group()[0]
        else:
            parts.append((text, match.group(1)))
            text = ""
    if not parts:
        return None
    return Template((*parts, (text + source[end:], None)))


def root_of(source: str, columns: Collection[str]) -> str:
    """The column that a mapping's name leads to: itself, or of names joined by dots, such as
    `data.messages`, the first that is one. The name as it is where there is none."""
    parts = source.split(".")
    roots = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((root for root in roots if root in columns), source)


def cell(row: Row, source: str) -> Any:
    """What a mapping's name leads to in a row: a column, or a value inside its object (by name)
    or list (by place, from 0). Raises Unusable when it leads nowhere."""
    if source in row:
        return row[source]
    root = root_of(source, row)
    if root not in row:
        raise Unusable(_("the column {column} is missing", column=source))
    value = row[root]
    for name in source[len(root) + 1 :].split("."):
        value = parsed(value)
        if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        elif isinstance(value, dict) and name in value:
            value = value[name]
        else:
            raise Unusable(
                _("the column {column} has nothing under {source}", column=root, source=source)
            )
    return value


_DEEP = 6
_MOST_INSIDE = 100


def columns_inside(rows: Iterable[Row]) -> list[str]:
    """What stands inside the objects of these rows, by names joined by dots."""
    found: dict[str, None] = {}
    waiting = deque((name, value, 1) for row in rows for name, value in row.items())
    while waiting and len(found) < _MOST_INSIDE:
        before, value, depth = waiting.popleft()
        if isinstance(value, dict) and depth < _DEEP:
            inside = {f"{before}.{name}": one for name, one in value.items() if "{" not in name}
            found |= dict.fromkeys(inside)
            waiting.extend((name, one, depth + 1) for name, one in inside.items())
    return list(found)


class Fields:
    """The fields of a source form in a row, by a mapping of columns and templates."""

    def __init__(self, mapping: Mapping[str, str]) -> None:
        self._templates: dict[str, Template] = {}
        self.columns: dict[str, str] = {}
        for field, source in mapping.items():
            template = template_of(source)
            if template:
                self._templates[field] = template
            elif source:
                self.columns[field] = source

    def __contains__(self, field: str) -> bool:
        return field in self.columns or field in self._templates

    def required(self, row: Row, field: str) -> Any:
        """The value of a field. Raises Unusable when the row lacks its column."""
        column = self.columns.get(field)
        if column is not None:
            return row[column] if column in row else cell(row, column)
        template = self._templates.get(field)
        if template is None:
            raise Unusable(_("the column {column} is missing", column=field))
        text = template.fill(row)
        if not text:
            raise Unusable(
                _(
                    "the columns of the template ({columns}) are empty",
                    columns=", ".join(template.columns),
                )
            )
        return text

    def cells(self, row: Row, field: str) -> Any:
        """As `required`, with the cells of a template's columns as a list instead of its text."""
        template = self._templates.get(field)
        if template is None:
            return self.required(row, field)
        missing = [column for column in template.columns if column not in row]
        if missing:
            raise Unusable(_("the column {column} is missing", column=missing[0]))
        return [row[column] for column in template.columns]

    def optional(self, row: Row, field: str) -> Any:
        """The value of a field that may be left out: None when it is, or is empty."""
        column = self.columns.get(field)
        if column is not None:
            value = row.get(column)
            if value is None and "." in column:
                with suppress(Unusable):
                    value = cell(row, column)
        elif field in self._templates:
            value = self._templates[field].fill(row)
        else:
            return None
        blank = isinstance(value, str) and not value.strip()
        return None if blank or value is None or value in ([], {}) or value != value else value
