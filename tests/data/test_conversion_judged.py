"""Preference pairs and judged answers: a wrong split teaches the model the prompt, or nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.data.conversion import convert
from core.data.values import Unusable

PAIR = {"prompt": "p", "chosen": "c", "rejected": "r", "input": "i", "system": "s"}
PAIR |= {"history": "h", "tools": "t"}
WHOLE = {"chosen": "c", "rejected": "r"}
JUDGED = {"completion": "a", "label": "l", "prompt": "p"}
TALK = {"completion": "m", "label": "l"}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def pair(mapping: dict[str, str] = PAIR, **row: Any) -> dict[str, Any]:
    return convert(row, "preference", mapping)


def judged(mapping: dict[str, str] = JUDGED, **row: Any) -> dict[str, Any]:
    return convert(row, "unpaired-preference", mapping)


BASIC = {"prompt": [user("q")], "chosen": [assistant("yes")], "rejected": [assistant("no")]}


def test_texts_become_a_pair() -> None:
    assert pair(p="q", c="yes", r="no") == BASIC


def test_turns_become_a_pair() -> None:
    shared = [{"from": "human", "value": "q"}]
    gpt = {"from": "gpt", "value": "yes"}
    assert pair(p=shared, c=gpt, r=[assistant("no")]) == BASIC
    assert pair(p=json.dumps(shared), c=json.dumps([gpt]), r="no") == BASIC


def test_all_that_goes_before_a_question_is_the_prompt() -> None:
    tool = {"type": "function", "function": {"name": "find"}}
    result = pair(p="q", i="1 2", s="S", h=[["Hi", "Yo"]], t=[{"name": "find"}], c="yes", r="no")
    assert result["prompt"] == [system("S"), user("Hi"), assistant("Yo"), user("q\n\n1 2")]
    assert json.loads(result["tools"]) == [tool]
    row = {"p": "q", "c": "yes", "r": "no"}
    with_own = convert(row, "preference", PAIR, "Own.")
    assert with_own["prompt"] == [system("Own."), user("q")]


def test_answers_that_repeat_the_prompt_lose_it() -> None:
    """UltraFeedback has the prompt as text and again in both conversations."""
    whole = [user("q"), assistant("yes")], [user("q"), assistant("no")]
    assert pair(p="q", c=whole[0], r=whole[1]) == BASIC
    assert pair(p="q\n", c=whole[0], r=whole[1]) == BASIC | {"prompt": [user("q\n")]}
    with_system = [[system("S"), *turns] for turns in whole]
    result = pair(p="q", c=with_system[0], r=with_system[1])
    assert result == BASIC | {"prompt": [system("S"), user("q")]}


def test_what_both_conversations_share_is_the_prompt() -> None:
    start = [system("S"), user("q"), assistant("a"), user("q2")]
    result = pair(WHOLE, c=[*start, assistant("yes")], r=[*start, assistant("no")])
    assert result == BASIC | {"prompt": start}


def test_conversations_written_in_one_text_are_taken_apart() -> None:
    start = "\n\nHuman: q\n\nAssistant: a\n\nHuman: What\n\nelse?\n\nAssistant: "
    result = pair(WHOLE, c=start + "yes", r=start + "no")
    assert result == BASIC | {"prompt": [user("q"), assistant("a"), user("What\n\nelse?")]}


@pytest.mark.parametrize(
    ("mapping", "row", "reason"),
    [
        (PAIR, {"p": "q", "c": "a", "r": " a\n"}, "are the same"),
        (PAIR, {"p": "q", "c": "a", "r": ""}, "the rejected answer is empty"),
        (PAIR, {"p": "q", "c": None, "r": "b"}, "the chosen answer is missing"),
        (PAIR, {"p": "q", "r": "b"}, "the column c is missing"),
        (PAIR, {"p": "", "c": "a", "r": "b"}, "the prompt is empty"),
        (PAIR, {"p": [assistant("x")], "c": "a", "r": "b"}, "the prompt has no user turn"),
        (PAIR, {"p": "q", "c": [assistant("a"), user("x")], "r": "b"}, "chosen answer ends with"),
        (PAIR, {"p": "q", "c": [system("a")], "r": "b"}, "the answer is empty"),
        (PAIR, {"p": "q", "c": [user("q")], "r": "b"}, "only repeats the prompt"),
        (PAIR, {"p": "q", "c": "a", "r": [user("x"), assistant("b")]}, "that is not the prompt"),
        (PAIR, {"p": "q", "c": "a", "r": "b", "t": "find"}, "the tools are text"),
        (WHOLE, {"c": "a", "r": "b"}, "there is no prompt"),
        (WHOLE, {"c": [user("q"), assistant("a")], "r": [user("q")]}, "only the beginning"),
        (WHOLE, {"c": [user("q"), assistant("a")]} | {"r": [user("q"), assistant("a")]}, "same"),
        (WHOLE, {"c": [user("q"), assistant("a")], "r": [user("x"), assistant("b")]}, "differen"),
    ],
)
def test_a_pair_that_teaches_nothing_has_its_reason(
    mapping: dict[str, str], row: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Unusable, match=reason):
        pair(mapping, **row)


@pytest.mark.parametrize(
    ("label", "good"),
    [
        *[(True, True), (1, True), (1.0, True), ("True", True), ("1", True), (" Good ", True)],
        *[("👍", True), ("thumbs_up", True), ("desirable", True), (False, False), (0, False)],
        *[(-1, False), ("false", False), ("0", False), ("bad", False), ("👎", False)],
    ],
)
def test_every_spelling_of_a_judgement_is_known(label: Any, good: bool) -> None:
    """One that was read the wrong way round would train towards the bad answers."""
    expected = {"prompt": [user("q")], "completion": [assistant("a")], "label": good}
    assert judged(p="q", a="a", l=label) == expected


def test_the_last_answer_of_a_judged_conversation_is_the_completion() -> None:
    turns = [system("S"), user("q"), assistant("a"), user("q2"), assistant("a2")]
    expected = {"prompt": turns[:4], "completion": turns[4:], "label": True}
    assert judged(TALK, m=turns, l=True) == expected
    assert (
        judged(TALK | {"prompt": "p"}, m=turns[1:], l=True, p=turns[1:4])["completion"]
        == (turns[4:])
    )


def test_a_judged_answer_may_call_tools_before_it_speaks() -> None:
    called = {"role": "assistant", "tool_calls": [{"function": {"name": "find"}}]}
    turns = [user("q"), called, {"role": "tool", "content": "2"}, assistant("a")]
    result = judged(TALK, m=turns, l=False)
    assert [turn["role"] for turn in result["completion"]] == ["assistant", "tool", "assistant"]


@pytest.mark.parametrize(
    ("mapping", "row", "reason"),
    [
        (JUDGED, {"p": "q", "a": "a", "l": None}, "the label is missing"),
        (JUDGED, {"p": "q", "a": "a", "l": float("nan")}, "the label is missing"),
        (JUDGED, {"p": "q", "a": "a", "l": "maybe"}, "'maybe', which is not known as good or bad"),
        (JUDGED, {"p": "q", "a": "a", "l": 3}, "not 1, 0 or -1"),
        (JUDGED, {"p": "q", "a": "a", "l": [1]}, "the label is a list"),
        (JUDGED, {"p": "q", "a": "", "l": 1}, "the answer is empty"),
        (TALK, {"m": "just text", "l": 1}, "no prompt before the answer"),
        (TALK, {"m": [assistant("a")], "l": 1}, "no prompt before the answer"),
        (TALK, {"m": [user("q")], "l": 1}, "ends with the question"),
    ],
)
def test_an_answer_that_cannot_be_judged_has_its_reason(
    mapping: dict[str, str], row: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Unusable, match=reason):
        judged(mapping, **row)
