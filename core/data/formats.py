"""Which form a file's rows have, why, and which column is which.

A *source form* is what people bring; each becomes one of the standard forms on disk. Detection
looks at names and values of the first rows and says what it saw; all of it can be overruled. A
mapping gives each field a column, or a template such as "{question}\\n\\n{context}".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

from core.data.conversion_values import template_of
from core.data.formats_columns import Columns
from core.data.formats_detect import (
    Detection,
    detect,
    guess,
    guess_mapping,
    reason_for,
    used_columns,
)
from core.data.formats_known import FORMS, TURN_FIELDS, Form
from core.data.readers import Row, invalid_text
from core.errors import DataError, did_you_mean

__all__ = [
    "FORMS",
    "ROWS_TO_DETECT",
    "Detection",
    "Form",
    "check_field",
    "choose",
    "columns_of",
    "detect",
    "fits",
    "guess_mapping",
    "is_template",
    "meta_of",
]

ROWS_TO_DETECT = 200
"""The form is taken from so many rows at the beginning of a file."""

LONGEST_META = 2000
"""Characters of a text that is kept beside a row."""


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Every column that a row has, in the order of first sight."""
    return list(dict.fromkeys(name for row in rows for name in row))


def choose(
    rows: Sequence[Row], form: str | None = None, mapping: Mapping[str, str] | None = None
) -> Detection:
    """What was detected, overruled by a person's choice of form and columns.

    An empty column takes an optional field away. Raises DataError, naming the columns there are,
    for a form or a column that does not exist, and for a required field without a column.
    """
    found = detect(rows)
    if form is None:
        form = _form_of_fields(mapping, found.form)
    if form is None:
        raise DataError(found.reason, found.hint)
    if form not in FORMS:
        raise DataError(f"{form!r} is not a form.", f"Choose one of {', '.join(FORMS)}.")
    columns = Columns(rows)
    guessed = found.mapping if form == found.form else guess(columns, form)
    merged = _merged(FORMS[form], guessed, mapping or {})
    for name, source in merged.items():
        check_field(FORMS[form], name, source, columns.names)
    missing = [name for name in FORMS[form].required if name not in merged]
    if missing:
        raise DataError(
            f"The form {form} needs a column for {' and '.join(missing)}.",
            f"Choose from {', '.join(columns.names) or 'a file with named columns'}.",
        )
    if form == found.form and merged == found.mapping:
        return found
    reason = f"Chosen by you. {reason_for(columns, form, merged)}"
    return Detection(form, reason, merged, found.possible)


def _merged(form: Form, guessed: Mapping[str, str], chosen: Mapping[str, str]) -> dict[str, str]:
    """The guess, overruled. A column that a person has put to use is not used again by a guess
    for an optional field: a context would stand in the prompt twice."""
    used = used_columns(chosen)
    kept = {
        name: column
        for name, column in guessed.items()
        if name in form.required or column not in used
    }
    return {name: source for name, source in {**kept, **chosen}.items() if source}


def check_field(form: Form, name: str, source: str, columns: Sequence[str]) -> None:
    """Raises DataError when a field of a form cannot be taken from `source`, a column or a
    template, or cannot be set to it."""
    if name in form.settings:
        if source not in form.settings[name]:
            allowed = " ".join(form.settings[name])
            raise DataError(f"The {name} cannot be {source!r}.", f"Choose one of {allowed}")
        return
    if name not in form.fields:
        raise DataError(
            f"The form {form.name} has no field {name}.",
            f"Its fields are {', '.join([*form.fields, *form.settings])}.",
        )
    template = template_of(source)
    if template and name in TURN_FIELDS:
        raise DataError(
            f"The field {name} needs a column with a list, not a template.",
            f"Choose from {', '.join(columns)}.",
        )
    for column in template.columns if template else (source,):
        if column not in columns:
            raise DataError(
                f"There is no column {column}{did_you_mean(column, columns)}",
                f"The columns are {', '.join(columns)}.",
            )


def _form_of_fields(mapping: Mapping[str, str] | None, detected: str | None) -> str | None:
    """The form that a mapping without a form means: the detected one if it has those fields, else
    the first that has them, and needs no other if there is one."""
    named = {name for name, column in (mapping or {}).items() if column}
    if not named:
        return detected
    taking = [name for name, form in FORMS.items() if named <= {*form.fields, *form.settings}]
    if detected in taking:
        return detected
    complete = [name for name in taking if set(FORMS[name].required) <= named]
    return next(iter([*complete, *taking]), detected)


def is_template(source: str) -> bool:
    """Whether a mapping's value is a template such as "{question}: {context}", not a column."""
    return template_of(source) is not None


def fits(form: str, mapping: Mapping[str, str], columns: Collection[str]) -> bool:
    """Whether a mapping can be used on rows with these columns as it is."""
    if form not in FORMS or not set(FORMS[form].required) <= set(mapping):
        return False
    sources = {k: v for k, v in mapping.items() if v and k not in FORMS[form].settings}
    return used_columns(sources) <= set(columns)


def meta_of(row: Row, mapping: Mapping[str, str]) -> dict[str, Any]:
    """The plain values (text up to 2,000 characters, numbers, true and false) of the columns
    that the mapping does not use as a whole; columns in templates are among them."""
    whole = _whole_columns(tuple(mapping.values()))
    return {
        name: value
        for name, value in row.items()
        if name not in whole and _is_plain(value) and not invalid_text(name)
    }


@lru_cache(maxsize=64)
def _whole_columns(sources: tuple[str, ...]) -> frozenset[str]:
    return frozenset(source for source in sources if not template_of(source))


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= LONGEST_META and not invalid_text(value)
    if isinstance(value, float):
        return -1e308 < value < 1e308  # no infinity and nothing that is no number: JSON has none
    return isinstance(value, bool) or (isinstance(value, int) and -(2**63) <= value < 2**63)
