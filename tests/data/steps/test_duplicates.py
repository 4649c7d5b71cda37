"""Rows that say the same: if these fail, a model learns some rows many times, or is measured with
rows it has learned."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config.fields import field_specs
from core.data.steps import duplicates, leaks
from core.data.steps.base import Step
from core.data.steps.duplicates import (
    DropDuplicates,
    DropLabelConflicts,
    DropNearDuplicates,
    NearTexts,
    bands_for,
    shingles,
)
from core.data.steps.leaks import DropLeaks
from tests.data.steps.stage import asked, labelled, play, text

STORY = (
    "Once upon a time there was a miller who had three sons, a mill, a donkey and a cat. The sons "
    "ground the flour, the donkey carried it and the cat kept the mice away from the sacks. When "
    "the miller died the eldest took the mill, the second the donkey and the youngest the cat."
)


@pytest.mark.parametrize("step", [*duplicates.STEPS, *leaks.STEPS], ids=lambda step: step.op)
def test_each_field_says_what_it_is_and_what_it_does(step: type[Step]) -> None:
    assert step.title and step.kind == "quality"
    for spec in field_specs(step):
        assert spec.help.endswith("."), spec.path
        assert spec.label[:1].isupper(), spec.path


def test_the_first_of_equal_rows_stays_and_the_others_name_it(tmp_path: Path) -> None:
    rows = [asked("a", "b"), asked("a", "c"), asked("a", "b", meta={"id": 3}), asked("a", "b")]
    rows.append(asked("a", "c", part="eval"))
    outcome = play(DropDuplicates(), rows, "prompt-completion", tmp_path)
    assert outcome.dropped == [
        ("train", 2, "duplicate of train row 1"),
        ("train", 3, "duplicate of train row 1"),
        ("eval", 0, "duplicate of train row 2"),
    ]


def test_rows_can_be_compared_by_their_prompt_or_their_words_alone(tmp_path: Path) -> None:
    rows = [labelled("Hello  there", "a"), labelled("hello there", "b"), labelled("x", "a")]
    assert play(DropDuplicates(), rows, "labelled-text", tmp_path).dropped == []
    step = DropDuplicates(compare="text", ignore_case=True)
    assert play(step, rows, "labelled-text", tmp_path).dropped == [
        ("train", 1, "duplicate of train row 1")
    ]
    rows = [asked("why", "a"), asked("why", "b")]
    step = DropDuplicates(compare="prompt")
    assert play(step, rows, "prompt-completion", tmp_path).reasons == ["same prompt as train row 1"]


def test_a_text_with_a_word_changed_is_a_near_duplicate_and_another_text_is_not(
    tmp_path: Path,
) -> None:
    rows = [text("Something else entirely, about ships."), text(STORY)]
    rows += [text(STORY.replace("donkey", "mule", 1)), text(STORY.upper() + "!"), text("")]
    rows += [text(""), text(STORY, part="eval")]
    outcome = play(DropNearDuplicates(), rows, "text", tmp_path)
    assert outcome.dropped == [
        ("train", 2, "near duplicate of train row 2, 0.89 alike"),
        ("train", 3, "near duplicate of train row 2, 1.00 alike"),
        ("eval", 0, "near duplicate of train row 2, 1.00 alike"),
    ]


def test_chinese_without_spaces_is_compared_sign_by_sign(tmp_path: Path) -> None:
    words = "从前有一个磨坊主，他有三个儿子、一座磨坊、一头驴和一只猫。"
    words += "儿子们磨面，驴子驮面粉，猫捉老鼠。"
    rows = [text(words), text(words + "后来"), text("今天天气很好，我们一起去公园散步吧。")]
    outcome = play(DropNearDuplicates(), rows, "text", tmp_path)
    assert [(part, index) for part, index, _ in outcome.dropped] == [("train", 1)]


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99])
def test_at_every_threshold_a_pair_that_alike_is_found_in_99_of_100_cases(threshold: float) -> None:
    bands, values = bands_for(threshold)
    assert bands * values <= 128
    assert 1 - (1 - threshold**values) ** bands >= 0.99


def _near_copies(count: int, seed: int) -> tuple[list[str], list[bool]]:
    """Texts of random words; half are copies of the one before with a run of words replaced."""
    rng = random.Random(seed)
    texts: list[str] = []
    for index in range(count):
        words = [f"w{rng.randrange(3000)}" for _ in range(60)]
        if index % 2:
            words = texts[-1].split()
            start = rng.randrange(50)
            words[start : start + 3] = [f"n{rng.randrange(9999)}" for _ in range(3)]
        texts.append(" ".join(words))
    return texts, [index % 2 == 1 for index in range(count)]


def test_what_is_found_among_many_is_what_comparing_all_finds(tmp_path: Path) -> None:
    texts, is_copy = _near_copies(600, 7)
    threshold = 0.8
    expected = []
    for index, copied in enumerate(is_copy):
        if copied:
            a, b = set(shingles(texts[index], 3)), set(shingles(texts[index - 1], 3))
            if len(a & b) / len(a | b) >= threshold:
                expected.append(index)
    rows = [text(one) for one in texts]
    outcome = play(DropNearDuplicates(threshold=threshold), rows, "text", tmp_path)
    found = [index for _, index, _ in outcome.dropped]
    assert set(found) <= set(expected), "nothing below the threshold goes"
    assert len(found) >= 0.97 * len(expected) > 100


def test_the_likeness_is_the_true_share_of_common_word_runs() -> None:
    texts = NearTexts(0.5, 2)
    for one in ("a b c d", "a b c e", "", "a b c d"):
        texts.add(one)
    texts.index()
    assert texts.alike(0, 1) == 2 / 4
    assert texts.alike(0, 3) == 1
    assert texts.alike(0, 2) == 0


def test_ten_thousand_equal_rows_are_no_trouble(tmp_path: Path) -> None:
    rows = [text(STORY) for _ in range(10_000)]
    outcome = play(DropNearDuplicates(), rows, "text", tmp_path)
    assert len(outcome.rows) == 1 and outcome.rows[0] is rows[0]


def test_rows_of_eval_that_stand_in_train_are_named(tmp_path: Path) -> None:
    near = STORY.replace("donkey", "mule", 1)
    rows = [text("one of a kind"), text(STORY)]
    rows += [text(near, part="eval"), text("fresh words", part="eval")]
    rows += [text("One of  a kind", part="test"), text(STORY, part="test")]
    outcome = play(DropLeaks(), rows, "text", tmp_path)
    assert outcome.dropped == [
        ("eval", 0, "nearly stands in train row 2, 0.89 alike"),
        ("test", 0, "also stands in train row 1"),
        ("test", 1, "also stands in train row 2"),
    ]
    outcome = play(DropLeaks(near=False), rows, "text", tmp_path)
    assert [part for part, _, _ in outcome.dropped] == ["test", "test"]
    outcome = play(DropLeaks(remove_from="train"), rows, "text", tmp_path)
    assert outcome.dropped == [
        ("train", 0, "also stands in test row 1"),
        ("train", 1, "also stands in test row 2"),
    ]


def test_near_rows_within_train_are_no_leak(tmp_path: Path) -> None:
    rows = [text(STORY), text(STORY), text("other words", part="eval")]
    assert play(DropLeaks(), rows, "text", tmp_path).dropped == []
    assert play(DropLeaks(), rows[:2], "text", tmp_path).dropped == []


def test_a_text_with_two_labels_goes_or_the_majority_stays(tmp_path: Path) -> None:
    rows = [labelled("Buy now", "spam"), labelled("buy  now", "ham"), labelled("hello", "ham")]
    rows += [labelled("buy now", "spam", part="eval"), labelled("hello", "ham")]
    outcome = play(DropLabelConflicts(), rows, "labelled-text", tmp_path)
    reason = "the same text has 2 labels: spam (2), ham (1)"
    assert outcome.dropped == [("train", 0, reason), ("train", 1, reason), ("eval", 0, reason)]
    outcome = play(DropLabelConflicts(keep="majority"), rows, "labelled-text", tmp_path)
    assert outcome.dropped == [("train", 1, reason)]
    outcome = play(DropLabelConflicts(ignore_case=False), rows, "labelled-text", tmp_path)
    assert outcome.dropped == []


def test_a_tie_of_labels_drops_them_all(tmp_path: Path) -> None:
    rows = [asked("q", "a", label=True), asked("q", "a", label=False), asked("q", "b", label=True)]
    outcome = play(DropLabelConflicts(keep="majority"), rows, "unpaired-preference", tmp_path)
    assert outcome.reasons == ["the same text has 2 labels: good (1), bad (1)"] * 2


def test_the_order_of_several_labels_is_no_conflict(tmp_path: Path) -> None:
    rows = [labelled("x", "a", "b"), labelled("x", "b", "a")]
    assert play(DropLabelConflicts(), rows, "labelled-text", tmp_path).dropped == []


MAKERS: list[Callable[[], Step]] = [
    DropDuplicates,
    lambda: DropDuplicates(compare="text", ignore_case=True),
    DropNearDuplicates,
    lambda: DropNearDuplicates(threshold=0.5, shingle_size=1),
    DropLabelConflicts,
    lambda: DropLabelConflicts(keep="majority"),
    DropLeaks,
    lambda: DropLeaks(remove_from="train", threshold=0.5, shingle_size=1),
]
_ROWS = st.lists(
    st.tuples(
        st.sampled_from([STORY, STORY[20:], "a b", "A  b", "", "é \x00 ?"]) | st.text(max_size=20),
        st.sampled_from(["x", "y"]),
        st.sampled_from(["train", "eval", "test"]),
    ),
    max_size=12,
)


@pytest.mark.parametrize("make", MAKERS)
@given(made=_ROWS)
@settings(deadline=None, max_examples=25)
def test_no_row_is_lost_without_a_reason_and_the_same_rows_give_the_same(
    make: Callable[[], Step],
    made: list[tuple[str, str, str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    rows: list[dict[str, Any]] = [labelled(words, label, part=part) for words, label, part in made]
    folder = tmp_path_factory.getbasetemp()
    first = play(make(), rows, "labelled-text", folder)
    assert len(first.rows) + len(first.dropped) == len(rows)
    assert all(first.reasons)
    assert play(make(), rows, "labelled-text", folder) == first


@given(made=_ROWS)
@settings(deadline=None, max_examples=25)
def test_dropping_duplicates_twice_drops_nothing_more(
    made: list[tuple[str, str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows: list[dict[str, Any]] = [labelled(words, label, part=part) for words, label, part in made]
    folder = tmp_path_factory.getbasetemp()
    for step in (DropDuplicates(), DropNearDuplicates()):
        left = play(step, rows, "labelled-text", folder).rows
        assert play(step, left, "labelled-text", folder).dropped == []
