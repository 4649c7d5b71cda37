"""A run that learned something is measured and asked in a real browser: rows by what became of
them, marks, answers side by side as they are written, a stop, and rows for the next run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from core.chat.conversations import list_conversations
from core.data.registry import list_datasets
from core.evaluation.marks import read_marks
from core.jobs.job import read_record
from core.jobs.store import Store
from core.rules import parse_config
from core.setup.extras import missing
from tests.e2e.serving import Served
from tests.tiny_model import (
    TinyWorld,
    colour_rows,
    teach,
    tiny_adapter,
    tiny_model,
    tiny_tokenizer,
    tiny_world,
)
from tests.waiting import until
from tests.webui.made_runs import make_run

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    world = tiny_world(tmp_path_factory.mktemp("asked") / "ws", eval_rows=colour_rows())
    endless().save_pretrained(world.base)
    return world


def endless() -> Any:
    """A base that finds no end: with these weights it repeats itself."""
    return tiny_model(seed=4, max_position_embeddings=200_000)


@pytest.fixture(scope="module")
def run_id(world: TinyWorld) -> str:
    store = Store.open(world.workspace)
    job = make_run(world.workspace, store, steps=2, name="colours", model="tiny")
    store.close()
    run = world.workspace.run(job.id)
    named = {"model.model_name_or_path": "tiny", "data.dataset": world.dataset.id}
    parse_config({**named, "training.precision": "fp32", "training.device": "cpu"}).save(run.config)
    model = tiny_adapter(endless(), size=0.0)
    teach(model, tiny_tokenizer(), colour_rows()[:8])
    model.save_pretrained(run.adapter)
    tiny_tokenizer().save_pretrained(run.adapter)
    return job.id


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a task of one's own for lm-eval."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [{"question": f"a {one}", "choices": ["yes", "no"], "gold": 0} for one in "abcdef"]
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "letters",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": str(data)},
        "test_split": "train",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}],
        "metadata": {"version": 1.0},
    }
    (folder / "letters.yaml").write_text(json.dumps(task))
    return folder


@pytest.fixture(scope="module")
def served(world: TinyWorld, run_id: str, tasks: Path) -> Iterator[Served]:
    server = Served(world.root, "--port", "7967", "--allow", str(tasks))
    yield server
    server.end()


def test_what_became_of_each_row(page: Page, served: Served, world: TinyWorld, run_id: str) -> None:
    page.goto(f"{served.address}/?tab=evaluate&run={run_id}")
    page.get_by_text("Other rows, other models").click()
    page.locator("#evaluate-pattern input").fill("(")
    page.locator("#evaluate-start").click()
    expect(page.locator("#evaluate-said")).to_contain_text("no regular expression")
    page.locator("#evaluate-pattern input").fill("colour")
    page.locator("#evaluate-start").click()
    report = page.locator("#evaluate-report")
    expect(report.locator(".verdict")).to_contain_text("it is better")
    expect(report).to_contain_text("What it still can do")
    report.get_by_text("more numbers").click()
    expect(report.locator("table.numbers").nth(1)).to_contain_text("Matches the pattern")

    rows = page.locator("#answers-rows .answer-row")
    expect(rows).to_have_count(12)
    page.locator("#answers-kind").get_by_text("Improved").click()
    expect(rows.locator(".badge-failed")).to_have_count(0)
    expect(rows.first.locator(".badge-finished")).to_be_visible()
    page.locator("#answers-find input").fill("red hat")
    page.locator("#answers-find input").press("Enter")
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("<|im_start|>user")
    rows.first.get_by_role("button", name="Tuned is better").click()
    pressed = rows.first.locator("[aria-pressed=true]")
    expect(pressed).to_have_text("Tuned is better")
    [evaluation] = (world.workspace.run(run_id).root / "evaluations").iterdir()
    assert list(read_marks(evaluation).values()) == ["win"]
    with page.expect_download() as begun:
        report.get_by_role("link", name=".html").click()
    assert "<h1>Evaluation</h1>" in begun.value.path().read_text(encoding="utf-8")


def asked(world: TinyWorld, run_id: str) -> dict[str, Any]:
    """The parameters of the newest evaluation."""
    folders = (world.workspace.run(run_id).root / "evaluations").iterdir()
    newest = max(folders, key=lambda folder: folder.stat().st_ctime_ns)
    return dict(read_record(newest)["params"])


def test_a_judge_is_chosen_from_the_list(
    page: Page, served: Served, world: TinyWorld, run_id: str
) -> None:
    """Each run and each base can judge; a name that is typed is one of the endpoint, and there is
    none."""
    page.goto(f"{served.address}/?tab=evaluate&run={run_id}")
    page.get_by_text("Other rows, other models").click()
    judge = page.locator("#evaluate-judge input")
    judge.click()
    options = page.get_by_role("option")
    expect(options.filter(has_text="None")).to_have_count(1)
    expect(options.filter(has_text="colours")).to_have_count(1)
    options.filter(has_text="Base: tiny").click()
    page.locator("#evaluate-rubric textarea").fill("The shorter one.")
    page.locator("#evaluate-start").click()
    page.locator("#evaluate-stop, #evaluate-status [data-act=stop]").first.click()
    expect(page.locator("#evaluate-start")).to_be_enabled()
    params = asked(world, run_id)
    assert params["judge"] == "model:tiny" and params["rubric"] == "The shorter one."

    judge.fill("a-model-of-nobody")
    judge.press("Enter")
    page.locator("#evaluate-start").click()
    expect(page.locator("#evaluate-said [role=alert]")).to_contain_text("endpoint")


def test_tasks_of_lm_eval_by_name(
    page: Page, served: Served, world: TinyWorld, run_id: str, tasks: Path
) -> None:
    """A name that there is not is told at the field; where lm-eval is missing, it is offered."""
    page.goto(f"{served.address}/?tab=evaluate&run={run_id}")
    page.get_by_text("Other rows, other models").click()
    names, said = page.locator("#evaluate-tasks input"), page.locator("#evaluate-tasks-said")
    expect(page.locator("#evaluate-include")).to_be_hidden()
    names.fill("lettres")
    names.press("Tab")
    expect(page.locator("#evaluate-include")).to_be_visible()
    if missing(["lm-eval"]):
        expect(page.locator("#install-evaluate-extras")).to_have_text("Install lm_eval")
        return
    page.locator("#evaluate-include input").fill(str(tasks))
    page.locator("#evaluate-include input").press("Tab")
    expect(said).to_contain_text("Near names: letters")
    names.fill("letters")
    names.press("Tab")
    expect(said).to_contain_text("lm-eval has it")
    page.locator("#evaluate-base input").uncheck()
    page.locator("#evaluate-start").click()
    verdict = page.locator("#evaluate-report .verdict")
    expect(verdict).to_contain_text("of letters (acc) right")
    expect(names).to_have_value("")
    expect(page.locator("#evaluate-include")).to_be_hidden()
    assert asked(world, run_id)["tasks"] == ["letters"]


def test_asked_side_by_side_and_what_follows(
    page: Page, served: Served, world: TinyWorld, run_id: str
) -> None:
    page.goto(f"{served.address}/?tab=chat&run={run_id}")
    said = page.locator("#chat-view .said-assistant small")
    page.get_by_text("System prompt and sampling").click()
    page.locator("#chat-temperature input[type=number]").fill("0")
    page.locator("#chat-max_new_tokens input").fill("24")
    expect(page.locator("#chat-right input")).not_to_have_value("")
    box = page.locator("#chat-prompt textarea")
    seed = page.locator("#chat-seed input")
    expect(seed).to_have_value("")
    seed.fill("seven")
    box.fill("a red cup")
    box.press("Enter")
    expect(page.locator("#chat-told")).to_contain_text("seed")
    seed.fill("")
    expect(box).to_have_value("a red cup")

    def is_asked() -> bool:
        """A page that was told what is wrong hears nothing more for a moment."""
        box.press("Enter")
        with suppress(AssertionError):
            expect(page.locator("#chat-told")).not_to_contain_text("seed", timeout=5000)
            return True
        return False

    until(is_asked)
    expect(said).to_have_count(2)
    tuned = page.locator(".lane").nth(1)
    expect(tuned).to_contain_text('{"colour": "red", "thing": "cup"}')
    tuned.get_by_role("button", name="This one is better").click()
    expect(page.locator("[aria-pressed=true]")).to_have_count(1)
    base = page.locator(".lane").first
    base.get_by_role("button", name="Correct").click()
    page.locator("#chat-correct textarea").fill("It is a red cup.")
    page.locator("#chat-keep").click()
    expect(base.locator(".edited")).to_contain_text("It is a red cup.")

    base.get_by_role("button", name="Ask again").click()
    expect(page.locator(".edited")).to_have_count(0)
    expect(said).to_have_count(2)
    tuned.get_by_role("button", name="This one is better").click()
    expect(page.locator("[aria-pressed=true]")).to_have_count(1)

    page.get_by_text("Conversations, and rows from them").click()
    page.locator("#chat-rows-name input").fill("said")
    page.locator("#chat-make").click()
    expect(page.locator("#chat-found")).to_contain_text("said has 1 row")
    made = next(info for info in list_datasets(world.workspace) if info.name == "said")
    assert made.form == "preference"

    page.goto(f"{served.address}/?tab=chat&run={run_id}")
    page.get_by_text("Conversations, and rows from them").click()
    page.locator("#chat-saved input").click()
    page.get_by_role("option", name="a red cup").click()
    expect(page.locator(".lane").nth(1)).to_contain_text('"thing": "cup"')
    expect(page.locator("#chat-view [aria-pressed=true]")).to_have_count(1)


def test_an_answer_is_stopped(page: Page, served: Served, world: TinyWorld, run_id: str) -> None:
    """The base knows no end: what it has written by then is kept."""
    page.goto(f"{served.address}/?tab=chat&run={run_id}")
    page.get_by_text("System prompt and sampling").click()
    page.locator("#chat-temperature input[type=number]").fill("0")
    page.locator("#chat-max_new_tokens input").fill("100000")
    expect(page.locator("#chat-right input")).not_to_have_value("")
    page.locator("#chat-prompt textarea").fill("what is it")
    page.locator("#chat-send").click()
    expect(page.locator(".lane").first.locator(".said-assistant small")).to_contain_text("tokens/s")
    page.locator("#chat-stop").click()
    expect(page.locator("#chat-send")).to_be_enabled()
    expect(page.locator("#chat-stop")).to_be_hidden()
    talk = next(t for t in list_conversations(world.workspace) if t.title == "what is it")
    assert [turn.role for turn in talk.lanes[0].turns] == ["user", "assistant"]


def test_it_is_measured_with_nothing_else_looked_at(
    page: Page, served: Served, world: TinyWorld, run_id: str
) -> None:
    """What stands in a fold that was never opened is nothing, and no error."""
    folder = world.workspace.run(run_id).root / "evaluations"
    before = set(folder.iterdir())
    page.goto(f"{served.address}/?tab=evaluate&run={run_id}")
    page.locator("#evaluate-start").click()
    until(lambda: any((one / "result.json").exists() for one in set(folder.iterdir()) - before))
    assert asked(world, run_id)["pattern"] == ""
