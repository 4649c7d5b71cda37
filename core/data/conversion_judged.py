"""Answers that were compared or judged: preference pairs, and answers with a good or bad mark.

A source may name the prompt apart or leave it in the answers: whole conversations, of which the
part that both sides share (preference) or all up to the last question (unpaired) is the prompt.
"""

from __future__ import annotations

import re
from typing import Any

from core.data.conversion_prompt import add_tools, asked, prompt_with
from core.data.conversion_turns import Turn, check_order, side_of, split_system
from core.data.conversion_values import Fields, Unusable
from core.data.readers import Row, json_type

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
    if "prompt" in fields:
        whole = [
            side_of(side, "assistant", f"{name} answer")
            for side, name in zip(sides, ("chosen", "rejected"), strict=True)
        ]
        prompt = _with_their_system(asked(fields, row), whole)
        chosen, rejected = (without_prompt(side, prompt) for side in whole)
    else:
        prompt, chosen, rejected = _shared_beginning(*sides)
    if _said(chosen) == _said(rejected):
        raise Unusable("the chosen and the rejected answer are the same")
    for turns, name in ((chosen, "chosen"), (rejected, "rejected")):
        if turns[-1]["role"] != "assistant":
            raise Unusable(f"the {name} answer ends with a turn of {turns[-1]['role']}")
        check_order([*prompt, *turns])
    result = {
        "prompt": prompt_with(fields, row, prompt, system_prompt),
        "chosen": chosen,
        "rejected": rejected,
    }
    return add_tools(result, fields, row)


def unpaired_preference(fields: Fields, system_prompt: str, row: Row) -> Row:
    """{"prompt", "completion", "label"}: an answer and whether it is good."""
    label = judgement(fields.required(row, "label"))
    completion = side_of(_dialogue(fields.required(row, "completion")), "assistant", "answer")
    if "prompt" in fields:
        prompt = _with_their_system(asked(fields, row), [completion])
        completion = without_prompt(completion, prompt)
    else:
        asking = [i for i, turn in enumerate(completion) if turn["role"] == "user"]
        if not asking:
            raise Unusable("there is no prompt before the answer")
        prompt, completion = completion[: asking[-1] + 1], completion[asking[-1] + 1 :]
    if not completion:
        raise Unusable("the conversation ends with the question, there is no answer to judge")
    if completion[-1]["role"] != "assistant":
        raise Unusable(f"the answer ends with a turn of {completion[-1]['role']}")
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
        raise Unusable("the label is missing")
    if not isinstance(value, (str, int, float)):
        raise Unusable(f"the label is {json_type(value)}, neither good nor bad")
    known = JUDGEMENTS.get(value.strip().lower()) if isinstance(value, str) else _number(value)
    if known is None:
        shown = value[:80] if isinstance(value, str) else "a number that is not 1, 0 or -1"
        raise Unusable(f"the label is {shown!r}, which is not known as good or bad")
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
            raise Unusable("the answer only repeats the prompt")
    if not given:
        raise Unusable("the answer is empty")
    if given[0]["role"] == "user":
        raise Unusable("the answer begins with a turn of user that is not the prompt")
    return given


def _with_their_system(prompt: list[Turn], sides: list[list[Turn]]) -> list[Turn]:
    """The prompt, with the system turn of the answers where it has none itself."""
    systems = [split_system(side)[0] for side in sides]
    return prompt if split_system(prompt)[0] else [*systems[0], *prompt]


def _shared_beginning(chosen: Any, rejected: Any) -> tuple[list[Turn], list[Turn], list[Turn]]:
    """Prompt, chosen and rejected of two whole conversations."""
    left = side_of(_dialogue(chosen), "assistant", "chosen answer")
    right = side_of(_dialogue(rejected), "assistant", "rejected answer")
    shared = 0
    while shared < min(len(left), len(right)) and left[shared] == right[shared]:
        shared += 1
    if shared == len(left) == len(right):
        raise Unusable("the chosen and the rejected answer are the same")
    if shared == 0:
        raise Unusable(
            "there is no prompt: the chosen and the rejected conversation begin differently"
        )
    if shared in (len(left), len(right)):
        raise Unusable("one of the two conversations is only the beginning of the other")
    return left[:shared], left[shared:], right[shared:]


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
