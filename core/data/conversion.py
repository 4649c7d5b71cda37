"""One raw row to one row of a standard form, or the reason why it cannot be one.

The standard forms are those of `core.data.rowfile.SCHEMAS`. Turns, calls of tools and `tools` of a
row are as in `core.data.turns`. Judged answers are preference pairs, or answers with a good or bad
mark: a source may name the prompt apart or leave it in the answers, whole conversations, of which
the part that both sides share (preference) or all up to the last question (unpaired) is the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from itertools import product
from typing import Any, NamedTuple

from core.data.python_text import LISTS, begins_as_texts, begins_as_turns, is_python
from core.data.read.row import Row, json_type
from core.data.turn_keys import content_of, refuse_media_beside, words_of
from core.data.turns import (
    Turn,
    check_order,
    side_of,
    split_system,
    tools_of,
    turns_of,
    unused_keys,
    with_system,
    with_thought,
    with_weights,
)
from core.data.values import (
    Fields,
    Unusable,
    cell,
    json_text,
    parsed,
    template_of,
    text_of,
    why_not_read,
    written,
)
from core.language import N_, _

# What a reason names.
_TEXT, _LABEL, _SYSTEM, _INPUT = N_("text"), N_("label"), N_("system text"), N_("input")
_ANSWER, _REFERENCE = N_("answer"), N_("reference answer")
_CHOSEN, _REJECTED = N_("chosen answer"), N_("rejected answer")
_PAIR, _ASKING = N_("pair of answers"), {"prompt": N_("prompt"), "instruction": N_("instruction")}
_ASKED_BEFORE, _SAID_BEFORE = N_("question in the history"), N_("answer in the history")


def convert(row: Row, form: str, mapping: Mapping[str, str], system_prompt: str = "") -> Row:
    """The row in its standard form, without `meta`. Raises Unusable with the reason.

    `mapping` gives each field of the source form (see `forms.FORMS`) a column, or a template
    such as "{question}\\n\\n{context}". `system_prompt` goes before a conversation that has no
    system turn.
    """
    made = _conversion(form, tuple(mapping.items()), system_prompt)(row)
    refuse_media_beside(row, made, mapping.values())
    return made


WINNER = "winner"
"""The field for a column that names the better of two answers by the name of its column."""

THOUGHT = "reasoning_content"
"""The field for a column with the thought before the last answer."""

WEIGHTS = "weights"
"""The field for a column with a mark for each turn of a conversation, or each answer in it."""

_TURN_FIELDS = (
    *("messages", "conversations", "prompt", "completion", "instruction", "output"),
    *("chosen", "rejected", "history"),
)


def unused_turn_keys(row: Row, mapping: Mapping[str, str]) -> Iterator[str]:
    """The keys of a row's turns that say something which its standard form does not keep, each
    once for each turn."""
    for source in _turn_sources(tuple(mapping.items())):
        value = row.get(source)
        if value is None and "." in source:
            with suppress(Unusable):
                value = cell(row, source)
        if type(value) is not str or value.startswith(_LISTS):
            yield from unused_keys(value)


_LISTS = (*LISTS, " ", "\n", "\r", "\t")


@lru_cache(maxsize=64)
def _turn_sources(mapping: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """The columns that may hold turns; a template makes text."""
    return tuple(
        source
        for field, source in mapping
        if field in _TURN_FIELDS and source and template_of(source) is None
    )


@lru_cache(maxsize=64)
def _conversion(
    form: str, mapping: tuple[tuple[str, str], ...], system_prompt: str
) -> Callable[[Row], Row]:
    """What makes standard rows; made once for all rows of an import, not for each."""
    return partial(_CONVERSIONS[form], Fields(dict(mapping)), system_prompt.strip())


class Converted(NamedTuple):
    """What became of a raw row: standard rows, the reasons of pairs of answers (or of the row) that
    cannot be used, and how many pairs repeat another one of the row."""

    rows: list[Row]
    reasons: list[str]
    repeated: int = 0


def convert_all(
    row: Row, form: str, mapping: Mapping[str, str], system_prompt: str = ""
) -> Converted:
    """As `convert`; a row with several better or worse answers becomes a pair for each of the one
    with each of the other."""
    made: list[Row] = []
    reasons: list[str] = []
    try:
        pairs, repeated = _pairs(row, mapping) if form == "preference" else ([row], 0)
    except Unusable as error:
        return Converted([], [error.reason])
    for pair in pairs:
        try:
            made.append(convert(pair, form, mapping, system_prompt))
        except Unusable as error:
            reasons.append(error.reason)
    return Converted(made, reasons, repeated)


def _pairs(row: Row, mapping: Mapping[str, str]) -> tuple[list[Row], int]:
    sides = [mapping.get("chosen", ""), mapping.get("rejected", "")]
    cells = [_answers(row.get(side)) for side in sides]
    if not any(holds_several(cell) for cell in cells):
        return [row], 0
    apart: list[Any] = [
        [one for one in cell if one is not None] if holds_several(cell) else [cell]
        for cell in cells
    ]
    found = {
        json_text(pair, _PAIR): row | dict(zip(sides, pair, strict=True))
        for pair in product(*apart)
    }
    return list(found.values()), len(apart[0]) * len(apart[1]) - len(found)


def _answers(cell: Any) -> Any:
    """A cell, read where it is a list as Python writes it. One in JSON may be an answer itself."""
    return parsed(cell) if isinstance(cell, str) and is_python(cell) else cell


def holds_several(cell: Any) -> bool:
    """Whether a cell is a list of answers: of texts, or of whole conversations. Nulls among them
    are none."""
    if not isinstance(cell, list):
        return False
    said = [item for item in cell if item is not None]
    return bool(said) and (
        all(isinstance(item, str) for item in said) or all(isinstance(item, list) for item in said)
    )


def _text(fields: Fields, system_prompt: str, row: Row) -> Row:
    text = text_of(fields.required(row, "text"), _TEXT)
    if begins_as_turns(text) == "'":
        raise Unusable(
            _(
                "the text is a list of turns in Python's words{why}",
                why=why_not_read(text),
            )
        )
    return {"text": text}


def _prompt_completion(
    prompt_field: str, answer_field: str, fields: Fields, system_prompt: str, row: Row
) -> Row:
    prompt = asked(fields, row, prompt_field)
    completion = side_of(fields.required(row, answer_field), "assistant", _ANSWER)
    result = {
        "prompt": prompt_with(fields, row, prompt, system_prompt),
        "completion": completion,
    }
    if completion[-1]["role"] != "assistant":
        raise Unusable(
            _("the {what} ends with a turn of {role}", what=_ANSWER, role=completion[-1]["role"])
        )
    if len(prompt) + len(completion) > 2:
        check_order([*prompt, *completion])
    result["completion"] = _with_thought(fields, row, completion)
    return add_tools(result, fields, row)


def _with_thought(fields: Fields, row: Row, turns: list[Turn]) -> list[Turn]:
    """The turns with the thought of the row's own column before their last answer."""
    thought = fields.optional(row, THOUGHT) if THOUGHT in fields else None
    return turns if thought is None else with_thought(turns, thought)


UNASKED = "without_question"
"""The setting that keeps conversations in which nobody asks."""


def _messages(field: str, fields: Fields, system_prompt: str, row: Row) -> Row:
    messages = turns_of(fields.required(row, field))
    roles = [turn["role"] for turn in messages]
    if all(role == "system" for role in roles):
        raise Unusable(_("the conversation is empty"))
    if "assistant" not in roles:
        raise Unusable(_("no turn of the assistant, so there is nothing to learn"))
    if roles[-1] != "assistant":
        raise Unusable(_("the last turn is of {role}, not of the assistant", role=roles[-1]))
    if "user" not in roles and UNASKED not in fields.columns:
        raise Unusable(
            _("no turn of the user, so nothing is asked ({setting}=keep keeps it)", setting=UNASKED)
        )
    if "tool" in roles:
        check_order(messages)
    messages = _with_thought(fields, row, messages)
    weights = fields.optional(row, WEIGHTS) if WEIGHTS in fields else None
    if weights is not None:
        messages = with_weights(messages, weights)
    messages = with_system(messages, own_system(fields, row), system_prompt)
    return add_tools({"messages": messages}, fields, row)


def _prompt_only(fields: Fields, system_prompt: str, row: Row) -> Row:
    prompt = prompt_with(fields, row, asked(fields, row), system_prompt)
    if prompt[-1]["role"] not in ("user", "tool"):
        raise Unusable(
            _("the prompt ends with a turn of {role}, which asks nothing", role=prompt[-1]["role"])
        )
    check_order(prompt)
    result: Row = {"prompt": prompt}
    answer = fields.optional(row, "answer")
    if answer is not None:
        result["answer"] = text_of(written(answer), _REFERENCE)
    return add_tools(result, fields, row)


def asked(fields: Fields, row: Row, field: str = "prompt") -> list[Turn]:
    """The turns of the field that asks; the row's `input` stands at the end of the question."""
    value = fields.required(row, field)
    turns = side_of(value["messages"] if holds_messages(value) else value, "user", _ASKING[field])
    extra = fields.optional(row, "input") if "input" in fields else None
    if extra is None:
        return turns
    *before, last = turns
    if last["role"] != "user":
        raise Unusable(
            _("the prompt ends with a turn of {role}, so the input has no place", role=last["role"])
        )
    return [*before, {**last, "content": f"{last['content']}\n\n{text_of(extra, _INPUT)}"}]


def holds_messages(value: Any) -> bool:
    """Whether a value is {"messages": [...], "tools": [...]}, as OpenAI's preference format writes
    a prompt."""
    return isinstance(value, dict) and isinstance(value.get("messages"), list)


def prompt_with(fields: Fields, row: Row, turns: list[Turn], system_prompt: str) -> list[Turn]:
    """The prompt with the row's system text and history before it. Raises Unusable when nobody
    asks anything in it."""
    asks = turns[-1]["role"] == "user" or any(t["role"] in ("user", "tool") for t in turns)
    if not asks:
        raise Unusable(_("the prompt has no user turn"))
    if turns[-1]["role"] == "system":
        raise Unusable(_("the prompt ends with a turn of system, which asks nothing"))
    if "history" in fields:
        system, rest = split_system(turns)
        turns = [*system, *_history(fields.optional(row, "history")), *rest]
    return with_system(turns, own_system(fields, row), system_prompt)


def own_system(fields: Fields, row: Row) -> str:
    """The system text of the row's own column, or "". It may be in parts, as Gemini's is."""
    value = fields.optional(row, "system") if "system" in fields else None
    if isinstance(value, (dict, list)):
        value = content_of(words_of(value) if isinstance(value, dict) else value, "system", 1)[0]
    return "" if value is None else text_of(value, _SYSTEM)


def add_tools(result: Row, fields: Fields, row: Row) -> Row:
    """`result`, with the tools that the row offers."""
    offered = fields.optional(row, "tools") if "tools" in fields else _tools_beside(fields, row)
    tools = tools_of(offered) if offered is not None else ""
    if tools:
        result["tools"] = tools
    return result


def _tools_beside(fields: Fields, row: Row) -> Any:
    said: Any = row.get(fields.columns.get("prompt", ""))
    return (said.get("tools") or None) if holds_messages(said) else None


def _history(value: Any) -> list[Turn]:
    """Earlier turns: pairs of question and answer (Alpaca's), or turns."""
    value = parsed(value)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Unusable(
            _(
                "the history is {kind}, not a list{why}",
                kind=json_type(value),
                why=why_not_read(value),
            )
        )
    turns: list[Turn] = []
    for pair in value:
        if isinstance(pair, dict):
            turns += turns_of([pair])
        elif isinstance(pair, list) and len(pair) == 2:
            turns.append({"role": "user", "content": text_of(pair[0], _ASKED_BEFORE)})
            answer = text_of(pair[1], _SAID_BEFORE)
            turns.append({"role": "assistant", "content": answer})
        else:
            raise Unusable(_("the history is no list of question and answer pairs"))
    return turns


_JUDGEMENTS = {
    True: ("true", "1", "1.0", "+1", "good", "yes", "up", "thumbs_up", "thumbs up", "thumbsup")
    + ("👍", "like", "liked", "chosen", "desirable", "positive", "accepted", "helpful"),
    False: ("false", "0", "0.0", "-1", "-1.0", "bad", "no", "down", "thumbs_down", "thumbs down")
    + ("thumbsdown", "👎", "dislike", "disliked", "rejected", "undesirable", "negative")
    + ("unhelpful",),
}
JUDGEMENTS = {name: good for good, names in _JUDGEMENTS.items() for name in names}
_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_SPEAKERS = re.compile(r"(?:\A|\n\n)(Human|Assistant):")


def preference(fields: Fields, system_prompt: str, row: Row) -> Row:
    """{"prompt", "chosen", "rejected"}, with the prompt that the row names or both sides share."""
    sides = fields.required(row, "chosen"), fields.required(row, "rejected")
    columns = fields.columns
    if WINNER in fields:
        better = fields.required(row, WINNER)
        if winner_of(better, columns.get("chosen", ""), columns.get("rejected", "")):
            sides = sides[1], sides[0]
    if "prompt" in fields and columns.get("prompt") != columns.get("chosen", ""):
        whole = [
            side_of(side, "assistant", what)
            for side, what in zip(sides, (_CHOSEN, _REJECTED), strict=True)
        ]
        prompt = _with_their_system(asked(fields, row), whole)
        chosen, rejected = (without_prompt(side, prompt) for side in whole)
    else:
        prompt, chosen, rejected = _shared_beginning(*sides)
    if _said(chosen) == _said(rejected):
        raise Unusable(_("the chosen and the rejected answer are the same"))
    for turns, what in ((chosen, _CHOSEN), (rejected, _REJECTED)):
        if turns[-1]["role"] != "assistant":
            raise Unusable(
                _("the {what} ends with a turn of {role}", what=what, role=turns[-1]["role"])
            )
        check_order([*prompt, *turns])
    result = {
        "prompt": prompt_with(fields, row, prompt, system_prompt),
        "chosen": chosen,
        "rejected": rejected,
    }
    return add_tools(result, fields, row)


_TIES = {"tie", "tied", "ties", "both", "equal", "same", "draw", "neither", "none", "bothbad"}
_PLACES = {"first": 0, "second": 1}
RIVAL_END = r"_?([a-d]|\d|[jk]|left|right)"
"""What the names of columns with rival answers end with."""


class Tie(Unusable):
    """Of two answers neither is called the better one."""


def winner_of(value: Any, first: str, second: str) -> int:
    """0 or 1: which of two columns a cell names as the better, by their names or what those end
    with. Raises Tie for one, and Unusable for what names neither."""
    if value is None or value != value or value == "":
        raise Unusable(_("the winner is missing"))
    said = plain_name(re.sub(r"^(\d+)\.0$", r"\1", str(value).strip()))
    words = said.split("_")
    if words[0] in _TIES or words[-1] in _TIES:
        raise Tie(_("neither answer is called the better one ({winner})", winner=said[:40]))
    ends = [re.search(f"{RIVAL_END}$", plain_name(name)) for name in (first, second)]
    named = [
        said == plain_name(name) or (end is not None and words[-1] == end[1])
        for name, end in zip((first, second), ends, strict=True)
    ]
    if isinstance(value, bool) or (sum(named) != 1 and said not in _PLACES):
        raise Unusable(
            _(
                "the winner {winner!r} names neither {first} nor {second}",
                winner=str(value)[:40],
                first=first,
                second=second,
            )
        )
    return _PLACES[said] if sum(named) != 1 else named.index(True)


def plain_name(name: str) -> str:
    """A name in small letters, its words joined by a low line."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[\W_]+", "_", parted).strip("_").lower()


def unpaired_preference(fields: Fields, system_prompt: str, row: Row) -> Row:
    """{"prompt", "completion", "label"}: an answer and whether it is good."""
    label = judgement(fields.required(row, "label"))
    completion = side_of(_dialogue(fields.required(row, "completion")), "assistant", _ANSWER)
    if "prompt" in fields:
        prompt = _with_their_system(asked(fields, row), [completion])
        completion = without_prompt(completion, prompt)
    else:
        asking = [i for i, turn in enumerate(completion) if turn["role"] == "user"]
        if not asking:
            raise Unusable(_("there is no prompt before the answer"))
        prompt, completion = completion[: asking[-1] + 1], completion[asking[-1] + 1 :]
    if not completion:
        raise Unusable(_("the conversation ends with the question, there is no answer to judge"))
    if completion[-1]["role"] != "assistant":
        raise Unusable(
            _("the {what} ends with a turn of {role}", what=_ANSWER, role=completion[-1]["role"])
        )
    check_order([*prompt, *completion])
    result = {
        "prompt": prompt_with(fields, row, prompt, system_prompt),
        "completion": completion,
        "label": label,
    }
    return add_tools(result, fields, row)


def judgement(value: Any) -> bool:
    """Whether a mark says good. Raises Unusable for one that is not known."""
    if isinstance(value, bool):
        return value
    if value is None or value != value or value == "":
        raise Unusable(_("the label is missing"))
    if not isinstance(value, (str, int, float)):
        raise Unusable(_("the label is {kind}, neither good nor bad", kind=json_type(value)))
    known = JUDGEMENTS.get(value.strip().lower()) if isinstance(value, str) else _number(value)
    if known is None:
        if not isinstance(value, str):
            raise Unusable(_("the label is a number that is not 1, 0 or -1"))
        raise Unusable(
            _("the label is {label!r}, which is not known as good or bad", label=value[:80])
        )
    return known


def _number(value: float) -> bool | None:
    return {1: True, 0: False, -1: False}.get(int(value)) if value in (1, 0, -1) else None


def without_prompt(side: list[Turn], prompt: list[Turn]) -> list[Turn]:
    """An answer that repeats the whole prompt before it, without that. Raises Unusable when the
    answer begins with a question of its own: nobody says which of the two was answered."""
    before, given = _said(split_system(prompt)[1]), split_system(side)[1]
    if before and _said(given[: len(before)]) == before:
        given = given[len(before) :]
        if not given:
            raise Unusable(_("the answer only repeats the prompt"))
    if not given:
        raise Unusable(_("the answer is empty"))
    if given[0]["role"] == "user":
        raise Unusable(_("the answer begins with a turn of user that is not the prompt"))
    return given


def _with_their_system(prompt: list[Turn], sides: list[list[Turn]]) -> list[Turn]:
    """The prompt, with the system turn of the answers where it has none itself."""
    systems = [split_system(side)[0] for side in sides]
    return prompt if split_system(prompt)[0] else [*systems[0], *prompt]


def _shared_beginning(chosen: Any, rejected: Any) -> tuple[list[Turn], list[Turn], list[Turn]]:
    """Prompt, chosen and rejected of two whole conversations, or of one and another last answer
    to it."""
    left = side_of(_dialogue(chosen), "assistant", _CHOSEN)
    right = side_of(_dialogue(rejected), "assistant", _REJECTED)
    if _asks(left) != _asks(right):
        talk, other = (left, right) if _asks(left) else (right, left)
        answers = (talk[-1:], other) if talk is left else (other, talk[-1:])
        return talk[:-1], *answers
    shared = 0
    while shared < min(len(left), len(right)) and left[shared] == right[shared]:
        shared += 1
    if shared == len(left) == len(right):
        raise Unusable(_("the chosen and the rejected answer are the same"))
    if shared == 0:
        raise Unusable(
            _("there is no prompt: the chosen and the rejected conversation begin differently")
        )
    if shared in (len(left), len(right)):
        raise Unusable(_("one of the two conversations is only the beginning of the other"))
    return left[:shared], left[shared:], right[shared:]


def _asks(turns: list[Turn]) -> bool:
    return any(turn["role"] == "user" for turn in turns)


def _dialogue(value: Any) -> Any:
    """A conversation in one text, marked as Anthropic's data sets mark it, as turns."""
    if not isinstance(value, str) or _HUMAN not in f"\n\n{value}" or _ASSISTANT not in value:
        return value
    pieces = _SPEAKERS.split(value.strip())
    if pieces[0].strip():
        return value
    speakers = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": speakers[name], "content": words.strip()}
        for name, words in zip(pieces[1::2], pieces[2::2], strict=True)
    ]


def _said(turns: list[Turn]) -> list[tuple[str, str, str]]:
    return [(t["role"], t["content"].strip(), t.get("tool_calls", "")) for t in turns]


SEPARATORS = ("|", ";", ",")
"""What may stand between several labels in one text, when a person says that it does."""


def labelled_text(fields: Fields, system_prompt: str, row: Row) -> Row:
    """{"text", "labels"}. `system_prompt` has no place here.

    The field `separator` is a sign and `label_names` a list of names, no columns: with names, the
    cell holds a 0 or a 1 for each of them, or the columns of its template do. An empty list says
    that no label applies.
    """
    text = text_of(fields.required(row, "text"), _TEXT)
    names = fields.columns.get("label_names", "")
    if names:
        return {"text": text, "labels": _marked(fields.cells(row, "label"), names_of(names))}
    return {
        "text": text,
        "labels": labels_of(fields.required(row, "label"), fields.columns.get("separator", "")),
    }


@lru_cache(maxsize=64)
def names_of(text: str) -> tuple[str, ...]:
    """The names in a text, separated by commas or as a list in JSON."""
    found = parsed(text)
    names = found if isinstance(found, list) else text.split(",")
    return tuple(str(name).strip() for name in names)


def written_names(names: Sequence[str]) -> str:
    """Names as `names_of` reads them."""
    text = ", ".join(names)
    return text if names_of(text) == tuple(names) else json_text(list(names), "names")


_MARKS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


def mark_of(value: Any) -> bool | None:
    """Whether a mark in a list of them says yes; None for what is no mark."""
    if isinstance(value, str):
        return _MARKS.get(value.strip().lower())
    return bool(value) if isinstance(value, (int, float)) and value in (0, 1) else None


_MARKS_IN_TEXT = re.compile(r"\s*[01](?:(?:\s*[,;|]\s*|\s+)[01])+\s*")


def marks_in(value: Any) -> Any:
    """A cell with a list of marks, also in text as `0 1 0`; any other as it is parsed."""
    if isinstance(value, str) and _MARKS_IN_TEXT.fullmatch(value):
        return re.findall("[01]", value)
    return parsed(value)


def marks_by_name(value: Any) -> dict[str, Any]:
    """The marks of a cell that has one for each of several names, such as {"toxic": 1, "rude": 0},
    but for those that are null; empty for any other."""
    read = parsed(value) if isinstance(value, str) and value.lstrip()[:1] == "{" else value
    if not isinstance(read, dict) or len(read) < 2:
        return {}
    marks = {name: mark for name, mark in read.items() if mark is not None}
    known = all(mark_of(mark) is not None or is_fraction(mark) for mark in marks.values())
    return marks if known else {}


def is_fraction(value: Any) -> bool:
    """Whether a label is a share between 0 and 1, also in text."""
    if isinstance(value, str) and re.fullmatch(r"\s*0?\.\d+\s*", value):
        value = float(value)
    return isinstance(value, float) and 0 < value < 1


def _marked(value: Any, names: Sequence[str]) -> list[str]:
    """The names whose places are marked."""
    marks = marks_in(value)
    if marks is None or marks == "":
        raise Unusable(_("the label is missing"))
    if not isinstance(marks, list):
        raise Unusable(_("the label is {kind}, not a list of 0 and 1", kind=json_type(marks)))
    if len(marks) != len(names):
        raise Unusable(
            _(
                "the label is a list of {marks}, for {names} names of labels",
                marks=len(marks),
                names=len(names),
            )
        )
    said = [mark_of(mark) for mark in marks]
    if None in said:
        raise Unusable(_("the label {name} is neither 0 nor 1", name=names[said.index(None)]))
    return [name for name, yes in zip(names, said, strict=True) if yes]


def labels_of(value: Any, separator: str = "") -> list[str]:
    """The labels in a cell: a list (also as text of JSON or Python), one label, several in one
    text, or a mark for each of their names.

    Raises Unusable for a missing label and for what is none.
    """
    if type(value) is str and not separator and value[:1].isalpha() and "(" not in value:
        return [_label(value)]  # nearly all are one name
    if isinstance(value, str) and (value.lstrip()[:1] == "[" or is_python(value)):
        value = parsed(value)
        if isinstance(value, str) and begins_as_texts(value):
            why = why_not_read(value) or _("; it looks like a list that was written as text")
            raise Unusable(_("the label is no list of labels{why}", why=why))
    by_name = marks_by_name(value)
    if by_name:
        _refuse_fractions(by_name.values())
        return [_label(name) for name, mark in by_name.items() if mark_of(mark)]
    if not separator and isinstance(value, str) and _MARKS_IN_TEXT.fullmatch(value):
        marks = marks_in(value)
        value = marks if len(marks) > len(set(marks)) else value
    if isinstance(value, (list, tuple)):
        _refuse_fractions(value)
        labels = list(dict.fromkeys(_label(item) for item in value))
        if len(labels) < len(value) and set(labels) <= {"-1", "0", "1", "true", "false"}:
            raise Unusable(
                _(
                    "the label is a list of {marks} marks without names: all rows need as many of "
                    "0 and 1, and label_names says what their places mean",
                    marks=len(value),
                )
            )
        return labels
    if separator and isinstance(value, str):
        parts = [part for part in value.split(separator) if part.strip()]
        if not parts:
            raise Unusable(_("the label is empty"))
        return list(dict.fromkeys(_label(part) for part in parts))
    _refuse_fractions([value])
    return [_label(value)]


def _refuse_fractions(marks: Iterable[Any]) -> None:
    soft = next((mark for mark in marks if is_fraction(mark)), None)
    if soft is not None:
        raise Unusable(
            _(
                "the label holds a share ({share}): soft labels are not learned, each label "
                "applies or it does not",
                share=str(soft)[:20],
            )
        )


def _label(value: Any) -> str:
    if isinstance(value, bool):
        return written(value)
    if isinstance(value, (list, dict)):
        raise Unusable(_("a label is {kind}, not a name or a number", kind=json_type(value)))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return text_of(value, _LABEL).strip()


_CONVERSIONS: dict[str, Callable[..., Row]] = {
    "text": _text,
    "prompt-completion": partial(_prompt_completion, "prompt", "completion"),
    "instruction": partial(_prompt_completion, "instruction", "output"),
    "messages": partial(_messages, "messages"),
    "sharegpt": partial(_messages, "conversations"),
    "preference": preference,
    "unpaired-preference": unpaired_preference,
    "prompt-only": _prompt_only,
    "labelled-text": labelled_text,
}
