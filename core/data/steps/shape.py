"""Steps that choose and change rows: by condition or place, by template, by chance."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Literal

import orjson

from core.config.fields import knob
from core.data.read.row import Row
from core.data.rowtext import TEXT_COLUMNS, TURN_COLUMNS
from core.data.steps.base import Decision, EachRow, RowWork, Setting, Step, Unusable, WholeWork
from core.data.steps.expression import condition, template
from core.errors import DataError
from core.language import N_, Said, _


class SelectRows(Step):
    """Keeps the rows that a condition or their place names."""

    op = "select_rows"
    title = Said(N_("Keep rows by condition or place"))
    kind = "shape"

    condition: str = knob("", "Condition", level="basic", free_text=True)
    """Rows for which it holds stay, such as: category == "law" and words(text) < 500. You can use
    every column, len(), words(), lower(), matches(pattern, text)."""

    rows: str = knob("", "Rows", level="basic")
    """Places that stay, counted from 1, such as 1-500, 700. Empty means all."""

    keep: Literal["matching", "others"] = knob("matching", "Keep")
    """Others keeps what does not match, so that you can cut rows out."""

    def start(self, setting: Setting) -> RowWork:
        if not self.condition.strip() and not self.rows.strip():
            raise DataError(
                _("No rows are named."), _("Write a condition, or places such as 1-500.")
            )
        tests: list[Callable[[Row], bool]] = []
        if self.condition.strip():
            tests.append(condition(self.condition, setting.columns))
        if self.rows.strip():
            tests.append(_Places(self.rows))
        wanted = self.keep == "matching"

        def choose(row: Row) -> Row:
            if all([test(row) for test in tests]) is not wanted:
                raise Unusable(_("does not match") if wanted else _("matches"))
            return row

        return EachRow(choose)


class _Places:
    """Whether the next row stands at one of the places in a text such as `1-500, 700`."""

    def __init__(self, text: str) -> None:
        self._spans = [_span(part.strip()) for part in text.split(",") if part.strip()]
        self._place = 0

    def __call__(self, row: Row) -> bool:
        self._place += 1
        return any(first <= self._place <= last for first, last in self._spans)


def _span(part: str) -> tuple[int, int]:
    first, dash, last = part.partition("-")
    try:
        span = int(first), int(last if dash else first)
    except ValueError:
        span = (0, 0)
    if not 1 <= span[0] <= span[1]:
        raise DataError(
            _("{part} is no place of rows.", part=part), _("Write places such as 1-500, 700.")
        )
    return span


class SelectColumns(Step):
    """Keeps some of the values that stand beside the rows; what is learned stays as it is."""

    op = "select_columns"
    title = Said(N_("Keep columns"))
    kind = "shape"

    columns: list[str] = knob([], "Columns to keep", level="basic")
    """The other columns beside the learned text are left out; conditions can no longer name
    them. Empty leaves all out."""

    def start(self, setting: Setting) -> RowWork:
        unknown = [name for name in self.columns if name not in setting.columns]
        if unknown:
            raise DataError(
                _("There is no column {column}.", column=unknown[0]),
                _("There are {columns}.", columns=", ".join(setting.columns)),
            )

        def select(row: Row) -> Row:
            meta = row.get("meta") or {}
            kept = {name: value for name, value in meta.items() if name in self.columns}
            return row if kept == meta else {**row, "meta": kept}

        return EachRow(select)


class MapTemplate(Step):
    """Writes a text anew from a template over the row's own columns."""

    op = "map_template"
    title = Said(N_("Rewrite a text by template"))
    kind = "shape"

    column: str = knob("", "Column to write", level="basic")
    """The prompt (its last user turn), the completion, the text, the answer, or the name of a
    new column beside the row."""

    template: str = knob("", "Template", level="basic", free_text=True)
    """Text with columns in braces, such as: Context: {context}; then {prompt}. {{ writes a
    brace."""

    def start(self, setting: Setting) -> RowWork:
        if not self.column.strip() or not self.template.strip():
            raise DataError(
                _("The template has no column or no text."),
                _("Name the column and write the text."),
            )
        fill = template(self.template, setting.columns)
        return EachRow(lambda row: _put(row, self.column.strip(), fill(row)))


def _put(row: Row, column: str, text: str) -> Row:
    if column in TURN_COLUMNS and column in row:
        role = "user" if column in ("prompt", "messages") else "assistant"
        turns = list(row[column])
        last = max((i for i, turn in enumerate(turns) if turn["role"] == role), default=-1)
        if last < 0:
            raise Unusable(_("the {column} has no turn of the {role}", column=column, role=role))
        turns[last] = {**turns[last], "content": text}
        return {**row, column: turns}
    if column in TEXT_COLUMNS and column in row:
        return {**row, column: text}
    return {**row, "meta": {**(row.get("meta") or {}), column: text}}


class Sample(Step):
    """Keeps a random share of the rows."""

    op = "sample"
    title = Said(N_("Take a random sample"))
    kind = "shape"
    single_rows: ClassVar[bool] = False

    fraction: float | None = knob(None, "Share of the rows", level="basic", gt=0, le=1)
    """0.1 keeps about one row in ten. Empty when you give a number of rows."""

    rows: int | None = knob(None, "Number of rows", level="basic", ge=1)
    """Keeps exactly so many if there are as many. Empty when you give a share."""

    seed: int = knob(42, "Seed", ge=0)
    """The same seed picks the same rows."""

    def start(self, setting: Setting) -> RowWork | WholeWork:
        if (self.fraction is None) == (self.rows is None):
            raise DataError(
                _("A sample needs a share or a number of rows."), _("Give one of the two.")
            )
        return _Pick(self.fraction, self.rows, self.seed)


class _Pick(WholeWork):
    columns = ()

    def __init__(self, fraction: float | None, rows: int | None, seed: int) -> None:
        self._fraction, self._rows, self._seed, self._count = fraction, rows, seed, 0

    def note(self, row: Row) -> None:
        self._count += 1

    def decide(self) -> Decision:
        wanted = self._rows or round(self._count * (self._fraction or 1.0))
        kept = min(max(wanted, 1), self._count)
        left = random.Random(self._seed).sample(range(self._count), self._count - kept)
        return Decision(drop=dict.fromkeys(left, _("not in the sample")))


class Shuffle(Step):
    """Puts the rows of each part in a random order."""

    op = "shuffle"
    title = Said(N_("Shuffle"))
    kind = "shape"
    single_rows: ClassVar[bool] = False

    seed: int = knob(42, "Seed", level="basic", ge=0)
    """The same seed gives the same order. Training shuffles anyway; this changes what `the first
    rows` means."""

    def start(self, setting: Setting) -> WholeWork:
        return _Mix(self.seed)


class _Mix(WholeWork):
    columns = ()

    def __init__(self, seed: int) -> None:
        self._seed, self._count = seed, 0

    def note(self, row: Row) -> None:
        self._count += 1

    def decide(self) -> Decision:
        order = list(range(self._count))
        random.Random(self._seed).shuffle(order)
        return Decision(order=order)


class AddRows(Step):
    """Adds rows that a person accepted, such as synthetic ones, to the rows to learn."""

    op = "add_rows"
    title = Said(N_("Add accepted rows"))
    kind = "shape"
    after_split: ClassVar[bool] = True

    file: str = knob("", "File of rows", min_length=1)
    """JSON Lines in the folder of the data set, in its standard form."""

    sha256: str = knob("", "SHA-256 of the file")
    """What the file must be; a changed one is refused."""

    def start(self, setting: Setting) -> RowWork:
        path = (setting.folder / self.file).resolve()
        if not path.is_relative_to(setting.folder.resolve()) or not path.is_file():
            raise DataError(
                _("The rows {file} are not in the data set's folder.", file=self.file),
                _("Accept the drafts again, or leave the step out."),
            )
        if self.sha256:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != self.sha256:
                raise DataError(
                    _("The rows in {file} were changed after they were accepted.", file=self.file),
                    _("Accept the drafts again, or leave the step out."),
                )
        return _Add(path, setting.form)


class _Add(RowWork):
    """Passes every row on, and gives the new ones at the end of the train part."""

    def __init__(self, path: Path, form: str) -> None:
        self._path, self._form, self._given = path, form, False

    def feed(self, row: Row) -> Iterable[Row]:
        yield row

    def finish(self) -> Iterator[Row]:
        # The parts come in order, so the first one to end is train.
        if self._given:
            return
        self._given = True
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield {**self._row(line, number), "part": "train"}

    def _row(self, line: bytes, number: int) -> Row:
        from core.data.drafts.rows import checked_row

        try:
            given = orjson.loads(line)
            beside = {"meta": given.pop("meta")} if "meta" in given else {}
            return checked_row(given, self._form) | beside
        except (ValueError, TypeError, AttributeError, DataError) as error:
            reason = error.message if isinstance(error, DataError) else _("it is not JSON.")
            raise DataError(
                _(
                    "Line {number} of {name} is no {form} row: {reason}",
                    number=number,
                    name=self._path.name,
                    form=self._form,
                    reason=reason,
                ),
                _("Accept the drafts again, or leave the step out."),
            ) from error


STEPS: tuple[type[Step], ...] = (SelectRows, SelectColumns, MapTemplate, Sample, Shuffle, AddRows)
