"""A run measured by tasks of lm-eval: its own code asks and counts, on a task of one's own that
needs no network."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from core.commands.evaluate import report_text
from core.errors import DataError, ModelError, SetupError, WorkspaceError
from core.evaluation.answer_rows import read_answers, slices
from core.evaluation.document import write_document
from core.evaluation.lm_eval_tasks import check_names, near_names, parse_tasks
from core.evaluation.report import read_report
from core.jobs.job import Job, write_record
from core.jobs.store import Store
from core.runs.submit import submit_evaluation
from core.setup.extras import EXTRAS
from core.worker.evaluation import harness
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

KNOWN = ["arc_easy", "arc_challenge", "arc_easy_mt_de", "hellaswag", "gsm8k", "gsm8k_cot"]


def test_names_are_read_and_near_ones_told() -> None:
    assert parse_tasks(" arc_easy, gsm8k,,arc_easy ") == ["arc_easy", "gsm8k"]
    assert near_names("arc", KNOWN)[:2] == ["arc_easy", "arc_challenge"]
    assert near_names("helaswag", KNOWN) == ["hellaswag"] and near_names("zzz", KNOWN) == []
    check_names(["gsm8k"], KNOWN)
    with pytest.raises(ModelError, match="no task 'arc_easi'. Near names: arc_easy"):
        check_names(["gsm8k", "arc_easi"], KNOWN)
    with pytest.raises(ModelError, match="such as arc_easy"):
        check_names(["zzz"], KNOWN)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return tiny_world(tmp_path_factory.mktemp("t") / "ws")


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


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tasks: one of choices, one of answers, both as a group, one of texts, and one
    whose data are on no machine."""
    folder = tmp_path_factory.mktemp("tasks")
    turns = [[turn["content"] for turn in row["messages"]] for row in colour_rows()]
    answers = [answer for _question, answer in turns]
    rows = [
        {
            "question": question,
            "choices": [answers[at - 1], answer, answers[at - 5]],
            "gold": 1,
            "answer": answer,
        }
        for at, (question, answer) in enumerate(turns)
    ]
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    written = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": str(data)},
        "test_split": "train",
        "doc_to_text": "{{question}}",
        "metadata": {"version": 1.0},
    }
    asked: dict[str, dict[str, Any]] = {
        "colours_choice": {
            "output_type": "multiple_choice",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "gold",
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        },
        "colours_answer": {
            "output_type": "generate_until",
            "doc_to_target": "{{answer}}",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": 40},
            "metric_list": [{"metric": "exact_match"}],
        },
        "colours_text": {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{answer}}",
            "metric_list": [{"metric": "word_perplexity"}],
        },
        "colours_nowhere": {
            "output_type": "multiple_choice",
            "dataset_kwargs": {"data_files": str(folder / "nothing.jsonl")},
        },
    }
    for name, task in asked.items():
        # JSON is YAML.
        (folder / f"{name}.yaml").write_text(json.dumps({"task": name, **written, **task}))
    group = {
        "group": "colours_all",
        "task": ["colours_choice", "colours_answer"],
        "metadata": {"version": 1.0},
    }
    (folder / "colours_all.yaml").write_text(json.dumps(group))
    return folder


@pytest.fixture
def ask(
    world: TinyWorld, tuned: RunFolder, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """The folder of an evaluation that went the way of the shell and the page."""
    lm_eval = pytest.importorskip("lm_eval.tasks")
    monkeypatch.setenv("TUNESMITH_ALLOW", str(tasks))
    # Its own tasks are fourteen thousand files, which it reads each time.
    own = partial(lm_eval.TaskManager, include_defaults=False)
    monkeypatch.setattr(lm_eval, "TaskManager", own)

    def ask(*names: str, **more: Any) -> Path:
        workspace = Workspace.open(world.root)
        params = {"checkpoint": "final", "tasks": list(names), "include": str(tasks), **more}
        job = submit_evaluation(workspace, Store.open(workspace), tuned.root.name, params)
        folder = workspace.root / job.folder
        if more.get("stop"):
            (folder / "STOP").touch()
        assert run_evaluation(folder, world.root) == ("stopped" if more.get("stop") else "finished")
        return folder

    return ask


def test_who_learned_the_answers_is_better_in_tasks(ask: Callable[..., Path]) -> None:
    folder = ask("colours_choice", "colours_answer", apply_chat_template=True)
    result = shown_report(folder)
    assert result["measured"] == "tasks" and result["rows"] == 24
    tuned, base = result["tuned"]["tasks"], result["base"]["tasks"]
    assert tuned["colours_choice (acc_norm)"]["value"] == 1.0
    assert tuned["colours_answer (exact_match)"]["value"] == 1.0
    number = base["colours_choice (acc)"]
    # Its own standard error, of a share of twelve: sqrt(p (1 - p) / 11).
    error = (number["value"] * (1 - number["value"]) / 11) ** 0.5
    assert number["high"] == pytest.approx(min(1.0, number["value"] + 1.96 * error), abs=1e-3)
    assert "The tuned model gets 100 %" in result["verdict"]
    assert "colours_choice, colours_answer right, the base" in result["verdict"]
    assert "Clearly better in colours_choice, colours_answer." in result["verdict"]
    assert "The questions were asked through the chat template." in result["notes"]

    rows = read_answers(folder)
    assert len(rows) == 24 and rows[0].sides["tuned"].text == rows[0].expected
    assert "<|im_start|>user" in rows[0].rendered and rows[0].prompt[0]["content"] == "a red cup"
    assert {one.value for one in slices(rows, "task", "base")} == {
        "colours_choice",
        "colours_answer",
    }
    for ending in (".html", ".md", ".json"):
        write_document(folder, folder / f"report{ending}")
        assert "colours_choice (acc_norm)" in (folder / f"report{ending}").read_text()
    report = read_report(folder)
    assert report is not None and "colours_answer (exact_match)" in report_text(report)


def test_examples_limits_and_groups(ask: Callable[..., Path]) -> None:
    folder = ask("colours_all", max_rows=3, num_fewshot=2, compare_base=False)
    result = shown_report(folder)
    assert result["rows"] == 6 and result["base"] is None
    assert "6 of 24 questions were asked: the first of each task." in result["notes"]
    told = "Examples before each question (few-shot): colours_choice 2, colours_answer 2."
    assert told in result["notes"]
    assert read_answers(folder)[0].rendered.count("\n\n") == 2


def test_a_task_that_counts_no_right_answers(ask: Callable[..., Path]) -> None:
    result = shown_report(ask("colours_text"))
    [name] = result["tuned"]["task_numbers"]
    assert name == "colours_text (word_perplexity)" and result["rows"] == 12
    assert result["verdict"].startswith(f"In {name} the tuned model has ")
    assert ", the base " in result["verdict"]


def test_it_is_stopped(ask: Callable[..., Path]) -> None:
    assert not (ask("colours_choice", stop=True) / "result.json").exists()


def test_a_stop_is_seen_while_the_model_is_asked(
    ask: Callable[..., Path], world: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lm-eval tells nothing between the first and the last text of one that it only reads."""
    real = harness.Told.tell

    def stop(self: Any) -> None:
        for folder in (world.workspace.run("tuned-run").root / "evaluations").iterdir():
            (folder / "STOP").touch()
        real(self)

    monkeypatch.setattr(harness.Told, "tell", stop)
    with pytest.raises(AssertionError, match="stopped"):
        ask("colours_text")


def test_what_was_stopped_goes_on(
    ask: Callable[..., Path], world: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours of questions: what was answered is not asked again."""
    real, answered = harness.Told.add_partial, list[Any]()

    def add_partial(self: Any, attr: str, req: Any, res: Any) -> None:
        answered.append(req)
        if len(answered) == 40:  # of 36 choices and 12 answers
            for folder in (world.workspace.run("tuned-run").root / "evaluations").iterdir():
                (folder / "STOP").touch()
        real(self, attr, req, res)

    monkeypatch.setattr(harness.Told, "add_partial", add_partial)
    names = "colours_choice", "colours_answer"
    with pytest.raises(AssertionError, match="stopped"):
        ask(*names)
    assert len(answered) == 40
    gone_on = shown_report(ask(*names))
    assert len(answered) == 2 * 48
    assert any("did not come to its end: 40." in one for one in gone_on["notes"])
    whole = shown_report(ask(*names))
    assert len(answered) == 4 * 48
    for side in ("tuned", "base"):
        assert gone_on[side]["tasks"] == whole[side]["tasks"]


def test_what_cannot_be_asked_names_the_task(ask: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="no task 'colours_choise'. Near names: colours_choice"):
        ask("colours_choise")
    with pytest.raises(DataError, match="data set of the task colours_nowhere cannot be fetched"):
        ask("colours_nowhere")
    with pytest.raises(ModelError, match="bring their own questions"):
        ask("colours_choice", dataset="colours")
    with pytest.raises(ModelError, match="its base alone"):
        ask("colours_choice", against=["run:tuned-run"])


def test_tasks_may_run_code_and_lie_where_the_owner_said(
    ask: Callable[..., Path], world: TinyWorld, tmp_path: Path
) -> None:
    """Into the workspace everybody who sees the page can put files."""
    inside = world.workspace.uploads / "tasks"
    inside.mkdir()
    (inside / "a.yaml").write_text("task: a\n")
    with pytest.raises(WorkspaceError, match="lies in the workspace, and tasks may run code"):
        ask("a", include=str(inside))
    with pytest.raises(WorkspaceError, match="outside the folders that may be read"):
        ask("a", include=str(tmp_path))


def test_without_lm_eval_it_is_said_how_to_have_it(
    world: TinyWorld, tuned: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = replace(EXTRAS["lm-eval"], import_name="lm_eval_not_here")
    monkeypatch.setitem(EXTRAS, "lm-eval", absent)
    workspace = Workspace.open(world.root)
    params = {"checkpoint": "final", "tasks": ["arc_easy"]}
    with pytest.raises(SetupError, match="setup --with lm-eval"):
        submit_evaluation(workspace, Store.open(workspace), tuned.root.name, params)
