"""Which form rows have and which column is which, with the reason.

Detection looks at names and values of the first rows and says what it saw; all of it can be
overruled (`choose`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from core.data.conversion import (
    RIVAL_END,
    SEPARATORS,
    THOUGHT,
    WEIGHTS,
    WINNER,
    Tie,
    holds_messages,
    holds_several,
    is_fraction,
    judgement,
    mark_of,
    marks_by_name,
    marks_in,
    names_of,
    plain_name,
    winner_of,
    written_names,
)
from core.data.forms import (
    ANSWER_WORDS,
    ASKING,
    BETTER_WORSE,
    FORMS,
    JUDGED,
    MARKS,
    MATTERS,
    MAY_BE_MARKS,
    MENDED_BY,
    NAMES,
    NOT_LABELS,
    ONLY_ANSWERS,
    TEXT_PAIRS,
    Form,
    check_field,
    used_columns,
)
from core.data.read.row import Row
from core.data.turn_keys import mark_share
from core.data.turns import ROLE_OF, marked_turns
from core.data.values import (
    ALSO,
    BEHIND,
    BOTH,
    Unusable,
    cell,
    columns_inside,
    joined,
    parsed,
    template_of,
)
from core.errors import DataError
from core.language import N_, _

ROWS_TO_DETECT = 200
"""The form is taken from so many rows at the beginning of a file."""


@dataclass(frozen=True)
class Detection:
    """`form` is a name in FORMS, or None with the reason in `reason` and what to do in `hint`.

    `possible` are the forms that a person may choose instead, each with at least a guess;
    `warnings` say what matters in columns that the mapping does not use.
    """

    form: str | None
    reason: str
    mapping: dict[str, str] = field(default_factory=dict)
    possible: tuple[str, ...] = ()
    hint: str = ""
    warnings: tuple[str, ...] = ()


def detect(rows: Sequence[Row]) -> Detection:
    """The form of these rows (the first of a file, a few hundred at most)."""
    columns = Columns(rows)
    for name in _likely(columns):
        mapping = guess(columns, name)
        if _complete(columns, name, mapping):
            if name != "preference" and columns.compared(mapping):
                return _question(columns, name)
            return _detection(columns, name, mapping, _possible(columns, name))
    if columns.compared({}):
        return _question(columns)
    return Detection(
        None,
        _("No known form in the columns {columns}.", columns=", ".join(columns.names))
        if columns.names
        else _("No known form: there are no columns."),
        {},
        _possible(columns),
        joined(BEHIND, [_("Choose a form and say which column is which."), *_inside(rows)]),
    )


def _inside(rows: Sequence[Row]) -> list[str]:
    """How a conversation inside an object is named, if there is one; and that a tree of messages
    is none."""
    for name in columns_inside(rows[:1]):
        with suppress(Unusable):
            values = [cell(row, name) for row in rows]
            lists = all(_as_list(value) and not isinstance(value, dict) for value in values)
            if lists and Columns([{name: value} for value in values]).holds_turns(name):
                return [
                    _("What is inside an object is named with dots: messages={name}.", name=name)
                ]
    tree = next((name for row in rows[:1] for name, value in row.items() if _is_tree(value)), "")
    if not tree:
        return []
    return [
        _(
            "{column} holds a tree of messages by their ids, as ChatGPT exports them, and no "
            "list of turns: write each conversation as a list of role and content first.",
            column=tree,
        )
    ]


def _is_tree(value: Any) -> bool:
    """Whether an object has nodes by their ids, with a message and the id of the one before it."""
    return (
        isinstance(value, dict)
        and len(value) > 1
        and all(
            isinstance(node, dict) and {"message", "parent"} <= set(node) for node in value.values()
        )
    )


def _detection(
    columns: Columns,
    form: str,
    mapping: dict[str, str],
    possible: tuple[str, ...],
    *said: str,
) -> Detection:
    reason = joined(BEHIND, [*said, reason_for(columns, form, mapping)])
    return Detection(form, reason, mapping, possible, warnings=_warnings(columns, form, mapping))


def _question(columns: Columns, weaker: str = "") -> Detection:
    """No form for rows that compare answers, where it is not plain which with which: half of them
    would be learned as if all of it were good."""
    hint = _(
        "Choose Preference and say which column holds the better answers and which the worse "
        "(--form preference --map chosen=COLUMN --map rejected=COLUMN; where a third one names the "
        "better of them in each row, --map winner=COLUMN), or choose another form to learn without "
        "the comparison."
    )
    other = [_("Such a form is {form} (--form {form}).", form=weaker)] if weaker else []
    return Detection(
        None,
        _("Answers are compared here: {told}", told=joined(BEHIND, columns.compared({}))),
        {},
        tuple(dict.fromkeys(["preference", *_possible(columns, weaker)])),
        joined(BEHIND, [hint, *other]),
    )


def unused_warnings(rows: Sequence[Row], form: str, mapping: Mapping[str, str]) -> tuple[str, ...]:
    """What matters in the columns that a mapping leaves out, a sentence each."""
    return _warnings(Columns(rows), form, mapping)


def _warnings(columns: Columns, form: str, mapping: Mapping[str, str]) -> tuple[str, ...]:
    compared = columns.compared(mapping) if form != "preference" else []
    way = _("Import the rows as preference to learn from the comparison.")
    found = [joined(BEHIND, [one, way]) for one in compared]
    names = mapping.get("label_names", "")
    if names and names == _numbered(columns.places(mapping.get("label", ""))):
        found.append(
            _(
                "The labels are lists of 0 and 1, and nothing says what the places mean: they "
                "are called {names}. Name them with label_names (--map "
                "label_names=NAME,NAME,...).",
                names=names,
            )
        )
    return (
        *found,
        *(
            joined(
                BEHIND,
                [
                    _(
                        "The column {column} is not used, and it looks like {what}.",
                        column=column,
                        what=what,
                    ),
                    *_mend(form, what, column),
                ],
            )
            for column, what in columns.that_matter(mapping).items()
        ),
    )


def _mend(form: str, what: str, column: str) -> list[str]:
    name = MENDED_BY.get(what, "")
    fits = name in FORMS[form].fields
    told = _("Choose it as {field} (--map {field}={column}) to use it.", field=name, column=column)
    return [told] if fits else []


def guess_mapping(rows: Sequence[Row], form: str) -> dict[str, str]:
    """The columns of a form's fields by their names and values, as far as there are any."""
    return guess(Columns(rows), form)


def _complete(columns: Columns, form: str, mapping: Mapping[str, str]) -> bool:
    if form == "unpaired-preference" and "prompt" not in mapping:
        # Then the answers must be whole conversations.
        return "label" in mapping and columns.holds_turns(mapping.get("completion", ""))
    return all(required in mapping for required in FORMS[form].required)


def _likely(columns: Columns) -> Iterator[str]:
    """Forms to try, the most telling first."""
    if columns.named(NAMES["rejected"]) or columns.opposed() or columns.decided():
        yield "preference"
    yield "unpaired-preference"
    pair = guess(columns, "prompt-completion")
    if all(columns.holds_turns(pair.get(name, "")) for name in ("prompt", "completion")):
        yield "prompt-completion"
    talk = guess(columns, "messages").get("messages") or guess(columns, "sharegpt").get(
        "conversations"
    )
    if talk and columns.holds_questions(talk):
        yield "prompt-only"
    yield from ("sharegpt", "messages", "instruction")
    if columns.named(ONLY_ANSWERS) and columns.named(ASKING):
        yield "prompt-only"
    yield "prompt-completion"
    yield "labelled-text"
    if columns.named(ASKING) and not columns.named(NAMES["text"]):
        yield "prompt-only"
    yield "text"


def guess(columns: Columns, form: str) -> dict[str, str]:
    """As `guess_mapping`, of columns that were looked at before."""
    if form == "labelled-text":
        return _labelled(columns)
    mapping: dict[str, str] = {}
    if form == "preference" and not (_both_named(columns) or columns.opposed()):
        mapping = dict(zip(("chosen", "rejected", WINNER), columns.decided(), strict=False))
    for name in FORMS[form].fields:
        if name in mapping or (name == WINNER):
            continue
        taken = set(mapping.values())
        free = [column for column in columns.usable if column not in taken]
        column = _column_for(columns, form, name, free, mapping)
        if column:
            mapping[name] = column
    return mapping


def _column_for(
    columns: Columns, form: str, name: str, free: list[str], mapping: Mapping[str, str]
) -> str | None:
    named = columns.named(NAMES[name], free)
    if name in ("messages", "conversations"):
        keys = ("role", "content") if name == "messages" else ("from", "value")
        others = [column for column in free if column not in named]
        return next((c for c in [*named, *others] if columns.holds_turns(c, keys)), None)
    if name in ("prompt", "completion", "chosen", "rejected"):
        talks = columns.named(NAMES["messages"], free)
        if name == "prompt" or (name == "completion" and form == "unpaired-preference"):
            named += talks
        pair = columns.opposed()
        if name in ("chosen", "rejected") and pair and not _both_named(columns):
            named = [pair[name == "rejected"]]
        if name == "chosen" and not named:
            named = _answered(columns, free, talks)
        also = [c for c in named if columns.holds_turns(c) or columns.holds_messages(c)]
        if name in ("chosen", "rejected"):
            also += [column for column in named if columns.holds_several(column)]
        return _best(columns, named, also)
    if name == "label":
        return next((c for c in columns.named(JUDGED, free) if columns.judges(c)), None)
    if name == "input":
        # Beside an instruction it is a part of the prompt; beside anything else, who knows.
        asks = mapping.get("instruction") or mapping.get("prompt", "")
        if asks.strip().lower() != "instruction":
            return None
    if name in ("history", "tools"):
        return named[0] if named else None
    if name == THOUGHT:
        return next((column for column in named if columns.holds_answers(column)), None)
    if name == WEIGHTS:
        talk = mapping.get("messages") or mapping.get("conversations", "")
        return next((column for column in named if columns.holds_marks(column, talk)), None)
    if name == "system":
        return _best(columns, named, [column for column in named if columns.holds_parts(column)])
    if name == "text" and not named:
        texts = [column for column in free if columns.holds_text(column)]
        return texts[0] if len(texts) == 1 and len(columns.names) == 1 else None
    return _best(columns, named)


def _both_named(columns: Columns) -> bool:
    return all(columns.named(NAMES[side]) for side in ("chosen", "rejected"))


def _answered(columns: Columns, free: list[str], talks: list[str]) -> list[str]:
    """The columns of the better answer where only the worse one has a name of its own."""
    worse = columns.named(NAMES["rejected"], free)
    if not worse or not columns.holds_answers(worse[0]):
        return []
    return [c for c in talks if columns.holds_turns(c)] or columns.named(NAMES["completion"], free)


def _best(columns: Columns, named: list[str], also: Sequence[str] = ()) -> str | None:
    """The first column with text (or one of `also`); else one that is still empty, for the first
    rows of a file may leave a column empty that later ones fill."""
    filled = (column for column in named if column in also or columns.holds_text(column))
    empty = (column for column in named if not columns.values(column))
    return next(filled, None) or next(empty, None)


def _labelled(columns: Columns) -> dict[str, str]:
    """Text and label: a column named as a label, or the one of few values beside longer text."""
    by_name = columns.named(NAMES["label"])
    label = next((c for c in by_name if columns.labels_by_name(c)), None)
    others = [c for c in columns.usable if c != label]
    texts = [c for c in others if columns.holds_text(c) and columns.mean_length(c)]
    if label is None and len(texts) == len(columns.names) == 2:
        short, long = sorted(texts, key=columns.mean_length)
        alone = columns.labels_by_values(short) and columns.varies(long)
        if alone and short.strip().lower() not in NOT_LABELS:
            return {"text": long, "label": short}
    if label is None:
        marks = columns.one_hot()
        texts = [column for column in texts if column not in marks]
        label = "".join(f"{{{column}}}" for column in marks)
    text = _labelled_text(columns, texts) if label else ""
    return {"text": text, "label": label, **_label_names(columns, label)} if text else {}


def _labelled_text(columns: Columns, texts: list[str]) -> str:
    for pair in TEXT_PAIRS:
        both = columns.named(pair, texts)
        if len(both) == 2:
            return f"{{{both[0]}}}\n\n{{{both[1]}}}"
    named = columns.named((*NAMES["text"], *NAMES["prompt"]), texts)
    return named[0] if named else max(texts, key=columns.mean_length, default="")


def _label_names(columns: Columns, label: str) -> dict[str, str]:
    """The setting for labels that are a list of 0 and 1, or a column of 0 and 1 each."""
    template = template_of(label)
    if template:
        marks = set(template.columns) <= set(columns.one_hot())
        return {"label_names": written_names(template.columns)} if marks else {}
    count = columns.places(label)
    return {"label_names": _numbered(count)} if count else {}


def _numbered(count: int) -> str:
    return written_names([str(place) for place in range(count)])


def _possible(columns: Columns, found: str = "") -> tuple[str, ...]:
    """Forms that these columns could be mapped to."""
    texts = [column for column in columns.usable if columns.holds_text(column)]
    turns = [column for column in columns.usable if columns.holds_turns(column)]
    judged = [column for column in columns.usable if columns.judges(column)]
    several = [column for column in columns.usable if columns.holds_several(column)]
    answers = len(texts) + len(turns)
    names = {
        "text": bool(texts),
        "prompt-completion": answers > 1,
        "instruction": len(texts) > 1,
        "messages": bool(turns),
        "sharegpt": bool(turns),
        "preference": answers + len(several) > 2 or len(turns) > 1 or len(several) > 1,
        "unpaired-preference": bool(judged) and (bool(turns) or len(texts) > 1),
        "prompt-only": answers > 0,
        "labelled-text": bool(texts) and len(columns.usable) > 1,
    }
    return tuple(name for name, fits in names.items() if fits or name == found)


_TOLD = {
    "text": N_("Text in the column {columns}."),
    "prompt-completion": N_("A prompt and its answer: {columns}."),
    "instruction": N_("Alpaca's columns: {columns}."),
    "messages": N_("Lists of turns with role and content: {columns}."),
    "sharegpt": N_("Lists of turns with from and value: {columns}."),
    "preference": N_("Two answers compared, one chosen and one rejected: {columns}."),
    "unpaired-preference": N_("Answers judged good or bad: {columns}."),
    "prompt-only": N_("Prompts without an answer to learn: {columns}."),
    "labelled-text": N_("Texts with labels: {columns}."),
}
_TOLD_WITH_WINNER = N_("Two answers compared, and a column that names the better: {columns}.")
_TOLD_WITH_CALLS = {
    "messages": N_("Lists of turns with role and content, with calls of tools: {columns}."),
    "sharegpt": N_("Lists of turns with from and value, with calls of tools: {columns}."),
}
_TOLD_WITH_MARKS = N_("Texts with labels ({count} different, marked by 0 and 1): {columns}.")
_TOLD_WITH_COUNT = N_("Texts with labels ({count} different in the rows looked at): {columns}.")


def reason_for(columns: Columns, form: str, mapping: Mapping[str, str]) -> str:
    """What in these columns makes them this form, and which columns are left over."""
    named = [
        source if source == name else _("{column} as {field}", column=_shown(source), field=name)
        for name, source in mapping.items()
    ]
    told, count, sign = _TOLD[form], 0, mapping.get("separator")
    talk = mapping.get("messages") or mapping.get("conversations")
    if WINNER in mapping:
        told = _TOLD_WITH_WINNER
    elif form in _TOLD_WITH_CALLS and talk and columns.has_calls(talk):
        told = _TOLD_WITH_CALLS[form]
    elif mapping.get("label_names"):
        told, count = _TOLD_WITH_MARKS, len(names_of(mapping["label_names"]))
    elif form == "labelled-text":
        labels = columns.labels(mapping.get("label", "")) or set()
        if sign:
            labels = {one.strip() for label in labels for one in label.split(sign) if one.strip()}
        told, count = (_TOLD_WITH_COUNT, len(labels)) if labels else (told, 0)
    sentences = [_(told.template, columns=joined(ALSO, named), count=count)]
    if told is _TOLD_WITH_COUNT and not sign:
        sentences += [
            _("Where {sign!r} stands between several labels, choose it as the separator.", sign=one)
            for one in columns.separators(mapping["label"])[:1]
        ]
    used = used_columns(mapping, columns.names)
    matter = columns.that_matter(mapping)
    unused = [column for column in columns.names if column not in used and column not in matter]
    if unused:
        sentences.append(_("Not used: {columns}.", columns=", ".join(unused)))
    return joined(BEHIND, sentences)


def _shown(source: str) -> str:
    """A mapping's value in one line."""
    return source.replace("\n", "\\n") if template_of(source) else source


_SIDE = re.compile(
    r"(?:^|_)(?:chosen|rejected|(?:non|un|dis|not)_?prefer?red|"
    r"(?:preferred|better|worse|best|worst|good|bad|wrong|incorrect|negative|alternative|losing)"
    r"_(?:output|answer|response|completion|messages|reply))(?:_|$)|^y_[wl]$"
)
"""Names of a column that holds a better or a worse answer and nothing else."""

_RIVAL = re.compile(
    r"(.*(?:answer|response|completion|output|reply|conversation|human_ref|generation|candidate)s?"
    rf"|model|assistant|bot)(?:{RIVAL_END}|_?[wl])"
)
"""Names of columns that differ only in a letter or a number at their end."""
_MAY_BE_NAMES = ("model", "assistant", "bot")
"""Such columns hold the names of models as often as their answers."""

_ANSWERS = {
    *NAMES["completion"],
    *NAMES["chosen"],
    *NAMES["rejected"],
    *("answers", "responses", "completions", "outputs", "candidates", "generations", "replies"),
}

_FIT_NOTHING = N_(
    "marks of which turns are learned, which fit neither all turns nor the answers among them"
)
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
        self._one_hot: list[str] | None = None

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

    def holds_parts(self, column: str) -> bool:
        """Whether the values of a column are texts in parts, as Gemini's `systemInstruction`."""
        values = self.values(column)
        return bool(values) and all(isinstance(v, dict) and "parts" in v for v in values)

    def holds_questions(self, column: str) -> bool:
        """Whether most lists of turns in a column end before anybody answers."""
        lists = self._lists_of_turns(column)
        return bool(lists) and sum(_role(turns[-1]) == "user" for turns in lists) * 2 > len(lists)

    def holds_messages(self, column: str) -> bool:
        """Whether most values of a column are objects with messages, as OpenAI writes a prompt."""
        values = self.values(column)
        return sum(map(holds_messages, values)) * 2 > len(values)

    def holds_several(self, column: str) -> bool:
        """Whether most values of a column are lists of answers, and some of more than one."""
        lists = [value for value in self.values(column) if holds_several(value)]
        return len(lists) * 2 > len(self.values(column)) and any(len(one) > 1 for one in lists)

    def holds_answers(self, column: str) -> bool:
        """Whether a column holds answers: turns, texts, or several of them, and not only marks."""
        if self.holds_turns(column) or self.holds_several(column):
            return True
        values = self.values(column)
        texts = sum(isinstance(value, str) for value in values)
        marks = self.judges(column) or self.labels_by_values(column)
        return texts * 2 > len(values) and not marks

    def compared(self, mapping: Mapping[str, str]) -> list[str]:
        """What says that answers are compared in the columns that a mapping does not use, a
        sentence each."""
        used = used_columns(mapping, self.names)
        free = [column for column in self.usable if column not in used]
        sides = [
            column
            for column in free
            if _SIDE.search(plain_name(column)) and self.holds_answers(column)
        ]
        rivals = [
            columns for columns in self._rivals() if len(columns) > 1 and set(columns) & set(free)
        ]
        found: list[str] = [
            _("The column {column} holds one side of a comparison.", column=column)
            for column in sides
        ]
        found += [
            _(
                "The columns {columns} hold different answers to one question.",
                columns=joined(BOTH, columns),
            )
            for columns in rivals
        ]
        pair = self.opposed(surely=False)
        told = {*sides, *(column for columns in rivals for column in columns)}
        if set(pair) & set(free) and not set(pair) & told:
            both = joined(BOTH, pair)
            found.append(_("The columns {columns} hold a better and a worse answer.", columns=both))
        several = [column for column in free if self._lists_answers(column)]
        return found + [
            _("The cells of {column} hold several answers.", column=column) for column in several
        ]

    def _rivals(self) -> list[list[str]]:
        """Columns with answers whose names differ in their end alone."""
        rivals: dict[str, list[str]] = {}
        for column in self.usable:
            stem = _RIVAL.fullmatch(plain_name(column))
            if not stem or not self.holds_answers(column):
                continue
            if stem[1] not in _MAY_BE_NAMES or self._holds_sentences(column):
                rivals.setdefault(stem[1], []).append(column)
        return list(rivals.values())

    def decided(self) -> tuple[str, ...]:
        """Two columns with rival answers and the one that names the better of them; nothing where
        there are none, or a cell names neither."""
        for rivals in self._rivals():
            for column in self.named(NAMES[WINNER]) if len(rivals) == 2 else ():
                if column not in rivals and self._names_one(column, *rivals):
                    return (*rivals, column)
        return ()

    def _names_one(self, column: str, first: str, second: str) -> bool:
        named = 0
        for value in self.values(column):
            try:
                winner_of(value, first, second)
                named += 1
            except Tie:
                continue
            except Unusable:
                return False
        return named > 0

    def opposed(self, *, surely: bool = True) -> tuple[str, ...]:
        """The columns with a better and a worse answer to a question beside them or in them, by a
        word in which their names differ and nothing else; nothing without any. What is positive or
        negative to a query may also be a passage: `surely` leaves that out."""
        asking = {name for name in ASKING if self.named((name,))}
        words = {column: _words(column) for column in self.usable}
        for better, worse in BETTER_WORSE:
            vague = surely and better in ("positive", "pos")
            asked = bool(asking - ({"query"} if vague else set()))
            for column, said in words.items():
                rest = [word for word in said if word != better]
                if len(rest) != len(said) - 1 or not set(rest) <= set(ANSWER_WORDS):
                    continue
                wanted = [worse if word == better else word for word in said]
                other = next((one for one, there in words.items() if there == wanted), "")
                both = (column, other) if other else ()
                if both and all(
                    self.holds_answers(one) and (asked or self.holds_turns(one)) for one in both
                ):
                    return both
        return ()

    def _holds_sentences(self, column: str) -> bool:
        values = self.values(column)
        return sum(isinstance(v, str) and len(v.split()) > 2 for v in values) * 2 > len(values)

    def _lists_answers(self, column: str) -> bool:
        name = column.strip().lower()
        if name not in _ANSWERS or name in NAMES["label"]:
            return False
        values = self.values(column)
        told = [value for value in values if isinstance(value, list) and len(value) > 1]
        objects = all(_role(item) is None for value in told for item in value)
        return self.holds_several(column) or (objects and len(told) * 2 > len(values))

    def that_matter(self, mapping: Mapping[str, str]) -> dict[str, str]:
        """The columns that a mapping does not use although it matters what is in them, each with
        that."""
        used = used_columns(mapping, self.names)
        talk = mapping.get("messages") or mapping.get("conversations") or ""
        found = {
            column: what
            for what, names in MATTERS.items()
            for column in self.names
            if column not in used and column.strip().lower() in names and self.values(column)
        }
        marks = self.named(MAY_BE_MARKS) if talk else []
        return found | {
            column: MARKS if self._can_mark(column, talk) else _FIT_NOTHING
            for column in marks
            if column not in used and all(map(_may_be_marks, self.values(column) or [None]))
        }

    def _can_mark(self, column: str, talk: str) -> bool:
        lists = any(isinstance(parsed(value), list) for value in self.values(column))
        return not lists or self.holds_marks(column, talk)

    def holds_marks(self, column: str, talk: str) -> bool:
        """Whether most values of a column are a number from 0 to 1 for each turn beside it, or for
        each of the assistant's."""
        beside = [
            (parsed(row.get(column)), _as_list(row.get(talk)) or [])
            for row in self._rows
            if row.get(column) not in (None, "")
        ]
        fitting = sum(
            isinstance(marks, list)
            and all(mark is None or mark_share(mark) is not None for mark in marks)
            and bool(marked_turns(_spoken(turns), len(marks)))
            for marks, turns in beside
        )
        return fitting * 2 > len(beside)

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
            read = marks_by_name(value) or parsed(value)
            items = list(read) if isinstance(read, (list, tuple, dict)) else [value]
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
        if self.places(column) or self.holds_shares(column):
            return True
        found, rows = self.labels(column), len(self.values(column))
        return found is not None and (rows < _ROWS_TO_COMPARE or len(found) <= 0.8 * rows)

    def labels_by_values(self, column: str) -> bool:
        """Whether a column of unknown name must hold labels: a few values, again and again."""
        found, rows = self.labels(column), len(self.values(column))
        return found is not None and rows >= _ROWS_TO_COMPARE and 2 <= len(found) <= rows / 5

    def places(self, column: str) -> int:
        """How many marks stand in each cell of a column of lists of 0 and 1, all as long as each
        other; 0 for any other column, as one of numbers of labels."""
        lists = [marks_in(value) for value in self.values(column)]
        if not all(isinstance(one, list) and _are_marks(one) for one in lists):
            return 0
        lengths = {len(one) for one in lists}
        # No number of a label comes twice in a cell, and nobody writes two in either order.
        marks = {tuple(mark_of(mark) for mark in one) for one in lists}
        repeated = any(len(set(one)) < len(one) for one in marks)
        is_vector = repeated or {(True, False), (False, True)} <= marks
        return lengths.pop() if is_vector and len(lengths) == 1 else 0

    def holds_shares(self, column: str) -> bool:
        """Whether all cells of a column are shares from 0 to 1, one, a list of them, or one for
        each name, and not all of them 0 or 1: labels, and none that can be learned."""
        shares: list[Any] = []
        for value in self.values(column):
            read = list(marks_by_name(value).values()) or parsed(value)
            shares += read if isinstance(read, list) else [read]
        known = all(is_fraction(share) or mark_of(share) is not None for share in shares)
        return known and any(map(is_fraction, shares))

    def one_hot(self) -> list[str]:
        """The columns of 0 and 1, where there are several: one for each label."""
        if self._one_hot is None:
            found = [
                column
                for column in self.usable
                if self.values(column)
                and _are_marks(self.values(column))
                and column.strip().lower() not in NOT_LABELS
                and not set(column) & set("{}")
            ]
            marked = any(mark_of(value) for column in found for value in self.values(column))
            self._one_hot = found if len(found) > 1 and marked else []
        return self._one_hot

    def mean_length(self, column: str) -> float:
        """Characters of a text in the column, on average."""
        values = [v for v in self.values(column) if isinstance(v, str)]
        return sum(map(len, values)) / len(values) if values else 0.0

    def varies(self, column: str) -> bool:
        """Whether most values of a text column are different."""
        values = [v for v in self.values(column) if isinstance(v, str)]
        return len(set(values)) * 2 > len(values)


def _may_be_marks(value: Any) -> bool:
    read = parsed(value)
    marks = read if isinstance(read, list) else [read]
    return bool(marks) and all(mark_share(mark) is not None for mark in marks)


def _spoken(turns: list[Any]) -> list[str | None]:
    """Who speaks in turns, but for thoughts, which are joined to the answers behind them."""
    return [role for role in map(_role, turns) if role != "thought"]


def _are_marks(values: list[Any]) -> bool:
    return all(mark_of(value) is not None for value in values)


@lru_cache(maxsize=256)
def _words(column: str) -> list[str]:
    """The words of a column's name, those for answers as one: `non_preferred` is `dispreferred`."""
    said = re.sub(r"(?:non|un|dis|not)_?prefer?red", "dispreferred", plain_name(column))
    return [
        word.removesuffix("s") if word.removesuffix("s") in ANSWER_WORDS else word
        for word in said.split("_")
    ]


def _as_list(value: Any) -> list[Any] | None:
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "a", "O"):
        value = parsed(value)
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
        raise DataError(
            _("{form!r} is not a form.", form=form),
            _("Choose one of {forms}.", forms=", ".join(FORMS)),
        )
    columns = Columns(rows)
    guessed = found.mapping if form == found.form else guess(columns, form)
    merged = _merged(FORMS[form], guessed, mapping or {})
    if form == "labelled-text" and "label_names" not in (mapping or {}):
        merged.pop("label_names", None)
        merged |= _label_names(columns, merged.get("label", ""))
    for name, source in merged.items():
        check_field(FORMS[form], name, source, columns.names)
    missing = [name for name in FORMS[form].required if name not in merged]
    if missing:
        raise DataError(
            _(
                "The form {form} needs a column for {fields}.",
                form=form,
                fields=joined(BOTH, missing),
            ),
            _("Choose from {columns}.", columns=", ".join(columns.names))
            if columns.names
            else _("Choose a file with named columns."),
        )
    if form == found.form and merged == found.mapping:
        return found
    return _detection(columns, form, merged, found.possible, _("Chosen by you."))


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
