"""What a model or a person wrote, checked and brought into a standard form; rows shown to a model.

Pydantic says which field is wrong. A bare text stands for one turn: of the user in a prompt, of
the assistant in an answer.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from core.data.read.row import Row, invalid_text
from core.data.rowtext import TURN_COLUMNS, row_text
from core.data.values import Unusable
from core.errors import DataError
from core.language import N_, _

_LOOSE = re.compile(r"[\W_]+")
_ALONE = {"prompt": "user", "completion": "assistant", "chosen": "assistant"}
_ALONE["rejected"] = "assistant"


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError(_("is empty"))
    return _writable(text)


def _writable(text: str) -> str:
    bad = invalid_text(text)
    if bad:
        raise ValueError(_("is {what}", what=bad))
    return text


def _writable_or_none(text: str | None) -> str | None:
    return text if text is None else _writable(text)


def _json_text(value: Any) -> Any:
    """Lists of tools and calls are kept as JSON text."""
    if isinstance(value, list):
        return orjson.dumps(value).decode() if value else None
    if isinstance(value, str):
        try:
            if not isinstance(orjson.loads(value), list):
                raise ValueError(_("is no list"))
        except orjson.JSONDecodeError as error:
            raise ValueError(_("is not JSON")) from error
    return value


Text = Annotated[str, AfterValidator(_filled)]
JsonList = Annotated[str | None, BeforeValidator(_json_text)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Turn(_Strict):
    role: Literal["system", "user", "assistant", "tool"]
    content: Annotated[str, AfterValidator(_writable)] = ""
    tool_calls: JsonList = None
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_content: Annotated[str | None, AfterValidator(_writable_or_none)] = None
    weight: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _says_something(self) -> _Turn:
        if not self.content.strip() and not (self.role == "assistant" and self.tool_calls):
            raise ValueError(_("is empty"))
        return self


def _turns(role: str) -> BeforeValidator:
    def as_turns(value: Any) -> Any:
        if isinstance(value, str):
            return [{"role": role, "content": value}]
        return [value] if isinstance(value, dict) else value

    return BeforeValidator(as_turns)


def _asks(turns: list[_Turn]) -> list[_Turn]:
    if not any(turn.role in ("user", "tool") for turn in turns):
        raise ValueError(_("has no turn of the user"))
    return turns


def _answers(turns: list[_Turn]) -> list[_Turn]:
    if not turns or turns[-1].role != "assistant":
        raise ValueError(_("does not end with a turn of the assistant"))
    return turns


Prompt = Annotated[list[_Turn], _turns("user"), AfterValidator(_asks)]
Answer = Annotated[list[_Turn], _turns("assistant"), AfterValidator(_answers)]
Conversation = Annotated[list[_Turn], AfterValidator(_asks), AfterValidator(_answers)]


class _Text(_Strict):
    text: Text


class _PromptCompletion(_Strict):
    prompt: Prompt
    completion: Answer
    tools: JsonList = None


class _Messages(_Strict):
    messages: Conversation
    tools: JsonList = None


class _Preference(_Strict):
    prompt: Prompt
    chosen: Answer
    rejected: Answer
    tools: JsonList = None

    @model_validator(mode="after")
    def _differ(self) -> _Preference:
        if self.chosen == self.rejected:
            raise ValueError(_("both answers are the same"))
        return self


class _UnpairedPreference(_Strict):
    prompt: Prompt
    completion: Answer
    label: bool
    tools: JsonList = None


class _PromptOnly(_Strict):
    prompt: Prompt
    answer: Text | None = None
    tools: JsonList = None


class _LabelledText(_Strict):
    text: Text
    labels: list[Text]

    @model_validator(mode="before")
    @classmethod
    def _one_label(cls, value: Any) -> Any:
        if isinstance(value, dict) and "label" in value and "labels" not in value:
            value = {**value, "labels": value["label"]}
            del value["label"]
        if isinstance(value, dict) and isinstance(value.get("labels"), str):
            value = {**value, "labels": [value["labels"]]}
        return value


_FORMS: dict[str, type[_Strict]] = {
    "text": _Text,
    "prompt-completion": _PromptCompletion,
    "messages": _Messages,
    "preference": _Preference,
    "unpaired-preference": _UnpairedPreference,
    "prompt-only": _PromptOnly,
    "labelled-text": _LabelledText,
}


def required_columns(form: str) -> frozenset[str]:
    """Columns that every row of a form has. `labels` may also be written as `label`."""
    fields = _FORMS[form].model_fields
    return frozenset(name for name, field in fields.items() if field.is_required())


class NoRow(Unusable):
    """What is wrong with a row, and what to do about it."""

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(problem)
        self.hint = hint


def checked_row(value: Any, form: str, labels: Sequence[str] = ()) -> Row:
    """As `row_of`. Raises DataError that names the wrong field."""
    try:
        return row_of(value, form, labels)
    except NoRow as error:
        raise DataError(_("{problem}.", problem=error.args[0]), error.hint) from error


def row_of(value: Any, form: str, labels: Sequence[str] = ()) -> Row:
    """The standard row that `value` is, without meta. Raises NoRow with what is wrong.

    With `labels` only these are allowed, whatever their case.
    """
    try:
        row = _FORMS[form].model_validate(value).model_dump(exclude_none=True)
    except ValidationError as error:
        raise NoRow(problem_in(error), _("Change that field, or reject the draft.")) from error
    if labels and "labels" in row:
        known = {label.casefold().strip(): label for label in labels}
        unknown = [one for one in row["labels"] if one.casefold().strip() not in known]
        if unknown:
            raise NoRow(
                _("labels: {label} is not a label of this data set", label=repr(unknown[0])),
                _("Its labels are {labels}.", labels=", ".join(labels[:50])),
            )
        row["labels"] = [known[one.casefold().strip()] for one in row["labels"]]
    return row


_PROBLEMS = {
    "missing": N_("is missing"),
    "extra_forbidden": N_("is no field of this form"),
    "model_type": N_("is no object"),
    "list_type": N_("is no list"),
    "string_type": N_("is not text"),
}


def problem_in(error: ValidationError) -> str:
    """The first problem of a row, its field first: `messages, turn 2, role: is missing`."""
    first = error.errors()[0]
    place: str = ""
    for part in first["loc"]:
        if isinstance(part, int) and first["loc"][0] == "labels":
            part = _("label {number}", number=part + 1)
        elif isinstance(part, int):
            part = _("turn {number}", number=part + 1)
        place = _("{first}, {then}", first=place, then=part) if place else part
    if not place and first["type"] == "model_type":
        return _("The row is no object")
    text: str = _PROBLEMS.get(first["type"], first["msg"])
    if first["type"] == "value_error":
        text = first["ctx"]["error"].args[0]
    return _("{place}: {problem}", place=place, problem=text) if place else text


def plain_row(row: Row) -> Row:
    """A row as a model is shown it: a lone turn as its text, JSON text as what it says, no meta."""
    shown: Row = {}
    for column, value in row.items():
        if column == "meta":
            continue
        if column in TURN_COLUMNS:
            shown[column] = _plain_turns(column, value)
        elif column == "tools":
            shown[column] = orjson.loads(value)
        elif column == "labels" and len(value) == 1:
            shown["label"] = value[0]
        else:
            shown[column] = value
    return shown


def _plain_turns(column: str, turns: list[dict[str, str]]) -> Any:
    if len(turns) == 1 and set(turns[0]) == {"role", "content"}:
        alone = turns[0]
        if alone["role"] == _ALONE.get(column):
            return alone["content"]
    return [
        {key: orjson.loads(said) if key == "tool_calls" else said for key, said in turn.items()}
        for turn in turns
    ]


def likeness(row: Row) -> bytes:
    """Eight bytes that are the same for rows that say the same but for case, spaces and
    punctuation."""
    text = _LOOSE.sub(" ", row_text(row).casefold()).strip() or row_text(row)
    if "label" in row:  # the same answer, liked and disliked, is two rows
        text += str(row["label"])
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest()


def split_answer(
    row: Mapping[str, Any],
) -> tuple[list[dict[str, str]], list[dict[str, str]] | None]:
    """(the turns to answer, the row's own answer or None) of a row with a prompt.

    A conversation is cut before its last turn of the assistant; the turns after it are left out.
    """
    if "messages" in row:
        turns = row["messages"]
        last = max((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), default=0)
        return turns[:last], turns[last : last + 1] or None
    answer = row.get("completion") or row.get("chosen")
    if answer is None and row.get("answer"):
        answer = [{"role": "assistant", "content": row["answer"]}]
    return row["prompt"], answer
