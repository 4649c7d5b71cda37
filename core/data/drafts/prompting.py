"""What a model is asked, in words, and its reply as rows. One request shows it one or several rows
of the data set; reading is robust against what stands around the rows, and strict about what they
say."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from core.data.drafts.rows import plain_row, required_columns, row_of, split_answer
from core.data.drafts.settings import DraftSettings
from core.data.read.row import Row
from core.data.values import Unusable
from core.language import N_, Text, _
from core.remote.endpoint import Message

Expected = Literal["rows", "answer", "rejected", "judged"]

_MOST_EXAMPLE_CHARS = 48_000
_MOST_LABELS = 200

_SHAPES = {
    "text": 'an object {"text": "..."}',
    "prompt-completion": 'an object {"prompt": "...", "completion": "..."}. A prompt of several '
    'turns is a list of {"role": "system", "user" or "assistant", "content": "..."}',
    "messages": 'an object {"messages": [{"role": "user", "content": "..."}, '
    '{"role": "assistant", "content": "..."}]}. The roles are system, user, assistant and tool; '
    "the last turn is of the assistant",
    "preference": 'an object {"prompt": "...", "chosen": "...", "rejected": "..."}: a good answer '
    "to the prompt and a worse one",
    "unpaired-preference": 'an object {"prompt": "...", "completion": "...", "label": true or '
    "false}: whether the answer is a good one",
    "prompt-only": 'an object {"prompt": "...", "answer": "..."}; answer is the correct result, '
    "and is left out where the examples have none",
    "labelled-text": 'an object {"text": "...", "labels": ["..."]}',
}
_ROWS_SYSTEM = (
    "You write rows for a data set that a language model learns from. Reply with a JSON array of "
    "objects and with nothing else: no explanation, no Markdown."
)
_MORE = (
    "Write {count} new rows of the same kind. Vary topic, wording and length. Repeat none of the "
    "rows above, and state nothing as a fact that you do not know to be true."
)
_REWORD = (
    "Write each of these {count} rows in other words: one new row for each, in the same order. "
    "Keep the meaning, the language, names, numbers, code and labels."
)
_JUDGE = (
    "Below are a prompt and answer A. Write answer B: your own to the same prompt. Then judge "
    "which of the two is better: more correct first, then more helpful, then clearer. Reply with "
    'one JSON object and nothing else: {"answer_b": "...", "better": "A" or "B", "why": "one '
    'sentence"}.'
)
_WRITE_TWO = (
    "Below is a prompt. Write two answers to it, A and B, one of them clearly better. Reply with "
    'one JSON object and nothing else: {"answer_a": "...", "answer_b": "...", "better": "A" or '
    '"B", "why": "one sentence"}.'
)


@dataclass(frozen=True)
class Ask:
    """A request. `seeds` are the indices of the rows it shows, `prompt` the turns that an answer
    is written for, `own` the row's own answer, `wanted` how many rows should come of it."""

    number: int
    seeds: tuple[int, ...]
    messages: tuple[Message, ...]
    expects: Expected
    wanted: int
    prompt: tuple[Message, ...] = ()
    own: tuple[Message, ...] = ()

    @property
    def chars(self) -> int:
        return sum(len(str(message["content"])) for message in self.messages)


def word_request(
    settings: DraftSettings,
    form: str,
    labels: Sequence[str],
    number: int,
    seeds: Sequence[int],
    rows: Sequence[Row],
    wanted: int,
) -> Ask:
    """The request that shows `rows`, which have the indices `seeds` in the data set of `form`.

    Raises Unusable when nothing can be asked with these rows.
    """
    if settings.kind in ("more_like", "paraphrase"):
        return _for_rows(settings, form, labels, number, seeds, rows, wanted)
    prompt, own = split_answer(rows[0])
    if "tools" in rows[0] or any("tool_calls" in turn for turn in prompt):
        raise Unusable(_("the example row calls tools; only text can be answered"))
    if not any(turn["role"] in ("user", "tool") for turn in prompt):
        raise Unusable(_("the example row has no prompt before its answer"))
    turns = list(prompt)
    judged = settings.kind == "preference_pairs" and settings.source == "endpoint"
    if judged:
        turns = _asked_to_judge(settings.instruction, turns, own)
    elif settings.instruction.strip():
        turns = _with_instruction(turns, settings.instruction)
    if settings.kind == "preference_pairs" and not judged and not own:
        raise Unusable(_("the example row has no answer of its own to be the better one"))
    expects: Expected = "judged" if judged else "answer"
    if settings.kind == "preference_pairs" and not judged:
        expects = "rejected"
    return Ask(
        number,
        tuple(seeds[:1]),
        tuple(_as_asked(turn) for turn in turns),
        expects,
        1,
        tuple(prompt),
        tuple(own or ()),
    )


def _as_asked(turn: Message) -> Message:
    """A turn as an endpoint takes it: without what only a training reads."""
    return {k: said for k, said in turn.items() if k not in ("weight", "reasoning_content")}


def _for_rows(
    settings: DraftSettings,
    form: str,
    labels: Sequence[str],
    number: int,
    seeds: Sequence[int],
    rows: Sequence[Row],
    wanted: int,
) -> Ask:
    shown: list[str] = []
    for row in rows:
        text = json.dumps(plain_row(row), ensure_ascii=False)
        if sum(map(len, shown)) + len(text) > _MOST_EXAMPLE_CHARS:
            break
        shown.append(text)
    if not shown:
        raise Unusable(
            _(
                "the example row has more than {characters:,} characters",
                characters=_MOST_EXAMPLE_CHARS,
            )
        )
    task, count = _MORE, wanted
    if settings.kind == "paraphrase":
        task, count = _REWORD, len(shown)
    parts = [f"Each row is {_SHAPES[form]}."]
    if form == "labelled-text" and labels:
        parts.append(f"Use only these labels: {_named(labels)}.")
    parts += ["These are rows of the data set:", "\n".join(shown), task.format(count=count)]
    if settings.instruction.strip():
        parts.append(settings.instruction.strip())
    messages = (
        {"role": "system", "content": _ROWS_SYSTEM},
        {"role": "user", "content": "\n\n".join(parts)},
    )
    return Ask(number, tuple(seeds[: len(shown)]), messages, "rows", count)


def _asked_to_judge(
    instruction: str, prompt: Sequence[Message], own: Sequence[Message] | None
) -> list[Message]:
    task = _JUDGE if own else _WRITE_TWO
    if instruction.strip():
        task += f"\n\n{instruction.strip()}"
    shown = {"prompt": plain_row({"prompt": list(prompt)})["prompt"]}
    if own:
        shown["answer_a"] = "\n\n".join(str(turn["content"]) for turn in own)
    return [
        {"role": "system", "content": task},
        {"role": "user", "content": json.dumps(shown, ensure_ascii=False)},
    ]


def _with_instruction(turns: list[Message], instruction: str) -> list[Message]:
    """The instruction joins the system turn, or becomes one."""
    text = instruction.strip()
    if turns[0]["role"] == "system":
        return [{"role": "system", "content": f"{turns[0]['content']}\n\n{text}"}, *turns[1:]]
    return [{"role": "system", "content": text}, *turns]


def _named(labels: Sequence[str]) -> str:
    return ", ".join(json.dumps(label, ensure_ascii=False) for label in labels[:_MOST_LABELS])


CUT = N_("the reply was cut at its longest length")
NO_JSON = N_("the reply holds no JSON rows")
EMPTY = N_("the reply is empty")

_THOUGHT = re.compile(r"\s*<think(?:ing)?>.*?(</think(?:ing)?>|\Z)", re.DOTALL)
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_NUMBERED = re.compile(r"\b\d+\b")
_MOST_CHARS = 2_000_000
# Each failed attempt reads from its brace to where it fails: a reply of braces alone ends here.
_MOST_ATTEMPTS = 2000
_DECODER = json.JSONDecoder()


@dataclass
class Reading:
    """The rows of a reply, and how many things in it were no rows, by their reason."""

    rows: list[Row] = field(default_factory=list)
    problems: Counter[str] = field(default_factory=Counter)


def read_reply(text: str, ask: Ask, form: str, labels: Sequence[str], *, cut: bool) -> Reading:
    """What a reply gives. `form` is that of the drafts; `cut` says that it ended at its longest
    length. Never raises for what a model wrote."""
    said = without_thoughts(text[:_MOST_CHARS])
    if not said.strip():
        return Reading(problems=Counter([CUT if cut else EMPTY]))
    if ask.expects == "rows":
        return _rows(said, form, labels, cut)
    reading = Reading()
    try:
        if ask.expects == "judged":
            reading.rows.append(_judged(said, ask, cut))
        elif cut and ask.expects == "answer":
            reading.problems[CUT] += 1  # half an answer teaches to stop in the middle
        else:
            reading.rows.append(_answered(said.strip(), ask, form))
    except Unusable as error:
        reading.problems[_kind(error.args[0])] += 1
    return reading


def without_thoughts(text: str) -> str:
    """The reply of a reasoning model without its thoughts; they may be all there is of it."""
    return _THOUGHT.sub("", text, count=1) if _THOUGHT.match(text) else text


def json_values(text: str) -> tuple[list[Any], bool]:
    """(every outermost JSON array and object in a text, whether one of them was not whole).

    Where an array is cut, the objects in it that are whole are found on their own.
    """
    found: list[Any] = []
    broken = False
    place = attempts = 0
    while attempts < _MOST_ATTEMPTS:
        next_one = re.compile(r"[\[{]").search(text, place)
        if next_one is None:
            break
        try:
            value, place = _DECODER.raw_decode(text, next_one.start())
            found.append(value)
        except (ValueError, RecursionError):
            broken = True
            attempts += 1
            place = next_one.start() + 1
    return found, broken


def _rows(text: str, form: str, labels: Sequence[str], cut: bool) -> Reading:
    reading = Reading()
    values, broken = json_values(text)
    needed = required_columns(form) - {"labels"}
    for item in _items(values, needed):
        # Inside something broken, its parts are found too: those are no rows and no news.
        if broken and not (isinstance(item, dict) and needed <= set(item)):
            continue
        try:
            reading.rows.append(row_of(item, form, labels))
        except Unusable as error:
            reading.problems[_kind(error.args[0])] += 1
    if cut and broken:
        reading.problems[CUT] += 1
    elif not reading.rows and not reading.problems:
        reading.problems[CUT if cut else NO_JSON] += 1
    return reading


def _items(values: list[Any], needed: frozenset[str]) -> list[Any]:
    """The rows in what was found: lists are opened, and so is an object that only wraps a list."""
    items: list[Any] = []
    for value in values:
        if isinstance(value, dict) and not needed & set(value):
            lists = [inner for inner in value.values() if isinstance(inner, list)]
            value = lists[0] if len(lists) == 1 else value
        items += value if isinstance(value, list) else [value]
    return items


def _answered(text: str, ask: Ask, form: str) -> Row:
    answer = [{"role": "assistant", "content": text}]
    prompt = list(ask.prompt)
    if ask.expects == "rejected":
        row = {"prompt": prompt, "chosen": list(ask.own), "rejected": answer}
    elif form == "messages":
        row = {"messages": [*prompt, *answer]}
    else:
        row = {"prompt": prompt, "completion": answer}
    return row_of(row, form)


def _judged(text: str, ask: Ask, cut: bool) -> Row:
    values, _broken = json_values(text)
    verdict = next((v for v in values if isinstance(v, dict) and "better" in v), None)
    if verdict is None:
        raise Unusable(CUT if cut else _("the reply holds no verdict"))
    own = "\n\n".join(str(turn["content"]) for turn in ask.own)
    first = list(ask.own) if own else verdict.get("answer_a")
    second = verdict.get("answer_b")
    better = str(verdict["better"]).strip().upper()[:1]
    if better not in ("A", "B"):
        raise Unusable(_("the verdict names neither answer A nor B"))
    if better == "B":
        first, second = second, first
    row = {"prompt": list(ask.prompt), "chosen": first, "rejected": second}
    return row_of(row, "preference")


def _kind(problem: Any) -> str:
    """A problem without the numbers and values that make each one different."""
    if isinstance(problem, Text):
        values = {name: _kind(value) for name, value in problem.values.items()}
        return Text(problem.template, problem.many, problem.n, values, None)
    return _NUMBERED.sub("N", _QUOTED.sub("...", str(problem)))
