"""Which turns of a conversation are learned, by the run's settings and the rows' own marks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.config import RunConfig, checked_fields
from core.config.sections import LearnedTurns
from core.data.record import DatasetInfo
from core.data.rowfile import iter_rows
from core.errors import ConfigError
from core.rules import parse_config
from core.rules.command import apply_overrides, split_overrides
from core.rules.data import data_problems
from core.tokens.learn import Learn
from core.tokens.lens import Lens
from core.tokens.prompts import prompted
from core.tokens.tokenize import tokenize_row, tokenize_rows
from core.worker.evaluation.rows import question_and_answer
from core.worker.tokenizers import dataset_statistics, preview_rows
from core.worker.training.samples import sample_prompts
from core.workspace import Workspace
from tests.tokens.conftest import CHATML
from tests.tokens.test_statistics import prepared
from tests.tokens.test_tokenize import learned

TokenizerFor = Callable[[str | None], Any]


def user(words: str) -> dict[str, Any]:
    return {"role": "user", "content": words}


def answer(words: str, **marks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": words, **marks}


CORRECTED = [
    user("Which shelf?"),
    answer("Shelf nine.", weight=0.0),
    user("Look again."),
    answer("Shelf one.", weight=1.0),
    user("Sure?"),
    answer("Sure."),
]
"""A wrong answer that is only to be read, a right one, and one of which nothing is said."""

WANTED: dict[LearnedTurns, list[str]] = {
    "answers": ["Shelf one.<|im_end|>", "Sure.<|im_end|>"],
    "last_answer": ["Sure.<|im_end|>"],
    "marked": ["Shelf one.<|im_end|>"],
}


@pytest.mark.parametrize("turns", WANTED)
@pytest.mark.parametrize("template", [CHATML, None])
def test_a_turn_of_weight_0_is_read_and_never_learned(
    tokenizer_for: TokenizerFor, turns: LearnedTurns, template: str | None
) -> None:
    """A model would learn the very answers that its data calls wrong."""
    tokenizer = tokenizer_for(template)
    row = tokenize_row({"messages": CORRECTED}, tokenizer, max_length=None, learn=Learn(turns))
    end = "<|im_end|>" if template else "</s>"
    assert learned(row, tokenizer) == [one.replace("<|im_end|>", end) for one in WANTED[turns]]
    assert "Shelf nine." in tokenizer.decode(row.input_ids)


def test_everything_is_everything(tokenizer_for: TokenizerFor) -> None:
    tokenizer = tokenizer_for(CHATML)
    found = tokenize_row(
        {"messages": CORRECTED}, tokenizer, max_length=None, learn=Learn("everything")
    )
    assert found.labels[1:] == found.input_ids[1:]


def test_a_mark_reaches_no_template(tokenizer_for: TokenizerFor) -> None:
    """A template that writes out whole turns would show the model its own marks."""
    tokenizer = tokenizer_for("{% for m in messages %}{{ m | tojson }}</s>{% endfor %}")
    row = tokenize_row({"messages": CORRECTED}, tokenizer, max_length=None)
    assert "weight" not in tokenizer.decode(row.input_ids)


def test_a_weight_between_0_and_1_is_learned_in_full(tokenizer_for: TokenizerFor) -> None:
    tokenizer = tokenizer_for(CHATML)
    rows = [{"messages": [user("a"), answer("b", weight=weight)]} for weight in (0.3, 1.0)]
    half, full = (tokenize_row(row, tokenizer, max_length=None) for row in rows)
    assert half.labels == full.labels


def test_a_row_without_a_turn_to_learn_is_left_out_with_the_reason(
    tokenizer_for: TokenizerFor,
) -> None:
    rows = [{"messages": CORRECTED}, {"messages": CORRECTED[4:]}]
    usable, unusable = tokenize_rows(
        rows, tokenizer_for(CHATML), max_length=None, learn=Learn("marked")
    )
    assert len(usable) == 1
    ((index, reason),) = unusable
    assert index == 1 and "data.learn" in reason


def test_rows_that_leave_nothing_to_learn_are_found_before_a_run(
    tmp_path: Path,
) -> None:
    """An estimate promised a run that failed as soon as it had read its rows."""
    silent = [user("a"), answer("b", weight=0.0)]
    rows = [{"messages": [*silent, user(f"{n}?"), answer("c", weight=0.0)]} for n in range(3)]

    def problems(info: DatasetInfo, **changes: str) -> list[str]:
        settings = {"evaluation.eval_strategy": "no"} | {f"data.{k}": v for k, v in changes.items()}
        return [f"{one.field} {one.message}" for one in data_problems(info, parse_config(settings))]

    zero = prepared(tmp_path / "a", "messages", rows)
    (said,) = problems(zero)
    assert said.startswith("data.learn") and "no answer to learn" in said
    assert problems(zero, learn="everything") == []
    pairs = [{"prompt": silent[:1], "completion": silent[1:]}]
    assert problems(prepared(tmp_path / "b", "prompt-completion", pairs))
    plain = {"messages": [user("?"), answer("d")]}
    some = prepared(tmp_path / "c", "messages", [*rows, plain])
    assert problems(some) == [] and problems(some, learn="marked")


def test_examples_in_a_prompt_stay_examples(tokenizer_for: TokenizerFor) -> None:
    tokenizer = tokenizer_for(CHATML)
    row = {"prompt": [*CORRECTED[2:4], user("And?")], "completion": [answer("Two.", weight=1.0)]}
    for turns in WANTED:
        found = tokenize_row(row, tokenizer, max_length=None, learn=Learn(turns))
        assert learned(found, tokenizer) == ["Two.<|im_end|>"]


MARKED = [
    {"messages": CORRECTED},
    {"messages": [user("Half?"), answer("Half.", weight=0.5, reasoning_content="Two of four")]},
    {"messages": [user("Plain?"), answer("Plain.")]},
]
"""Rows with marks and a thought as an import writes them, and one without."""


@pytest.fixture
def model(tmp_path: Path, tokenizer_for: TokenizerFor) -> str:
    tokenizer_for(CHATML).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_marks_and_thoughts_rest_beside_the_words_of_a_turn(open_workspace: Workspace) -> None:
    info = prepared(open_workspace.root, "messages", MARKED)
    (rows,) = iter_rows(info.rows_path("train"))
    assert rows == MARKED, "what is not said of a turn is not in it"


def test_numbers_count_what_a_run_would_learn_nothing_from(
    open_workspace: Workspace, model: str
) -> None:
    info = prepared(open_workspace.root, "messages", MARKED)
    counted = {
        turns: dataset_statistics(open_workspace, info.id, Lens(model, None, turns))
        for turns in ("answers", "marked", "everything")
    }
    assert {turns: found["rows_without_loss"] for turns, found in counted.items()} == {
        "answers": 0,
        "marked": 1,
        "everything": 0,
    }


def test_the_preview_says_what_becomes_of_a_loss_weight(
    open_workspace: Workspace, model: str
) -> None:
    info = prepared(open_workspace.root, "messages", MARKED)
    seen = preview_rows(open_workspace, info.id, Lens(model, None), "train", [0, 1])
    assert not any("weight" in note for note in seen[0]["notes"])
    assert any("0.5" in note and "in full" in note for note in seen[1]["notes"])


def test_settings_of_before_still_open() -> None:
    """Presets, runs and commands that people have written would be refused."""
    for old, now in ((True, "answers"), (False, "everything")):
        assert checked_fields({"data": {"assistant_only_loss": old}}).data.learn == now
    _, words = split_overrides(["--data.assistant_only_loss", "false", "--training.seed", "1"])
    assert parse_config(apply_overrides({}, words)).data.learn == "everything"
    _, words = split_overrides(["--data.assistant_only_loss", "--training.seed", "1"])
    assert parse_config(apply_overrides({"data.learn": "marked"}, words)).data.learn == "answers"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data.assistant_only_loss": True, "data.learn": "marked"}, "Remove one"),
        ({"data.assistant_only_loss": "perhaps"}, "true or false"),
        ({"data.learn": "questions"}, "last_answer"),
        ({"data.learn": "marked", "method": "orpo"}, "better answer"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_at_its_field(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(values)
    (problem,) = caught.value.problems
    assert problem.field.startswith("data.") and message in problem.message


def test_no_model_is_measured_by_an_answer_that_is_not_to_be_learned(
    open_workspace: Workspace,
) -> None:
    """Evaluation, samples and rewards would hold up the wrong answer as the right one."""
    row = {"messages": [*CORRECTED[2:4], user("Sure?"), answer("No.", weight=0.0)]}
    asked = prompted(row)
    assert (asked.prompt, asked.answer) == (CORRECTED[2:3], "Shelf one.")
    assert question_and_answer(row) == (CORRECTED[2:3], "Shelf one.")
    only = {"messages": [user("a"), answer("b", weight=0.0)]}
    assert question_and_answer(only) is None
    info = prepared(open_workspace.root, "messages", [row, only])
    (sampled,) = sample_prompts(RunConfig(), info)
    assert sampled.expected == "Shelf one."
