"""The model must be asked the same question that it was trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import DataError
from core.rules import parse_config
from core.tokens.tokenize import with_system_prompt
from core.worker.evaluation.rows import load_eval_set, prompts_of, question_and_answer, spread
from tests.tiny_model import colour_rows, tiny_tokenizer, tiny_world

USER, ANSWER = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}


def test_rows_are_spread_over_the_whole_part() -> None:
    """The first rows of a sorted file would measure one kind of row only."""
    assert spread(10, 3) == [0, 3, 6]
    assert spread(3, 10) == spread(3, None) == [0, 1, 2]


def test_the_last_answer_is_asked_for() -> None:
    again = {"role": "user", "content": "and?"}
    assert question_and_answer({"messages": [USER, ANSWER, again, ANSWER]}) == (
        [USER, ANSWER, again],
        "ho",
    )
    assert question_and_answer({"messages": [USER, ANSWER, again]}) == ([USER], "ho")
    assert question_and_answer({"prompt": [USER], "completion": [ANSWER]}) == ([USER], "ho")
    assert question_and_answer({"text": "hi"}) is None


def test_the_runs_system_prompt_is_used_where_a_row_has_none() -> None:
    system = {"role": "system", "content": "Be brief."}
    assert with_system_prompt([USER], "Be brief.") == [system, USER]
    assert with_system_prompt([system, USER], "Other.") == [system, USER]
    assert with_system_prompt([USER], "") == [USER]


def test_the_prompt_is_the_beginning_of_the_trained_row(tmp_path: Path) -> None:
    """Token for token: the answer begins where the loss began."""
    world = tiny_world(tmp_path / "ws", eval_rows=colour_rows()[:3])
    tokenizer = tiny_tokenizer()
    config = parse_config({"data.dataset": world.dataset.id, "data.system_prompt": "Name it."})
    found = load_eval_set(world.workspace, config, tokenizer, None)
    for row, prompt in zip(found.rows, prompts_of(found.rows, tokenizer), strict=True):
        labels = row.tokens.labels
        begin = next(place for place, label in enumerate(labels) if label != -100)
        assert row.tokens.input_ids[:begin] == prompt
        assert "Name it." in tokenizer.decode(prompt)


def test_rows_that_lose_their_answer_to_the_cut_are_counted(tmp_path: Path) -> None:
    rows = colour_rows()[:3]
    rows[1]["messages"][0]["content"] = "very long " * 30
    world = tiny_world(tmp_path / "ws", eval_rows=rows)
    config = parse_config({"data.dataset": world.dataset.id, "training.max_length": 64})
    found = load_eval_set(world.workspace, config, tiny_tokenizer(), None)
    assert [row.index for row in found.rows] == [0, 2]
    (note,) = found.notes
    assert (note.key, note.values["rows"]) == ("left_out", 1)
    assert note.values["reason"].startswith("No answer is left")
    short = parse_config({"data.dataset": world.dataset.id, "training.max_length": 8})
    with pytest.raises(DataError, match="No row of Colours can be measured"):
        load_eval_set(world.workspace, short, tiny_tokenizer(), None)


def test_data_that_changed_after_the_run_is_told(tmp_path: Path) -> None:
    """Held-out rows may then have been trained on, which flatters the model."""
    world = tiny_world(tmp_path / "ws", eval_rows=colour_rows()[:3])
    values = {"data.dataset": world.dataset.id, "data.dataset_fingerprint": "0" * 64}
    found = load_eval_set(world.workspace, parse_config(values), tiny_tokenizer(), None)
    assert found.notes[0].key == "changed_data"
