"""Questions of a file: read in the ways in which people write them, and asked of a real model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import DataError, ModelError
from core.evaluation.answer_rows import read_answers, slices
from core.evaluation.benchmark import Question, read_benchmark
from core.jobs.job import Job, write_record
from core.jobs.store import Store
from core.progress import Stopped
from core.runs.submit import submit_evaluation
from core.worker.evaluation import questions
from core.worker.evaluation.run import run_evaluation
from core.workspace import RunFolder, Workspace
from tests.tiny_model import (
    TinyWorld,
    colour_rows,
    shown_report,
    teach,
    tiny_adapter,
    tiny_model,
    tiny_tokenizer,
    tiny_world,
)


def read(folder: Path, *rows: dict[str, Any]) -> tuple[list[Question], list[str]]:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_benchmark(file)


@pytest.mark.parametrize(
    "row, right",
    [
        ({"question": "q", "choices": ["x", "y"], "answer": "B"}, 1),
        ({"question": "q", "options": ["x", "y"], "answer": 1, "answer_index": 1}, 1),
        ({"query": "q", "choices": ["x", "y"], "gold": 0}, 0),
        ({"question": "q", "choices": ["x", "y"], "answer": "y"}, 1),
        (
            {
                "question": "q",
                "choices": {"text": ["x", "y"], "label": ["1", "2"]},
                "answerKey": "2",
            },
            1,
        ),
    ],
)
def test_the_right_choice_is_found(tmp_path: Path, row: dict[str, Any], right: int) -> None:
    [found], problems = read(tmp_path, row)
    assert (found.choices, found.right, problems) == (["x", "y"], right, [])


def test_what_is_no_question_is_told_with_its_line(tmp_path: Path) -> None:
    good = {"question": "q", "answer": "Rome", "subject": "towns"}
    bad = [
        {"question": "q"},
        {"question": "q", "choices": ["x", "y"], "answer": "C"},
        {"question": "q", "choices": ["x"], "answer": 0},
        {"question": "q", "choices": "x or y", "answer": "x"},
    ]
    [found], problems = read(tmp_path, good, *bad)
    assert found.meta == {"subject": "towns"} and found.is_answered("It is rome, I think.")
    assert not found.is_answered("Romeo") and not found.is_answered("")
    said = ["no answer", "'C' is none of its choices", "fewer than two", "are no list"]
    for place, (problem, words) in enumerate(zip(problems, said, strict=True), 2):
        assert problem.startswith(f"line {place}: ") and words in problem
    # A label beside a question names its subject, or whether it is answered.
    for row in (bad[0], {"prompt": "q", "completion": "Rome", "label": "geography"}):
        with pytest.raises(DataError, match="line 1: it has no answer"):
            read(tmp_path, row)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return tiny_world(tmp_path_factory.mktemp("b") / "ws")


@pytest.fixture(scope="module")
def tuned(world: TinyWorld) -> RunFolder:
    run = world.run("tuned-run")
    model = tiny_adapter(tiny_model(), size=0.0)
    teach(model, tiny_tokenizer(), colour_rows())
    model.save_pretrained(run.adapter)
    tiny_tokenizer().save_pretrained(run.adapter)
    job = Job(
        id="tuned-run", kind="train", run_id="tuned-run", folder="runs/tuned-run", name="colours",
        model="tiny", dataset="colours", state="finished",
    )  # fmt: skip
    write_record(run.root, job)
    return run


def rows_of_colours(with_choices: bool) -> list[dict[str, Any]]:
    turns = [[turn["content"] for turn in row["messages"]] for row in colour_rows()]
    answers = [answer for _question, answer in turns]
    rows = []
    for at, (question, answer) in enumerate(turns):
        wrong = [answers[(at + step) % len(answers)] for step in (1, 5, 7)]
        choices = [*wrong[: at % 4], answer, *wrong[at % 4 :]] if with_choices else None
        rows.append({"question": question, "choices": choices, "answer": answer, "kind": at % 2})
    return rows


def ask(world: TinyWorld, run: RunFolder, rows: list[dict[str, Any]], **more: Any) -> Path:
    """The folder of an evaluation that went the way of the shell and the page."""
    file = world.workspace.uploads / "colours.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    workspace = Workspace.open(world.root)
    params = {"checkpoint": "final", "benchmark": str(file), **more}
    job = submit_evaluation(workspace, Store.open(workspace), run.root.name, params)
    file.unlink()  # the job has its own
    assert run_evaluation(workspace.root / job.folder, world.root) == "finished"
    return workspace.root / job.folder


def test_who_learned_the_answers_chooses_them(world: TinyWorld, tuned: RunFolder) -> None:
    rows = [*rows_of_colours(True), {"question": "a", "choices": ["b", "c"], "answer": "d"}]
    folder = ask(world, tuned, rows)
    result = shown_report(folder)
    assert result["measured"] == "questions" and result["rows"] == 12
    assert result["tuned"]["acc_norm"]["value"] == 1.0 == result["tuned"]["acc"]["value"]
    assert result["base"]["acc_norm"]["value"] < 0.75
    assert result["verdict"].startswith("The tuned model gets 100 % (76 to 100 %) of colours.jsonl")
    assert "Guessing would get 25 % of the choices right." in result["notes"]
    assert any("none of its choices" in told for told in result["notes"])
    found = read_answers(folder)
    assert {one.value for one in slices(found, "kind", "base")} == {"0", "1"}
    assert found[0].sides["tuned"].text == found[0].expected and found[0].rendered


def test_without_choices_the_answer_counts(world: TinyWorld, tuned: RunFolder) -> None:
    result = shown_report(ask(world, tuned, rows_of_colours(False), max_rows=4))
    assert result["tuned"]["acc_norm"]["value"] == 1.0 and result["base"]["acc_norm"]["value"] == 0
    assert "acc" not in result["tuned"] and result["rows"] == 4
    assert not any("Guessing" in told for told in result["notes"])


def test_a_benchmark_goes_on_from_the_questions_that_were_asked(
    world: TinyWorld, tuned: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With choices and without; a question is not asked twice, and the numbers are the same."""
    rows = [*rows_of_colours(True), *rows_of_colours(False)]
    whole = shown_report(ask(world, tuned, rows))
    real_choices, real_answers = questions.choice_losses, questions.write_answers
    asked: list[str] = []

    def choices(model: Any, rows: Any) -> list[float]:
        asked.append("choice")
        if asked.count("choice") == 15:  # the third of the base
            raise Stopped
        return real_choices(model, rows)

    def answers(model: Any, tokenizer: Any, prompts: Any, **how: Any) -> list[str]:
        asked.extend(["answer"] * (len(prompts) - len(how["kept"].known)))
        return real_answers(model, tokenizer, prompts, **how)

    monkeypatch.setattr(questions, "choice_losses", choices)
    monkeypatch.setattr(questions, "write_answers", answers)
    with pytest.raises(AssertionError, match="stopped"):
        ask(world, tuned, rows)
    asked.clear()
    resumed = shown_report(ask(world, tuned, rows))
    assert asked.count("choice") == 10 and asked.count("answer") == 12
    told = "Answers taken over from an evaluation that did not come to its end: 26."
    assert told in resumed["notes"]
    for side in ("tuned", "base"):
        assert resumed[side] == whole[side]


def test_other_models_are_asked_the_same_questions(world: TinyWorld, tuned: RunFolder) -> None:
    """The run itself does as well as it does; the base as a model of its own as the base does."""
    rows = [*rows_of_colours(True), *rows_of_colours(False)]
    folder = ask(world, tuned, rows, against=["run:tuned-run", "model:tiny"])
    result = shown_report(folder)
    same, base = result["others"]
    assert same["numbers"] == result["tuned"] and base["numbers"] == result["base"]
    assert (same["compared"]["wins"], same["compared"]["losses"]) == (0, 0)
    assert base["compared"] == result["compared"] and base["compared"]["wins"] > 12
    assert {"tuned", "base", "other1", "other2"} == set(read_answers(folder)[0].sides)


def test_what_cannot_be_asked_is_refused_before_the_work(
    world: TinyWorld, tuned: RunFolder
) -> None:
    with pytest.raises(ModelError, match="no judge is asked"):
        ask(world, tuned, rows_of_colours(True), judge="run:tuned-run")
    gguf = world.workspace.uploads / "a.gguf"
    gguf.touch()
    with pytest.raises(ModelError, match="of runs and model folders"):
        ask(world, tuned, rows_of_colours(True), against=[f"gguf:{gguf}"])
    with pytest.raises(DataError, match="no question that can be asked"):
        ask(world, tuned, [{"text": "no question"}])
