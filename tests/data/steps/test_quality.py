"""Cleaning rows one by one: if these fail, good rows are lost or bad ones are learned from."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config.fields import field_specs
from core.data.steps.base import Step
from core.data.steps.quality import (
    STEPS,
    BrokenEncoding,
    DropEmpty,
    DropLength,
    DropRefusals,
    KeepLanguages,
    encoding_problem,
    mend,
)
from core.errors import DataError
from tests.data.steps.stage import asked, labelled, pair, play, setting, talk, text


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.op)
def test_each_field_says_what_it_is_and_what_it_does(step: type[Step]) -> None:
    assert step.title and step.kind == "quality"
    for spec in field_specs(step):
        assert spec.help.endswith("."), spec.path
        assert spec.label[:1].isupper(), spec.path


@pytest.mark.parametrize(
    ("row", "form", "reason"),
    [
        (text(" \n\t"), "text", "the text is empty"),
        (labelled("words"), "labelled-text", "no label"),
        (labelled("words", " "), "labelled-text", "no label"),
        (asked("", "yes"), "prompt-completion", "the prompt is empty"),
        (asked("why", " "), "prompt-completion", "the completion is empty"),
        (pair("why", "so", ""), "preference", "the rejected is empty"),
        (talk("hello", "hi", "and", ""), "messages", "turn 4 (assistant) is empty"),
        (asked("why", "N/A"), "prompt-completion", "the completion is empty"),
    ],
)
def test_a_row_that_says_nothing_goes_and_the_reason_says_where(
    row: dict[str, Any], form: str, reason: str, tmp_path: Path
) -> None:
    assert play(DropEmpty(also_empty=["n/a"]), [row], form, tmp_path).reasons == [reason]


def test_an_answer_that_only_calls_a_tool_is_not_empty(tmp_path: Path) -> None:
    row = talk("the weather?", "")
    row["messages"][1]["tool_calls"] = '[{"type": "function"}]'
    assert play(DropEmpty(), [row], "messages", tmp_path).dropped == []


def test_rows_that_are_too_long_in_tokens_go_with_both_numbers(
    word_model: Path, tmp_path: Path
) -> None:
    rows = [text("one two three"), text("one two three four"), text(""), text("w " * 2000)]
    step = DropLength(model=str(word_model), minimum=1, maximum=3)
    assert play(step, rows, "text", tmp_path).reasons == [
        "too long: 4 tokens, the most allowed is 3",
        "too short: 0 tokens, the least allowed is 1",
        "too long: 2,000 tokens, the most allowed is 3",
    ]


@given(texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=60), max_size=8))
@settings(deadline=None, max_examples=40)
def test_counting_many_texts_at_once_drops_what_counting_each_would(
    texts: list[str], word_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(word_model / "tokenizer.json"))
    step = DropLength(model=str(word_model), minimum=2, maximum=5)
    found = play(step, [text(one) for one in texts], "text", tmp_path_factory.getbasetemp())
    lengths = [len(tokenizer.encode(one).ids) for one in texts]
    assert [index for _, index, _ in found.dropped] == [
        i for i, length in enumerate(lengths) if not 2 <= length <= 5
    ]


def test_a_pair_is_measured_with_each_of_its_answers(tmp_path: Path) -> None:
    rows = [pair("a b", "c", "d e f"), pair("a b", "c", "d")]
    step = DropLength(unit="words", minimum=0, maximum=4)
    assert play(step, rows, "preference", tmp_path).reasons == [
        "too long: 5 words, the most allowed is 4"
    ]
    step = DropLength(unit="words", of="answer", minimum=2, maximum=0)
    assert len(play(step, rows, "preference", tmp_path).dropped) == 2


def test_lengths_that_cannot_be_counted_are_refused_before_any_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not on this machine"):
        DropLength(model="no-such-model").start(setting("text", tmp_path))
    with pytest.raises(DataError, match="no answer"):
        DropLength(unit="words", of="answer").start(setting("text", tmp_path))
    with pytest.raises(DataError, match="less than the least"):
        DropLength(unit="words", minimum=9, maximum=3).start(setting("text", tmp_path))


@pytest.mark.parametrize(
    "answer",
    [
        "As an AI language model, I do not have opinions.",
        "I\u2019m  sorry, but I can\u2019t help with that.",
        "Als KI-Sprachmodell habe ich keine Gefühle.",
        "En tant que modèle de langage, je ne peux pas.",
        "Lo siento, pero no puedo ayudarte.",
        "抱歉，我无法回答。",
    ],
)
def test_an_answer_that_refuses_goes(answer: str, tmp_path: Path) -> None:
    outcome = play(DropRefusals(), [asked("q", answer)], "prompt-completion", tmp_path)
    assert outcome.reasons[0].startswith("answer refuses: “")


@pytest.mark.parametrize(
    ("row", "form"),
    [
        (asked("As an AI language model, who are you?", "A parrot."), "prompt-completion"),
        (asked("q", "word " * 60 + "as an AI language model"), "prompt-completion"),
        (asked("q", "Wasn't it, as an aim, fine?"), "prompt-completion"),
        (pair("q", "Gladly.", "As an AI language model, no."), "preference"),
        (asked("q", "As an AI language model, no.", label=False), "unpaired-preference"),
    ],
)
def test_a_refusal_elsewhere_or_as_the_bad_example_stays(
    row: dict[str, Any], form: str, tmp_path: Path
) -> None:
    assert play(DropRefusals(), [row], form, tmp_path).dropped == []


def test_the_list_of_refusals_is_the_persons_own(tmp_path: Path) -> None:
    rows = [asked("q", "As an AI language model, no."), asked("q", "NO COMMENT. Really.")]
    outcome = play(DropRefusals(phrases=["No comment."]), rows, "prompt-completion", tmp_path)
    assert outcome.dropped == [("train", 1, "answer refuses: “no comment.”")]


def test_rows_in_another_language_go_and_short_ones_stay(tmp_path: Path) -> None:
    rows = [
        text("The weather has been rather fine in the whole of the country this week."),
        text("Das Wetter war in dieser Woche im ganzen Land ziemlich schön."),
        text("Guten Tag"),
        text("THE WEATHER HAS BEEN RATHER FINE IN THE WHOLE OF THE COUNTRY."),
    ]
    outcome = play(KeepLanguages(languages=["EN"]), rows, "text", tmp_path)
    assert [(part, index) for part, index, _ in outcome.dropped] == [("train", 1)]
    assert outcome.reasons[0].startswith("language is de (")


def test_a_language_that_is_not_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'english'"):
        KeepLanguages(languages=["english"]).start(setting("text", tmp_path))


BROKEN = [
    ("The cafÃ© is open", "The café is open", "read in a wrong encoding: 'cafÃ©'"),
    ("itâ€™s fine", "it’s fine", "read in a wrong encoding: 'itâ€™s'"),
    ("a\x00b", "ab", "control character U+0000"),
    ("\ufeffhello", "hello", "control character U+FEFF"),
]


@pytest.mark.parametrize(("broken", "whole", "reason"), BROKEN)
def test_broken_characters_are_mended_or_dropped(
    broken: str, whole: str, reason: str, tmp_path: Path
) -> None:
    mended = play(BrokenEncoding(), [text(broken)], "text", tmp_path)
    assert [row["text"] for row in mended.rows] == [whole]
    dropped = play(BrokenEncoding(action="drop"), [text(broken)], "text", tmp_path)
    assert dropped.reasons == [reason]


def test_a_row_with_lost_characters_goes_even_when_mending(tmp_path: Path) -> None:
    for action in ("mend", "drop"):
        outcome = play(BrokenEncoding(action=action), [text("caf\ufffd")], "text", tmp_path)
        assert outcome.reasons == ["lost characters (U+FFFD)"]


@pytest.mark.parametrize(
    "fine",
    [
        "Größe, élan, señor, Żółć, 你好，世界, こんにちは, привет, 🙂",
        "“Curly” – and ﬁne ligatures, ＦＵＬＬ width, &amp; entities\r\n",
        "a page\fanother",
        "x² ≤ ½ · π",
    ],
)
def test_good_text_is_left_alone(fine: str, tmp_path: Path) -> None:
    assert encoding_problem(fine) == ""
    row = text(fine)
    assert play(BrokenEncoding(), [row], "text", tmp_path).rows[0] is row


@given(st.text(st.characters(codec="utf-8")))
@settings(deadline=None)
def test_mending_twice_is_mending_once_more_than_nothing(words: str) -> None:
    """What is mended has no control characters, whatever came in."""
    assert not any(ord(c) < 32 and c not in "\t\n\r\f" for c in mend(words))


MAKERS: list[Callable[[], Step]] = [
    DropEmpty,
    lambda: DropLength(unit="characters", minimum=3, maximum=30),
    DropRefusals,
    KeepLanguages,
    BrokenEncoding,
    lambda: BrokenEncoding(action="drop"),
]
_ANSWERS = st.sampled_from(
    ["", "  ", "As an AI language model, no.", "cafÃ©", "Yes, of course.", "\x07", "é" * 40]
) | st.text(st.characters(codec="utf-8"), max_size=40)


@pytest.mark.parametrize("make", MAKERS)
@given(answers=st.lists(_ANSWERS, max_size=6))
@settings(deadline=None, max_examples=25)
def test_no_row_is_lost_without_a_reason_and_the_same_rows_give_the_same(
    make: Callable[[], Step], answers: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [asked("What is it?", answer, part=p) for p in ("train", "eval") for answer in answers]
    folder = tmp_path_factory.getbasetemp()
    first = play(make(), rows, "prompt-completion", folder)
    assert len(first.rows) + len(first.dropped) == len(rows)
    assert all(first.reasons)
    assert play(make(), rows, "prompt-completion", folder) == first


def test_cheap_steps_do_a_hundred_thousand_rows_in_seconds(tmp_path: Path) -> None:
    """A million rows must not take a coffee break: at least 20,000 rows a second each, five
    times below what they do on one core of a laptop (processor time, for a busy machine)."""
    row = asked("What is the capital of France, and why?", "The capital is Paris. " * 8)
    for step in (DropEmpty(), DropRefusals(), DropLength(unit="characters"), BrokenEncoding()):
        work = step.start(setting("prompt-completion", tmp_path))
        start = time.process_time()
        for _ in range(5_000):
            list(work.feed(row))  # type: ignore[union-attr]
        assert 5_000 / (time.process_time() - start) > 20_000, step.op
