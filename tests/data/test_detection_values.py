"""What a form is taken for when names alone do not say it, and templates in a mapping."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.data.conversion import convert
from core.data.detection import choose, detect, guess_mapping
from core.data.forms import FORMS, fits
from core.data.values import Unusable
from core.errors import DataError

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


NAMES_OF_COLUMNS = st.sampled_from(
    [*("text", "prompt", "completion", "chosen", "rejected", "label", "messages", "tools")]
    + [*("conversations", "instruction", "output", "input", "answer", "history", "{x}", "")]
)
cells = st.one_of(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    st.sampled_from(["[]", '[{"role": "user", "content": "q"}]', TURNS, TURNS[:1], ["a"], [7]]),
    st.sampled_from([[{"from": "human"}, 5], [{"role": 5}], {"role": "user"}, 10**5000, [[]]]),
)


def many(count: int = 40, **columns: Any) -> list[dict[str, Any]]:
    """Rows whose columns are made from their number."""
    return [{name: make(number) for name, make in columns.items()} for number in range(count)]


def sentence(number: int) -> str:
    return f"The ticket number {number} says that something is broken, and asks for help with it."


def test_few_values_beside_longer_text_are_labels() -> None:
    """Somebody's own columns have names that nobody could know."""
    found = detect(many(inhalt=sentence, abteilung=lambda n: f"team-{n % 3}"))
    assert found.form == "labelled-text"
    assert found.mapping == {"text": "inhalt", "label": "abteilung"}
    assert "3 different" in found.reason


@pytest.mark.parametrize(
    ("rows", "form"),
    [
        (many(text=sentence, source=lambda n: f"site-{n % 2}"), "text"),
        (many(text=sentence, label=sentence), "text"),
        (many(text=sentence, label=lambda n: n / 7), "text"),
        (many(inhalt=sentence, nummer=lambda n: f"n-{n}"), None),
        (many(inhalt=lambda n: f"t{n % 2}", abteilung=lambda n: f"team-{n % 3}"), None),
        (many(prompt=sentence, completion=sentence, label=lambda n: "spam"), "prompt-completion"),
        (many(messages=lambda n: TURNS, label=lambda n: f"class {n % 3}"), "messages"),
        (many(text=sentence, label=lambda n: n % 2), "labelled-text"),
        (many(text=sentence, label=lambda n: "one"), "labelled-text"),
        (many(question=sentence, category=lambda n: f"c{n % 4}"), "labelled-text"),
        (many(prompt=sentence, completion=sentence, label=lambda n: n % 2), "unpaired-preference"),
        (many(text=sentence, tags=lambda n: [f"a{n % 3}", f"b{n % 4}"]), "labelled-text"),
    ],
)
def test_values_tell_labels_from_what_only_looks_like_them(
    rows: list[dict[str, Any]], form: str | None
) -> None:
    """A wrong guess here makes a classifier of a text, or learns the label as an answer."""
    assert detect(rows).form == form


@pytest.mark.parametrize(
    ("row", "form", "mapping"),
    [
        ({"idx": 1, "sentence": "s", "label": 0}, "labelled-text", "sentence label"),
        ({"label": 3, "title": "t", "content": "c c c"}, "labelled-text", "content label"),
        ({"text": "t", "labels": [3, 4], "id": "x"}, "labelled-text", "text labels"),
        ({"id": "1", "document": "d", "summary": "s"}, "prompt-completion", "document summary"),
        ({"Context": "c", "Response": "r"}, "prompt-completion", "Context Response"),
        (
            {"instruction": "i", "context": "c", "response": "r", "category": "qa"},
            "instruction",
            "instruction response context",
        ),
        ({"prompt": "p", "prompt_id": "1", "messages": TURNS}, "messages", "messages"),
        (
            {"system": "s", "question": "q", "chosen": "c", "rejected": "r"},
            "preference",
            "chosen rejected question system",
        ),
        (
            {"prompt": "p", "chosen": TURNS, "rejected": TURNS, "messages": TURNS},
            "preference",
            "chosen rejected prompt",
        ),
        ({"id": "1", "url": "u", "title": "t", "text": "x"}, "text", "text"),
        (
            {"id": "1", "title": "t", "context": "c", "question": "q", "answers": {"text": ["a"]}},
            "prompt-only",
            "question",
        ),
    ],
)
def test_columns_of_well_known_data_sets_are_known(
    row: dict[str, Any], form: str, mapping: str
) -> None:
    found = detect([row])
    assert (found.form, list(found.mapping.values())) == (form, mapping.split())


def test_every_form_that_is_offered_can_be_guessed_or_mapped() -> None:
    """A form in the list that refuses every column would be a dead end."""
    rows = many(question=sentence, options=lambda n: ["a"], answer=lambda n: f"B{n}")
    rows = [row | {"category": f"c{n % 4}"} for n, row in enumerate(rows)]
    possible = detect(rows).possible
    assert {"text", "prompt-completion", "prompt-only", "labelled-text"} <= set(possible)
    for form in possible:
        guessed = guess_mapping(rows, form)
        mapping = {name: guessed.get(name, "question") for name in FORMS[form].required}
        assert choose(rows, form, mapping).form == form


def test_a_column_of_calls_is_named_in_the_reason() -> None:
    called = [TURNS[0], {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]
    assert "calls of tools" in detect([{"messages": [*called, TURNS[1]]}]).reason
    assert "calls of tools" not in detect([{"messages": TURNS}]).reason


MMLU = [
    {"question_id": n, "question": f"{n}?", "options": ["x", "y"], "answer": "A", "category": "law"}
    for n in range(3)
]


def test_a_template_stands_for_a_column() -> None:
    found = choose(MMLU, None, {"text": "{question}\n\n{options}", "label": "category"})
    assert found.form == "labelled-text"
    assert found.mapping == {"text": "{question}\n\n{options}", "label": "category"}
    assert "Not used: question_id, answer." in found.reason
    row = convert(MMLU[0], found.form, found.mapping)
    assert row == {"text": "0?\n\nx\ny", "labels": ["law"]}


def test_a_column_in_a_template_is_not_used_again_by_a_guess() -> None:
    """The context would stand in the prompt twice."""
    rows = [{"instruction": "i", "input": "x", "output": "o"}]
    found = choose(rows, "instruction", {"instruction": "{instruction}: {input}"})
    assert found.mapping == {"instruction": "{instruction}: {input}", "output": "output"}


@pytest.mark.parametrize(
    ("form", "mapping", "message"),
    [
        ("text", {"text": "{questoin}?"}, "no column questoin; did you mean question"),
        ("text", {"text": "{question} {zzz}"}, r"no column zzz\."),
        ("messages", {"messages": "{question}"}, "needs a column with a list, not a template"),
        (
            "labelled-text",
            {"text": "question", "label": "category", "separator": "-"},
            "separator cannot be '-'",
        ),
        ("text", {"text": "question", "separator": ","}, "no field separator"),
    ],
)
def test_a_template_that_does_not_fit_is_refused(
    form: str, mapping: dict[str, str], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        choose(MMLU, form, mapping)
    assert caught.value.hint


def test_a_separator_is_chosen_with_the_columns() -> None:
    mapping = {"text": "question", "label": "category", "separator": "|"}
    assert choose(MMLU, "labelled-text", mapping).mapping == mapping
    assert choose(MMLU, None, mapping).form == "labelled-text"


def test_labels_in_one_text_are_pointed_out() -> None:
    """A film of two genres is no genre of its own, and only a person knows what the sign means."""
    names = ("drama", "crime", "drama|crime", "war|drama", "crime|war", "war|crime", "drama|war")
    rows = many(text=sentence, genres=lambda n: names[n % 7])
    mapping = {"text": "text", "label": "genres"}
    reason = choose(rows, "labelled-text", mapping).reason
    assert "Where '|' stands between several labels" in reason and "(7 different" in reason
    apart = choose(rows, "labelled-text", mapping | {"separator": "|"}).reason
    assert "stands between" not in apart and "(3 different" in apart
    plain = many(text=sentence, label=lambda n: f"law, part {n % 3}")
    assert "stands between" not in detect(plain).reason


def test_a_mapping_fits_where_all_its_columns_are() -> None:
    mapping = {"text": "{a} {b}", "label": "c", "separator": "|"}
    assert fits("labelled-text", mapping, ["a", "b", "c", "d"])
    assert not fits("labelled-text", mapping, ["a", "c"])
    assert not fits("labelled-text", {"text": "a"}, ["a"])
    assert not fits("gone", {"text": "a"}, ["a"])


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.dictionaries(NAMES_OF_COLUMNS, cells, max_size=4), min_size=1, max_size=4),
    form=st.none() | st.sampled_from(sorted(FORMS)),
)
def test_any_rows_are_taken_for_something_or_refused_with_the_way_out(
    rows: list[dict[str, Any]], form: str | None
) -> None:
    """A strange file must end in words, and what was detected must be something that works."""
    found = detect(rows)
    assert found.reason
    assert found.hint or found.form
    if found.form:
        assert found.form in found.possible
        form_found = FORMS[found.form]
        known = {*form_found.fields, *form_found.settings}
        assert set(form_found.required) <= set(found.mapping) <= known
        assert fits(found.form, found.mapping, {name for row in rows for name in row})
    try:
        chosen = choose(rows, form)
    except DataError as error:
        assert error.hint
        return
    for row in rows:
        try:
            assert convert(row, chosen.form or "", chosen.mapping)
        except Unusable as reason:
            assert str(reason)
