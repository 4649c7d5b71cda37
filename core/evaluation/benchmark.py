"""Questions of a file, with the choices of each or the answer alone: read, and marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.data.read.files import no_readable_row, read_records
from core.data.read.row import Row
from core.errors import DataError
from core.evaluation.answers.normalized_match import normalized
from core.language import _

# What the columns are called in files that people have.
_QUESTION = ("question", "query", "prompt", "ctx", "input", "problem")
_CHOICES = ("choices", "options", "endings")
_ANSWER = ("answer", "answerKey", "answer_key", "target", "gold", "answer_index")
# With choices it is the place of the right one; elsewhere it names a subject or a class.
_LABEL = ("label",)
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Question:
    """`index` is its row in the file. With `choices`, `right` is the place of the right one;
    without, an answer is right that holds one of `answers`. `meta` are the other columns."""

    index: int
    text: str
    choices: list[str]
    right: int
    answers: list[str]
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def expected(self) -> str:
        return self.choices[self.right] if self.choices else self.answers[0]

    def is_answered(self, answer: str) -> bool:
        """Whether the words of an answer hold those that are expected, one after the other."""
        given = normalized(answer)
        for wanted in map(normalized, self.answers):
            size = len(wanted)
            if any(given[at : at + size] == wanted for at in range(len(given) - size + 1)):
                return True
        return False


def read_benchmark(file: Path) -> tuple[list[Question], list[str]]:
    """(the questions of a file of JSON Lines, CSV, ..., why each other row is none). Raises
    DataError where there is none."""
    found: list[Question] = []
    problems: list[str] = []
    for place, record in enumerate(read_records(file)):
        try:
            if record.row is None:
                raise ValueError(record.problem)
            found.append(_question(place, record.row))
        except ValueError as error:
            told = {"line": record.line, "reason": error.args[0]}
            problems.append(_("line {line}: {reason}", **told))
    if found:
        return found, problems
    if not problems:
        raise no_readable_row(file, None)
    raise DataError(
        _(
            "{file} holds no question that can be asked; {problem}.",
            file=file.name,
            problem=problems[0],
        ),
        _(
            "Each row needs {question} and {answer}, and for a choice {choices} as a list; the "
            "answer is its letter, its number from 0, or its text.",
            question="question",
            answer="answer",
            choices="choices",
        ),
    )


def _question(place: int, row: Row) -> Question:
    """Raises ValueError, which says what is wrong, for a row that is none."""
    asked, offered, key = (_first(row, names) for names in (_QUESTION, _CHOICES, _ANSWER))
    if key is None and offered is not None:
        key = _first(row, _LABEL)
    if asked is None or key is None:
        lacking = _QUESTION[0] if asked is None else _ANSWER[0]
        raise ValueError(_("it has no {column}", column=lacking))
    text, answer = str(row[asked]), row[key]
    meta = {name: value for name, value in row.items() if name not in (asked, offered, key)}
    if offered is None:
        answers = [str(one) for one in (answer if isinstance(answer, list) else [answer])]
        answers = [one for one in answers if normalized(one)]
        if not answers:
            raise ValueError(_("it has no {column}", column=_ANSWER[0]))
        return Question(place, text, [], 0, answers, meta)
    choices, labels = _choices(row[offered])
    if len(choices) < 2:
        raise ValueError(_("it has fewer than two choices"))
    if not all(choices):
        raise ValueError(_("one of its choices is empty"))
    return Question(place, text, choices, _place_of(answer, choices, labels), [], meta)


def _first(row: Row, names: Sequence[str]) -> str | None:
    return next((name for name in names if row.get(name) not in (None, "")), None)


def _choices(value: Any) -> tuple[list[str], list[str]]:
    """(the choices, what the answer may call each of them), as a list or as ARC has them."""
    labels: list[str] = []
    if isinstance(value, dict):
        labels = [str(one) for one in value.get("label") or []]
        value = value.get("text")
    if not isinstance(value, list):
        raise ValueError(_("its choices are no list"))
    choices = [str(one).strip() for one in value]
    return choices, labels if len(labels) == len(choices) else list(_LETTERS[: len(choices)])


def _place_of(answer: Any, choices: list[str], labels: list[str]) -> int:
    said = str(answer).strip()
    for known in (choices, labels):
        if said in known and not isinstance(answer, int):
            return known.index(said)
    if said.isdecimal() and int(said) < len(choices):
        return int(said)
    raise ValueError(_("its answer {answer!r} is none of its choices", answer=said))
