"""Columns that compare answers become pairs, or a question to the person: half of them learned as
if it were all good is a model that nobody asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.data.conversion import convert, convert_all
from core.data.detection import choose, detect
from core.data.registry import read_rows
from core.errors import DataError
from core.workspace import Workspace
from tests.data.shaping import bring

Row = dict[str, Any]


def said(role: str, content: str) -> Row:
    return {"role": role, "content": content}


def one(row: Row) -> Row:
    """What becomes of a row as it is recognised."""
    found = detect([row])
    return convert(row, found.form or "", found.mapping)


ASKED = [said("system", "Be brief."), said("user", "How tall?")]
GOOD, BAD = [said("assistant", "12 m.")], [said("assistant", "No.")]
PAIR = {"prompt": ASKED, "chosen": GOOD, "rejected": BAD}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [*ASKED, *GOOD], "rejected_response": "No."},
        {"messages": [*ASKED, *GOOD], "rejected_messages": [*ASKED, *BAD]},
        {"messages": [*ASKED, *GOOD], "rejected_messages": BAD},
        {"input": {"messages": ASKED, "tools": []}, "preferred_output": GOOD,
         "non_preferred_output": BAD},
        {"system": "Be brief.", "query": "How tall?", "response": "12 m.",
         "rejected_response": "No."},
        {"conversations": ASKED, "chosen": GOOD[0], "rejected": BAD[0]},
    ],
    ids=["swift", "swift-messages", "swift-turns", "openai", "query", "llama-factory"],
)  # fmt: skip
def test_preferences_are_pairs_however_they_are_written(row: Row) -> None:
    """Before, the better answers alone were learned, of OpenAI's without any question."""
    assert detect([row]).form == "preference"
    assert one(row) == PAIR


def test_the_chosen_answer_may_be_the_end_of_the_prompt_column() -> None:
    row = {"messages": [*ASKED, *GOOD], "rejected_response": "No."}
    mapping = {"prompt": "messages", "chosen": "messages", "rejected": "rejected_response"}
    assert convert(row, "preference", mapping) == PAIR


def test_tools_inside_the_prompt_are_kept() -> None:
    tool = {"type": "function", "function": {"name": "measure", "parameters": {}}}
    row = {"input": {"messages": ASKED, "tools": [tool]}, "preferred_output": GOOD,
           "non_preferred_output": BAD}  # fmt: skip
    assert json.loads(one(row)["tools"]) == [tool]


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"prompt": "a", "completion": "b", "preferred_response": "c"}, "preferred_response"),
        ({"messages": [*ASKED, *GOOD], "chosen_turns": GOOD}, "chosen_turns"),
        ({"question": "a", "answer_a": "b", "answer_b": "c", "better": "x"}, "answer_b"),
        ({"prompt": "a", "output_1": "b", "output_2": "c", "label": 0}, "output_2"),
        ({"question": "a", "answer": "b", "incorrect_answer": "c"}, "incorrect_answer"),
        ({"query": "a", "positive": "b", "negative": "c"}, "positive and negative"),
        (
            {"prompt": "a", "model_a": "b c d", "model_b": "c d e", "response": "f"},
            "model_a and model_b",
        ),
        ({"prompt": "a", "response1": "b", "response2": "c"}, "response1"),
        ({"instruction": "a", "output": ["b", "c"], "score": 1}, "output"),
        ({"question": "a", "answer": "b", "answers": ["b", "c"]}, "answers"),
        ({"prompt": "a", "completions": [{"text": "b"}, {"text": "c"}]}, "completions"),
        ({"prompt": "a", "rejected": "c"}, "rejected"),
    ],
)
def test_what_is_compared_without_saying_how_is_asked_for(row: Row, named: str) -> None:
    """No weaker form is guessed; the error says what to choose, and a choice is followed."""
    found = detect([row])
    assert found.form is None and named in found.reason
    assert "--form preference --map chosen=COLUMN" in found.hint
    assert "preference" in found.possible
    with pytest.raises(DataError, match="Answers are compared here"):
        choose([row])


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("win", "lose"), ("winner", "loser"), ("accept", "reject"), ("accepted", "rejected"),
        ("accepted_answer", "rejected_answer"), ("good", "bad"), ("Good Response", "Bad Response"),
        ("positive", "negative"), ("correct", "incorrect"), ("response_good", "response_bad"),
        ("correct_answer", "incorrect_answers"), ("answerCorrect", "answerWrong"),
        ("preferred", "nonPreferred"), ("winning_response", "losing_response"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("more", [{}, {"response": "x"}], ids=["", "beside an answer"])
def test_names_that_say_better_and_worse_are_a_preference(
    better: str, worse: str, more: dict[str, str]
) -> None:
    """The better answers alone would be learned, or the question without any."""
    rows = [{worse: "Red.", "question": "a", better: "Blue.", **more}]
    found = choose(rows)
    assert (found.form, found.mapping["chosen"], found.mapping["rejected"]) == (
        "preference", better, worse,
    )  # fmt: skip
    assert found.mapping["prompt"] == "question"


@pytest.mark.parametrize(
    ("first", "second", "winners"),
    [
        ("response_a", "response_b", ["b", "A", "tie"]),
        ("response_a", "response_b", ["response_b", "Response A", "both"]),
        ("output_1", "output_2", [2, "1", ""]),
        ("output_1", "output_2", [2.0, "output_1", "equal"]),
        ("model_a", "model_b", ["model_b", "model_a", "tie (both bad)"]),
        ("answer_left", "answer_right", ["right", "left", "neither"]),
        ("answer1", "answer2", ["second", "first", None]),
    ],
)
@pytest.mark.parametrize("column", ["winner", "preference", "label"])
def test_a_column_that_names_the_better_answer_decides_in_each_row(
    first: str, second: str, winners: list[Any], column: str
) -> None:
    """One side for all rows would teach every second answer that people found worse."""
    texts = {first: "the first one here", second: "the second one here"}
    rows = [{"prompt": "a", **texts, column: winner} for winner in winners]
    found = choose(rows)
    assert found.form == "preference" and found.mapping["winner"] == column
    assert "names the better" in found.reason
    made = [convert_all(row, "preference", found.mapping) for row in rows]
    better = [one.rows[0]["chosen"][0]["content"] for one in made[:2]]
    assert better == ["the second one here", "the first one here"]
    assert not made[2].rows and made[2].reasons


def test_arenas_of_whole_conversations_are_pairs() -> None:
    """As LMSYS writes them, where model_a is the name of a model."""
    row = {"model_a": "m-1", "model_b": "m-2", "winner": "model_b",
           "conversation_a": [*ASKED, *BAD], "conversation_b": [*ASKED, *GOOD]}  # fmt: skip
    made = one(row)
    assert (made["prompt"], made["chosen"], made["rejected"]) == (ASKED, GOOD, BAD)


def test_a_form_that_a_person_chose_leaves_the_comparison_out_with_a_warning() -> None:
    rows = [{"prompt": "a", "completion": "b", "rejected_text": "c", "rating": 3, "url": "x"}]
    found = choose(rows, "prompt-completion")
    assert found.form == "prompt-completion"
    assert found.reason.endswith("Not used: rejected_text, url.")
    first, second = found.warnings
    assert "rejected_text" in first and "Import the rows as preference" in first
    assert second == "The column rating is not used, and it looks like a rating of the rows."


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a", "completion": "b", "rejected": False},
        {"prompt": "a", "completion": "b", "chosen": 1},
        {"prompt": "a", "completion": "b", "preferred_language": "en"},
        {"question": "a", "answer": "b", "option_a": "c", "option_b": "d"},
        {"prompt": "a", "completion": "b", "chosen_by": ""},
        {"prompt": "a", "completion": "b", "query_language": "en", "story_world": "far away"},
        {"prompt": "a", "completion": "b", "positive": 3, "negative": 1},
        {"prompt": "a", "completion": "b", "correct": "yes", "incorrect": "no"},
        {"prompt": "a", "completion": "b", "positive_words": "c", "negative_words": "d"},
        {"prompt": "a", "completion": "b", "winner": "team one", "loser_city": "Rome"},
        {"prompt": "a", "completion": "b", "model_a": "gpt-4", "model_b": "llama", "label": "x"},
        {"prompt": "a", "completion": "b", "good_faith": "c", "bad_faith": "d"},
    ],
)
def test_columns_that_compare_nothing_ask_nothing(row: Row) -> None:
    """Rows that were understood before are still understood."""
    assert detect([row]).form == "prompt-completion"


@pytest.mark.parametrize(
    ("row", "form"),
    [
        ({"text": "a", "positive": 3, "negative": 1}, "text"),
        ({"text": "I like it", "label": "positive"}, "labelled-text"),
        ({"text": "I like it", "win": "a", "lose": "b"}, "text"),
        ({"sentence_good": "a b", "sentence_bad": "a b c"}, None),
        ({"premise": "a", "hypothesis": "b", "label": "1"}, "labelled-text"),
    ],
)
def test_ordinary_tables_are_no_comparisons(row: Row, form: str | None) -> None:
    assert detect([row]).form == form


@pytest.mark.parametrize(
    ("column", "what"),
    [
        ("images", "pictures"), ("audio", "sound"), ("parent_id", "the row that each one answers"),
        ("Score", "a rating"), ("labels", "labels"),
    ],
)  # fmt: skip
def test_an_unused_column_that_matters_is_a_warning(column: str, what: str) -> None:
    """In a list of what is not used nobody sees that the pictures are gone."""
    found = detect([{"prompt": "a", "completion": "b", column: "x.png"}])
    assert f"The column {column} is not used, and it looks like {what}" in found.warnings[0]
    assert "Not used" not in found.reason


MANY = {"prompt": "Name a colour.", "chosen": ["Blue.", "Green."], "rejected": ["No.", "None."]}
PAIRED = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}


def test_several_answers_become_a_pair_for_each_with_each(
    open_workspace: Workspace, tmp_path: Path
) -> None:
    rows = [MANY, {**MANY, "rejected": "No."}, {**MANY, "chosen": ["Blue.", "Blue."]}]
    info = bring(open_workspace, tmp_path, rows, eval_fraction=0)
    assert info.form == "preference" and info.sources[0].rows == 3
    pairs = [
        (row["chosen"][0]["content"], row["rejected"][0]["content"])
        for row in read_rows(open_workspace, info.id, "train", 0, 10)
    ]
    whole = [("Blue.", "No."), ("Blue.", "None."), ("Green.", "No."), ("Green.", "None.")]
    assert pairs == [*whole, whole[0], whole[2], *whole[:2]]
    assert info.counts.read == info.counts.train == 8
    assert info.warnings == [
        "3 rows hold several better or worse answers and became 8 pairs, each better answer with "
        "each worse one. 2 pairs that repeat another were left out."
    ]


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [(["a", None, "b"], ["c"]), ("['a', \"b\"]", "['c']"), (["a", "b"], "c")],
    ids=["null", "python", "one"],
)
def test_answers_of_a_cell_are_told_apart_however_they_are_written(
    chosen: Any, rejected: Any
) -> None:
    """pandas writes lists in Python's words: the list itself would be learned as an answer."""
    row = {"prompt": "q", "chosen": chosen, "rejected": rejected}
    made = convert_all(row, "preference", PAIRED)
    assert made.reasons == []
    assert [one["chosen"][0]["content"] for one in made.rows] == ["a", "b"]
    assert {one["rejected"][0]["content"] for one in made.rows} == {"c"}


def test_pairs_of_one_row_are_held_out_together(open_workspace: Workspace, tmp_path: Path) -> None:
    """A prompt that is both learned and held out makes every measure too good."""
    rows = [{**MANY, "prompt": f"Name colour {n}."} for n in range(12)]
    info = bring(open_workspace, tmp_path, rows, eval_fraction=0.25)
    parts = [
        {row["prompt"][0]["content"] for row in read_rows(open_workspace, info.id, part, 0, 100)}
        for part in ("train", "eval")
    ]
    assert all(parts) and not parts[0] & parts[1]


def test_a_pair_that_compares_nothing_is_dropped_and_the_others_stay() -> None:
    made = convert_all({**MANY, "rejected": ["Blue.", "No."]}, "preference", PAIRED)
    assert len(made.rows) == 3
    assert made.reasons == ["the chosen and the rejected answer are the same"]


def test_several_whole_conversations_are_several_answers() -> None:
    row = {"prompt": "How tall?", "chosen": [GOOD, [said("assistant", "12.")]], "rejected": BAD}
    assert len(convert_all(row, "preference", PAIRED).rows) == 2


def test_answers_that_cannot_be_written_are_dropped_with_their_reason() -> None:
    found = convert_all({**MANY, "chosen": [[10**5000], [1]]}, "preference", PAIRED)
    assert not found.rows and len(found.reasons) == 1


def test_one_answer_in_a_list_is_that_answer() -> None:
    found = convert_all({"prompt": "a", "chosen": ["b"], "rejected": ["c"]}, "preference", PAIRED)
    assert [row["chosen"][0]["content"] for row in found.rows] == ["b"]
