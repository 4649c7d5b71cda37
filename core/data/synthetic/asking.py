"""What a model is asked, in words; one request shows it one or several rows of the data set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from core.data.read.row import Row
from core.data.synthetic.draft_rows import plain_row, split_answer
from core.data.synthetic.settings import DraftSettings
from core.data.values import Unusable
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
        raise Unusable("the example row calls tools; only text can be answered")
    if not any(turn["role"] in ("user", "tool") for turn in prompt):
        raise Unusable("the example row has no prompt before its answer")
    turns = list(prompt)
    judged = settings.kind == "preference_pairs" and settings.source == "endpoint"
    if judged:
        turns = _judged(settings.instruction, turns, own)
    elif settings.instruction.strip():
        turns = _with_instruction(turns, settings.instruction)
    if settings.kind == "preference_pairs" and not judged and not own:
        raise Unusable("the example row has no answer of its own to be the better one")
    expects: Expected = "judged" if judged else "answer"
    if settings.kind == "preference_pairs" and not judged:
        expects = "rejected"
    return Ask(
        number,
        tuple(seeds[:1]),
        tuple(turns),
        expects,
        1,
        tuple(prompt),
        tuple(own or ()),
    )


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
        raise Unusable(f"the example row has more than {_MOST_EXAMPLE_CHARS} characters")
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


def _judged(
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
