"""Which form a file's rows have, why, and which column is which.

A *source form* is what people bring; each becomes one of the standard forms on disk. Detection
looks at names and values of the first rows and says what it saw; all of it can be overruled.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from core.data.readers import Row
from core.errors import DataError

ROWS_TO_DETECT = 200
"""The form is taken from so many rows at the beginning of a file."""

Standard = Literal["text", "prompt-completion", "messages"]


@dataclass(frozen=True)
class Form:
    """A source form: its fields, and the standard form it becomes."""

    name: str
    title: str
    standard: Standard
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        return self.required + self.optional


FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        Form("text", "Plain text", "text", ("text",)),
        Form(
            "prompt-completion",
            "Prompt and answer",
            "prompt-completion",
            ("prompt", "completion"),
            ("system", "history"),
        ),
        Form(
            "instruction",
            "Instruction, input, output (Alpaca)",
            "prompt-completion",
            ("instruction", "output"),
            ("input", "system", "history"),
        ),
        Form("messages", "Messages (OpenAI)", "messages", ("messages",), ("system", "tools")),
        Form(
            "sharegpt",
            "Conversations (ShareGPT)",
            "messages",
            ("conversations",),
            ("system", "tools"),
        ),
    )
}

# Column names that are known to mean a field, best first.
_NAMES: dict[str, tuple[str, ...]] = {
    "text": ("text", "content", "document", "body", "passage", "article", "sentence"),
    "prompt": ("prompt", "question", "query", "instruction", "user", "input", "source", "problem")
    + ("request", "message", "ticket", "human"),
    "completion": ("completion", "response", "answer", "output", "assistant", "target", "reply")
    + ("solution", "label_text", "gpt", "bot"),
    "instruction": ("instruction",),
    "output": ("output", "response", "answer", "completion"),
    "input": ("input", "context"),
    "system": ("system", "system_prompt"),
    "history": ("history",),
    "messages": ("messages", "conversation", "conversations", "chat", "dialog", "dialogue"),
    "conversations": ("conversations", "conversation", "messages", "chat", "dialog", "dialogue"),
    "tools": ("tools", "functions"),
}


@dataclass(frozen=True)
class Detection:
    """`form` is a name in FORMS, or None with the reason in `reason` and what to do in `hint`.

    `possible` are the forms that a person may choose instead, each with at least a guess.
    """

    form: str | None
    reason: str
    mapping: dict[str, str] = field(default_factory=dict)
    possible: tuple[str, ...] = ()
    hint: str = ""


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Every column that a row has, in the order of first sight."""
    return list(dict.fromkeys(name for row in rows for name in row))


def detect(rows: Sequence[Row]) -> Detection:
    """The form of these rows (the first of a file, a few hundred at most)."""
    columns = columns_of(rows)
    possible = _possible(rows, columns)
    refused = _preference(rows, columns)
    if refused:
        return Detection(None, refused[0], {}, possible, refused[1])
    order = ["sharegpt", "messages", "instruction", "prompt-completion", "text"]
    pair = guess_mapping(rows, "prompt-completion")
    if all(_holds_turns(rows, pair.get(name, "")) for name in ("prompt", "completion")):
        order.insert(0, "prompt-completion")
    for name in order:
        mapping = guess_mapping(rows, name)
        if all(required in mapping for required in FORMS[name].required):
            return Detection(name, _reason(rows, name, mapping, columns), mapping, possible)
    return Detection(
        None,
        f"No known form in the columns {', '.join(columns) or '(none)'}.",
        {},
        possible,
        "Choose a form and say which column is which.",
    )


def choose(
    rows: Sequence[Row], form: str | None = None, mapping: Mapping[str, str] | None = None
) -> Detection:
    """What was detected, overruled by a person's choice of form and columns.

    An empty column takes an optional field away. Raises DataError, naming the columns there are,
    for a form or a column that does not exist, and for a required field without a column.
    """
    columns = columns_of(rows)
    found = detect(rows)
    if form is None:
        form = _form_of_fields(mapping, found.form)
    if form is None:
        raise DataError(found.reason, found.hint)
    if form not in FORMS:
        raise DataError(f"{form!r} is not a form.", f"Choose one of {', '.join(FORMS)}.")
    guessed = found.mapping if form == found.form else guess_mapping(rows, form)
    merged = {**guessed, **(mapping or {})}
    merged = {name: column for name, column in merged.items() if column}
    for name, column in merged.items():
        if name not in FORMS[form].fields:
            raise DataError(
                f"The form {form} has no field {name}.",
                f"Its fields are {', '.join(FORMS[form].fields)}.",
            )
        if column not in columns:
            near = difflib.get_close_matches(column, columns, n=1)
            raise DataError(
                f"There is no column {column}" + (f"; did you mean {near[0]}?" if near else "."),
                f"The columns are {', '.join(columns)}.",
            )
    missing = [name for name in FORMS[form].required if name not in merged]
    if missing:
        raise DataError(
            f"The form {form} needs a column for {' and '.join(missing)}.",
            f"Choose from {', '.join(columns) or 'a file with named columns'}.",
        )
    if form == found.form and merged == found.mapping:
        return found
    reason = f"Chosen by you. {_reason(rows, form, merged, columns)}"
    return Detection(form, reason, merged, found.possible)


def _form_of_fields(mapping: Mapping[str, str] | None, detected: str | None) -> str | None:
    """The form that a mapping without a form means: the detected one if it has those fields."""
    named = {name for name, column in (mapping or {}).items() if column}
    if not named or (detected and named <= set(FORMS[detected].fields)):
        return detected
    return next((name for name, form in FORMS.items() if named <= set(form.fields)), detected)


def guess_mapping(rows: Sequence[Row], form: str) -> dict[str, str]:
    """The columns of a form's fields by their names and values, as far as there are any."""
    columns = columns_of(rows)
    mapping: dict[str, str] = {}
    for name in FORMS[form].fields:
        taken = set(mapping.values())
        free = [column for column in columns if column not in taken]
        column = _column_for(rows, form, name, free)
        if column:
            mapping[name] = column
    return mapping


def _column_for(rows: Sequence[Row], form: str, name: str, columns: list[str]) -> str | None:
    lowered = {column.strip().lower(): column for column in columns}
    named = [lowered[known] for known in _NAMES[name] if known in lowered]
    if name in ("messages", "conversations"):
        keys = ("role", "content") if name == "messages" else ("from", "value")
        others = [column for column in columns if column not in named]
        return next((c for c in [*named, *others] if _holds_turns(rows, c, keys)), None)
    if name in ("prompt", "completion"):
        if name == "prompt":
            named += [lowered[known] for known in _NAMES["messages"] if known in lowered]
        turns = [column for column in named if _holds_turns(rows, column)]
        return _best(rows, named, turns)
    if name in ("history", "tools"):
        return named[0] if named else None
    if name == "text" and not named:
        texts = [column for column in columns if _holds_text(rows, column)]
        return texts[0] if len(texts) == 1 and len(columns) == 1 else None
    return _best(rows, named)


def _best(rows: Sequence[Row], named: list[str], also: Sequence[str] = ()) -> str | None:
    """The first column with text (or one of `also`); else one that is still empty, for the first
    rows of a file may leave a column empty that later ones fill."""
    filled = (column for column in named if column in also or _holds_text(rows, column))
    empty = (column for column in named if not _values(rows, column))
    return next(filled, None) or next(empty, None)


def _values(rows: Sequence[Row], column: str) -> list[Any]:
    return [row[column] for row in rows if row.get(column) not in (None, "")]


def _holds_text(rows: Sequence[Row], column: str) -> bool:
    values = _values(rows, column)
    scalars = sum(isinstance(v, (str, int, float)) and not isinstance(v, bool) for v in values)
    return bool(values) and scalars * 2 > len(values)


def _holds_turns(rows: Sequence[Row], column: str, keys: tuple[str, str] | None = None) -> bool:
    """Whether most values of a column are lists of turns, with these keys if given."""
    values = _values(rows, column)
    turns = sum(_are_turns(value, keys) for value in values)
    return bool(values) and turns * 2 > len(values)


def _are_turns(value: Any, keys: tuple[str, str] | None) -> bool:
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return False
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return False
    pairs = (keys,) if keys else (("role", "content"), ("from", "value"))
    return any(pair[0] in value[0] for pair in pairs)


def _possible(rows: Sequence[Row], columns: list[str]) -> tuple[str, ...]:
    """Forms that these columns could be mapped to."""
    texts = [column for column in columns if _holds_text(rows, column)]
    turns = [column for column in columns if _holds_turns(rows, column)]
    names = []
    if texts:
        names.append("text")
    if len(texts) + len(turns) > 1:
        names.append("prompt-completion")
    if len(texts) > 1:
        names.append("instruction")
    if turns:
        names += ["messages", "sharegpt"]
    return tuple(names)


def _preference(rows: Sequence[Row], columns: list[str]) -> tuple[str, str] | None:
    """(reason, hint) for rows that compare or judge answers, which cannot be trained on yet."""
    lowered = {column.strip().lower(): column for column in columns}
    if "chosen" in lowered and "rejected" in lowered:
        return (
            "Preference rows (the columns chosen and rejected): this form cannot be trained on "
            "yet, supervised training needs one answer for each prompt.",
            "Choose the form prompt-completion and map completion to chosen to learn from the "
            "chosen answers alone.",
        )
    for name in ("label", "kto_tag"):
        values = _values(rows, lowered[name]) if name in lowered else []
        judged = values and all(str(value).lower() in ("true", "false") for value in values)
        answers = any(_holds_turns(rows, column) for column in columns) or "completion" in lowered
        if judged and answers:
            return (
                f"Unpaired preference rows (answers judged true or false by {lowered[name]}): "
                "this form cannot be trained on yet.",
                "Keep the rows whose answer is good in a file without that column, and import it.",
            )
    return None


def _reason(rows: Sequence[Row], form: str, mapping: Mapping[str, str], columns: list[str]) -> str:
    named = ", ".join(
        column if column == name else f"{column} as {name}" for name, column in mapping.items()
    )
    said = {
        "text": f"Text in the column {named}.",
        "prompt-completion": f"A prompt and its answer: {named}.",
        "instruction": f"Alpaca's columns: {named}.",
        "messages": f"Lists of turns with role and content: {named}.",
        "sharegpt": f"Lists of turns with from and value: {named}.",
    }[form]
    unused = [column for column in columns if column not in mapping.values()]
    return said + (f" Not used: {', '.join(unused)}." if unused else "")
