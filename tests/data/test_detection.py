"""Which form rows have: a wrong guess trains on the wrong column."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.data.detection import choose, detect
from core.data.forms import FORMS
from core.data.rowfile import SCHEMAS
from core.errors import DataError

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SHARED = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


@pytest.mark.parametrize(
    ("row", "form", "mapping"),
    [
        ({"text": "t"}, "text", {"text": "text"}),
        ({"Body": "t", "id": 7}, "text", {"text": "Body"}),
        ({"whatever": "t"}, "text", {"text": "whatever"}),
        (
            {"prompt": "p", "completion": "c"},
            "prompt-completion",
            {"prompt": "prompt", "completion": "completion"},
        ),
        (
            {"id": "1", "prompt": "p", "response": "r", "system": "s"},
            "prompt-completion",
            {"prompt": "prompt", "completion": "response", "system": "system"},
        ),
        (
            {"question": "q", "options": ["x"], "answer": "a"},
            "prompt-completion",
            {"prompt": "question", "completion": "answer"},
        ),
        (
            {"input": "i", "output": "o"},
            "prompt-completion",
            {"prompt": "input", "completion": "output"},
        ),
        (
            {"prompt": TURNS[:1], "completion": TURNS[1:]},
            "prompt-completion",
            {"prompt": "prompt", "completion": "completion"},
        ),
        (
            {"instruction": "i", "input": "", "output": "o"},
            "instruction",
            {"instruction": "instruction", "output": "output", "input": "input"},
        ),
        (
            {"instruction": "i", "input": "x", "output": "o", "history": [["q", "a"]]},
            "instruction",
            {"instruction": "instruction", "output": "output", "input": "input"}
            | {"history": "history"},
        ),
        ({"messages": TURNS}, "messages", {"messages": "messages"}),
        ({"dialog": TURNS, "text": "t"}, "messages", {"messages": "dialog"}),
        ({"messages": json.dumps(TURNS)}, "messages", {"messages": "messages"}),
        (
            {"conversations": SHARED, "tools": "[]"},
            "sharegpt",
            {"conversations": "conversations", "tools": "tools"},
        ),
        ({"conversations": TURNS}, "messages", {"messages": "conversations"}),
        (
            {"prompt": "p", "chosen": "c", "rejected": "r"},
            "preference",
            {"chosen": "chosen", "rejected": "rejected", "prompt": "prompt"},
        ),
        (
            {"chosen": TURNS, "rejected": TURNS, "score_chosen": 1.5},
            "preference",
            {"chosen": "chosen", "rejected": "rejected"},
        ),
        (
            {"conversations": SHARED[:1], "chosen": SHARED[1], "rejected": SHARED[1]},
            "preference",
            {"chosen": "chosen", "rejected": "rejected", "prompt": "conversations"},
        ),
        (
            {"instruction": "i", "input": "x", "chosen": "c", "rejected": "r"},
            "preference",
            {"chosen": "chosen", "rejected": "rejected", "prompt": "instruction"}
            | {"input": "input"},
        ),
        (
            {"messages": TURNS, "label": True},
            "unpaired-preference",
            {"completion": "messages", "label": "label"},
        ),
        (
            {"prompt": "p", "completion": "c", "label": "False"},
            "unpaired-preference",
            {"completion": "completion", "label": "label", "prompt": "prompt"},
        ),
        (
            {"instruction": "i", "input": "x", "output": "o", "kto_tag": 1},
            "unpaired-preference",
            {"completion": "output", "label": "kto_tag", "prompt": "instruction"}
            | {"input": "input"},
        ),
        (
            {"question": "q", "response": "r", "thumbs": "👎"},
            "unpaired-preference",
            {"completion": "response", "label": "thumbs", "prompt": "question"},
        ),
        ({"prompt": "p"}, "prompt-only", {"prompt": "prompt"}),
        ({"prompt": TURNS[:1]}, "prompt-only", {"prompt": "prompt"}),
        ({"messages": TURNS[:1]}, "prompt-only", {"prompt": "messages"}),
        (
            {"problem": "p", "ground_truth": 4, "level": "hard"},
            "prompt-only",
            {"prompt": "problem", "answer": "ground_truth"},
        ),
        (
            {"text": "t", "label": "spam"},
            "labelled-text",
            {"text": "text", "label": "label"},
        ),
        (
            {"text": "t", "label": 0, "label_text": "spam"},
            "labelled-text",
            {"text": "text", "label": "label_text"},
        ),
        ({"response": "r", "label": True}, "labelled-text", {"text": "response", "label": "label"}),
        (
            {"tweet": "t", "labels": ["a", "b"]},
            "labelled-text",
            {"text": "tweet", "label": "labels"},
        ),
        (
            {"premise": "p", "hypothesis": "h", "label": 1},
            "labelled-text",
            {"text": "{premise}\n\n{hypothesis}", "label": "label"},
        ),
    ],
)
def test_forms_are_known_by_names_and_values(
    row: dict[str, Any], form: str, mapping: dict[str, str]
) -> None:
    found = detect([row, row])
    assert (found.form, found.mapping) == (form, mapping)
    assert all(column.replace("\n", "\\n") in found.reason for column in mapping.values())
    assert form in found.possible


def test_columns_that_are_not_used_are_named() -> None:
    """Somebody who expects the options to be learned must see that they are not."""
    found = detect([{"question": "q", "options": ["x"], "answer": "a", "src": "s"}])
    assert "Not used: options, src." in found.reason


def test_empty_first_rows_do_not_hide_a_form() -> None:
    rows = [{"prompt": "", "completion": None}, {"prompt": "p", "completion": "c"}]
    assert detect(rows).form == "prompt-completion"


@pytest.mark.parametrize(
    ("row", "reason"),
    [({"a": "x", "b": "y"}, "columns a, b"), ({"n": 1, "m": [1]}, "columns n, m")],
)
def test_what_is_not_known_is_refused_with_the_way_out(row: dict[str, Any], reason: str) -> None:
    found = detect([row])
    assert found.form is None
    assert reason in found.reason and found.hint
    with pytest.raises(DataError, match=reason):
        choose([row])


def test_the_chosen_answers_alone_can_be_learned_from() -> None:
    row = {"conversations": SHARED[:1], "chosen": SHARED[1], "rejected": SHARED[1]}
    found = choose([row], "prompt-completion", {"completion": "chosen"})
    assert found.mapping == {"prompt": "conversations", "completion": "chosen"}


def test_a_choice_overrules_the_guess() -> None:
    rows = [{"question": "q", "context": "c", "answer": "a", "note": "n"}]
    found = choose(rows, mapping={"completion": "note"})
    assert found.form == "prompt-completion"
    assert found.mapping == {"prompt": "question", "completion": "note"}
    assert found.reason.startswith("Chosen by you.")
    as_text = choose(rows, "text", {"text": "context"})
    assert (as_text.form, as_text.mapping) == ("text", {"text": "context"})


def test_a_mapping_alone_names_its_form() -> None:
    rows = [{"a": "x", "b": "y"}]
    assert choose(rows, mapping={"instruction": "a", "output": "b"}).form == "instruction"
    assert choose(rows, mapping={"prompt": "a", "completion": "b"}).form == "prompt-completion"


def test_an_empty_column_takes_an_optional_field_away() -> None:
    rows = [{"prompt": "p", "answer": "a", "system": "s"}]
    assert "system" not in choose(rows, mapping={"system": ""}).mapping


@pytest.mark.parametrize(
    ("form", "mapping", "message"),
    [
        ("letters", {}, "not a form"),
        ("prompt-completion", {"prompt": "questio"}, "did you mean question"),
        ("prompt-completion", {"prompt": "question", "completion": ""}, "column for completion"),
        ("text", {"prompt": "question"}, "no field prompt"),
        ("messages", None, "column for messages"),
    ],
)
def test_a_choice_that_does_not_fit_is_refused(
    form: str, mapping: dict[str, str] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        choose([{"question": "q", "answer": "a"}], form, mapping)
    assert caught.value.hint


def test_every_form_has_what_the_page_shows() -> None:
    for name, form in FORMS.items():
        assert form.name == name and form.title and form.required
        assert form.help.endswith(".")
        assert form.standard in SCHEMAS
