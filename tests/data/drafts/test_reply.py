"""What a model wrote becomes rows or counted reasons, whatever it wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.data.drafts.prompting import CUT, EMPTY, NO_JSON, Ask, json_values, read_reply
from core.data.drafts.rows import checked_row, likeness, plain_row, split_answer
from core.data.rowfile import SCHEMAS, RowWriter, read_slice
from core.errors import DataError

ROWS = Ask(0, (0,), (), "rows", 3)
PROMPT = ({"role": "user", "content": "2 + 2?"},)
OWN = ({"role": "assistant", "content": "4"},)
EXAMPLES: dict[str, dict[str, Any]] = {
    "text": {"text": "Once."},
    "prompt-completion": {"prompt": "Who?", "completion": "Me."},
    "messages": {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
        ]
    },
    "preference": {"prompt": "Who?", "chosen": "Me.", "rejected": "You."},
    "unpaired-preference": {"prompt": "Who?", "completion": "Me.", "label": True},
    "prompt-only": {"prompt": "2+2?", "answer": "4"},
    "labelled-text": {"text": "A bill", "label": "law"},
}


def read(text: str, form: str = "prompt-completion", cut: bool = False, **options: Any) -> Any:
    return read_reply(text, options.get("ask", ROWS), form, options.get("labels", ()), cut=cut)


@pytest.mark.parametrize("form", SCHEMAS)
def test_a_row_of_every_form_goes_to_the_disk_and_is_shown_as_it_was_written(
    form: str, tmp_path: Any
) -> None:
    """An example looks to the model as its reply should."""
    row = checked_row(EXAMPLES[form], form, ["Law", "law"])
    with RowWriter(tmp_path / "rows.parquet", form) as writer:
        writer.add({**row, "meta": {"synthetic": "more_like"}})
    (stored,) = read_slice(tmp_path / "rows.parquet", 0, 1)
    assert plain_row(stored) == EXAMPLES[form]


@pytest.mark.parametrize(
    "text",
    [
        '[{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]',
        'Sure!\n```json\n[{"prompt": "a", "completion": "b"},\n{"prompt": "c", "completion": "d"}]'
        "\n```\nMore?",
        '{"rows": [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]}',
        '{"prompt": "a", "completion": "b"}\n{"prompt": "c", "completion": "d"}',
        '<think>[{"prompt": "no", "completion": "no"}]</think>'
        '[{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]',
        'In {braces}: [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]',
        '[{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}, {"prompt": "e',
    ],
)
def test_rows_are_found_in_whatever_stands_around_them(text: str) -> None:
    found = read(text, cut=text.endswith("e"))
    assert [row["prompt"][0]["content"] for row in found.rows] == ["a", "c"]
    assert found.problems == ({CUT: 1} if text.endswith("e") else {})


def test_a_cut_conversation_is_no_row() -> None:
    """Its whole turns must not be taken for rows."""
    one = (
        '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}'
    )
    found = read(f"[{one}, {one[:60]}", "messages", cut=True)
    assert len(found.rows) == 1 and found.problems == {CUT: 1}


@pytest.mark.parametrize(
    ("text", "cut", "reason"),
    [
        ("", False, EMPTY),
        ("  ", True, CUT),
        ("I cannot.", False, NO_JSON),
        ("<think>hm", True, CUT),
        ("[" * 100_000, False, NO_JSON),
        ("[1, 2]", False, "The row is no object"),
        ('[{"prompt": "a"}]', False, "completion: is missing"),
        ('[{"prompt": " ", "completion": "b"}]', False, "prompt, turn N: is empty"),
        ('[{"prompt": "a", "completion": 3}]', False, "completion: is no list"),
        (
            '[{"prompt": "a", "completion": "b", "note": 1}]',
            False,
            "note: is no field of this form",
        ),
        ('[{"prompt": "\\ud800", "completion": "b"}]', False, "half a character"),
    ],
)
def test_what_is_no_row_is_counted_with_its_reason(text: str, cut: bool, reason: str) -> None:
    found = read(text, cut=cut)
    assert not found.rows and sum(found.problems.values()) >= 1
    assert all(reason in problem for problem in found.problems)


def test_answers_and_verdicts() -> None:
    plain = Ask(0, (0,), (), "answer", 1, PROMPT)
    assert read(" 4 ", ask=plain).rows == [{"prompt": [*PROMPT], "completion": [*OWN]}]
    assert read("4", "messages", ask=plain).rows == [{"messages": [*PROMPT, *OWN]}]
    assert read("It is", ask=plain, cut=True).problems == {CUT: 1}
    worse = Ask(0, (0,), (), "rejected", 1, PROMPT, OWN)
    (row,) = read("5", "preference", ask=worse, cut=True).rows
    assert row["chosen"] == [*OWN] and row["rejected"][0]["content"] == "5"
    assert not read("4", "preference", ask=worse).rows  # the same is no worse answer
    judged = Ask(0, (0,), (), "judged", 1, PROMPT)
    verdict = {"answer_a": "5", "answer_b": "4", "better": "b"}
    (row,) = read(json.dumps(verdict), "preference", ask=judged).rows
    assert row["chosen"] == [*OWN]
    for wrong in ("4", '{"better": "C"}', '{"better": "A"}', '{"better": null, "answer_a": "4"}'):
        found = read(wrong, "preference", ask=judged)
        assert not found.rows and sum(found.problems.values()) == 1


def test_an_error_names_the_field() -> None:
    """A person who edits a draft sees which field to mend."""
    turns = [{"role": "user", "content": "a"}, {"role": "robot", "content": "b"}]
    with pytest.raises(DataError, match="messages, turn 2, role"):
        checked_row({"messages": turns}, "messages")
    with pytest.raises(DataError, match="messages: does not end with a turn of the assistant"):
        checked_row({"messages": turns[:1]}, "messages")
    with pytest.raises(DataError, match="labels: 'tax' is not a label"):
        checked_row({"text": "a", "label": "tax"}, "labelled-text", ["law"])


def test_calls_of_tools_are_kept_as_json_text() -> None:
    calls = [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}]
    row = {
        "messages": [
            {"role": "user", "content": "1 + 1?"},
            {"role": "assistant", "tool_calls": calls},
            {"role": "tool", "content": "2"},
            {"role": "assistant", "content": "It is 2."},
        ],
        "tools": [{"type": "function", "function": {"name": "add"}}],
    }
    stored = checked_row(row, "messages")
    assert json.loads(stored["messages"][1]["tool_calls"]) == calls
    assert plain_row(stored)["tools"] == row["tools"]


def test_rows_that_differ_in_case_and_punctuation_are_alike() -> None:
    assert likeness({"text": "Hello,  World."}) == likeness({"text": "hello world"})
    assert likeness({"text": "a b"}) != likeness({"text": "ab"})
    assert likeness({"text": "?"}) != likeness({"text": "!"})
    labelled = checked_row(EXAMPLES["labelled-text"], "labelled-text")
    assert likeness(labelled) == likeness({**labelled, "labels": ["other"]})


def test_a_conversation_is_answered_at_its_last_answer() -> None:
    prompt, own = split_answer(EXAMPLES["messages"])
    assert [turn["role"] for turn in prompt] == ["system", "user"]
    assert own == [{"role": "assistant", "content": "Hello"}]


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(st.text(), st.recursive(st.none() | st.text() | st.integers(), st.lists).map(str)),
    st.sampled_from(sorted(SCHEMAS)),
    st.booleans(),
)
def test_no_reply_is_lost_or_breaks_anything(text: str, form: str, cut: bool) -> None:
    """Each reply gives rows or a reason why not."""
    found = read(text, form, cut=cut)
    assert found.rows or found.problems


JSON = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["prompt", "completion", "x"]), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(JSON), st.text(alphabet="ab {[\n`"))
def test_json_comes_back_whole_from_between_words(values: list[Any], before: str) -> None:
    found, broken = json_values(before.replace("{", "").replace("[", "") + json.dumps(values))
    assert found == [values] and not broken
    reading = read(json.dumps(values))
    assert len(reading.rows) + sum(reading.problems.values()) >= max(len(values), 1)
