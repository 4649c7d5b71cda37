"""What the import says and does before a browser comes in: mapping, hold-out, looking, preview."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

from core.data.forms import FORMS
from core.data.inspection import inspect_source
from core.errors import DataError
from core.workspace import Workspace
from tests.webui.fakes import fake_app
from webui import background
from webui.data import import_sources
from webui.data.import_choice import HoldOut, Recipe
from webui.data.import_form import ImportForm
from webui.data.import_sources import hub_source, look_at, look_at_held_out
from webui.data.mapping import TEMPLATE, MappingTable, problems_of

HOSTILE = "<img src=x onerror=alert(1)>"
COLUMNS = ["question", "options", "category"]
LABELLED = FORMS["labelled-text"]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace", allowed=[tmp_path])


def lines(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_template_with_a_wrong_column_is_told_at_its_field_with_the_near_one() -> None:
    mapping = {"text": "{question}\n{optons}", "label": "category"}
    problems = problems_of(LABELLED, COLUMNS, mapping)
    assert list(problems) == ["text"]
    assert "optons" in problems["text"] and "did you mean options" in problems["text"]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("", "Choose its column"),
        (TEMPLATE, "Write a template"),
        ("always the same words", "column in braces"),
    ],
)
def test_a_field_that_names_no_column_says_what_to_write(source: str, told: str) -> None:
    assert told in problems_of(LABELLED, COLUMNS, {"text": source, "label": "category"})["text"]


def test_an_optional_field_may_stay_empty_and_a_list_takes_no_template() -> None:
    form = FORMS["messages"]
    assert problems_of(form, ["turns"], {"messages": "turns", "system": ""}) == {}
    assert "list" in problems_of(form, ["turns"], {"messages": "{turns}"})["messages"]


def test_the_table_gives_back_the_mapping_that_was_put_into_it(tmp_path: Path) -> None:
    """Otherwise a saved mapping with a template would be another one when it is used."""
    path = lines(tmp_path / "a.jsonl", {"question": "Why?", "options": ["x"], "category": "law"})
    mapping = {"text": "{question}\n\n{options}", "label": "category", "separator": ""}
    mapping |= {"label_names": ""}
    with gr.Blocks():
        table = MappingTable()
    updates = table.show(LABELLED, inspect_source(path), mapping)
    assert table.read(updates, LABELLED) == mapping


def _value(update: object) -> object:
    return update.get("value") if isinstance(update, dict) else getattr(update, "value", None)


def test_values_of_a_file_are_shown_and_never_become_html(tmp_path: Path) -> None:
    row = {"prompt": HOSTILE, "completion": HOSTILE, HOSTILE: 1}
    report = inspect_source(lines(tmp_path / f"{HOSTILE[:4]}.jsonl", row))
    with gr.Blocks():
        table = MappingTable()
    mapping = {"prompt": "{prompt} {completion}", "completion": "completion"}
    form = FORMS["prompt-completion"]
    shown = import_sources.first_rows(report.rows, form.name, mapping, HOSTILE)
    shown += str(table.tell(form, report, mapping))
    assert "&lt;img" in shown and "<img" not in shown


def test_a_row_that_would_be_dropped_says_so_beside_its_raw_self() -> None:
    rows = [{"prompt": "a question", "completion": ""}]
    mapping = {"prompt": "prompt", "completion": "completion"}
    shown = import_sources.first_rows(rows, "prompt-completion", mapping, "")
    assert "Would be dropped: the answer is empty." in shown and "a question" in shown


def test_keys_of_turns_that_are_not_kept_are_told_before_the_import(tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": "a", HOSTILE: "glad", "weight": 0, "thinking": "Hm."}
    row = {"messages": [{"role": "user", "content": "q"}, answer]}
    report = inspect_source(lines(tmp_path / "a.jsonl", row, row))
    told = import_sources.would_drop(report)
    assert "Keys of turns that are not used" in told and "(2 turns)" in told and "<img" not in told
    kept = import_sources.first_rows(report.rows, "messages", report.mapping, "")
    assert "only read" in kept and '<div class="soft">Hm.</div>a' in kept


def test_what_is_inside_an_object_can_be_chosen_as_a_column(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    report = inspect_source(lines(tmp_path / "a.jsonl", {"id": 1, "data": {"talk": turns}}))
    form, mapping = FORMS["messages"], {"messages": "data.talk", "without_question": "keep"}
    with gr.Blocks():
        table = MappingTable()
    updates = table.show(form, report, mapping)
    assert table.read(updates, form) == {**dict.fromkeys(form.optional, ""), **mapping}
    assert problems_of(form, report.columns, mapping) == {}


def test_files_dropped_together_are_counted_together_and_a_misfit_is_named(
    workspace: Workspace, tmp_path: Path
) -> None:
    """A second file with other columns must not be found out at the end of an import."""
    row = {"prompt": "a", "completion": "b"}
    first = lines(tmp_path / "first.jsonl", row, {"prompt": "only"})
    second = lines(tmp_path / "second.jsonl", row, row)
    third = lines(tmp_path / "third.jsonl", {"weight": 3})
    # Fit by itself, but the import reads all by the columns of the first.
    other = lines(tmp_path / "other.jsonl", {"question": "a", "answer": "b"})
    task = background.Task()
    found = look_at(workspace, [*map(str, (first, second, third, other))], task)
    assert found.name == "first" and found.total_rows == 4
    assert found.report.problem_count == 1
    assert [name for name, _ in found.wrong] == ["third.jsonl", "other.jsonl"]
    shown = import_sources.recognised(found)
    assert "Prompt and answer" in shown and "4 rows" in shown and "third.jsonl" in shown
    assert "line 2" in import_sources.would_drop(found.report)


def test_nothing_follows_what_was_found(workspace: Workspace, tmp_path: Path) -> None:
    """A slow browser gets each answer as a change of the one before, in place: what comes right
    after the find would take it away, and the file lies there with no way to go on."""
    path = lines(workspace.root / "few.jsonl", {"prompt": "a", "completion": "b"})
    with gr.Blocks():
        form = ImportForm(fake_app(workspace.root), SimpleNamespace())
    request = SimpleNamespace(session_hash="page")
    *_, last = form.receive([str(path)], request)
    assert form.panel in last
    # One of two files was taken out; then the other.
    *_, last = form.look_again([str(path)], None, request)
    assert last[form.choice.found].sources == [str(path)]
    *_, last = form.look_again([], last[form.choice.found], request)
    assert last[form.panel].visible is False and last[form.failure] == ""


def test_a_hub_data_set_becomes_one_text_and_a_wrong_share_is_refused() -> None:
    asked = hub_source(" hf:owner/name ", "", "test", "", 0.1, True)
    assert asked == "hf:owner/name?split=test&fraction=0.1"
    with pytest.raises(DataError, match="fraction"):
        hub_source("owner/name", "", "train", "main", 0, True)
    with pytest.raises(DataError, match="name of a data set"):
        hub_source("", "", "train", "main", 1, True)


@pytest.fixture
def hold_out() -> HoldOut:
    with gr.Blocks():
        return HoldOut()


def asked(hold_out: HoldOut, **values: object) -> dict:
    known = {name: getattr(hold_out, name).value for name in ("how", "fraction", "test", "seed")}
    known |= {"second": None, "stratify": False, "group": ""}
    return {getattr(hold_out, name): value for name, value in (known | values).items()}


def test_what_is_held_out_becomes_a_recorded_step(hold_out: HoldOut) -> None:
    step = hold_out.step(asked(hold_out, test=0.2, stratify=True, group="src"), "labelled-text")
    assert step is not None
    assert step.spec() == {"op": "split", "test_fraction": 0.2, "stratify": True, "group_by": "src"}
    plain = hold_out.step(asked(hold_out, stratify=True), "text")
    assert plain is not None and "stratify" not in plain.spec()
    assert hold_out.step(asked(hold_out, how="none", test=0.5), "text") is None


def test_a_share_that_cannot_be_is_refused_before_anything_is_read(hold_out: HoldOut) -> None:
    with pytest.raises(DataError, match="Share held out for evaluation: must be") as refused:
        hold_out.step(asked(hold_out, fraction=1.5), "text")
    assert "Hold out" in refused.value.hint


def test_a_second_file_that_was_not_given_is_asked_for(hold_out: HoldOut) -> None:
    with pytest.raises(DataError, match="No second file"):
        hold_out.second_source(asked(hold_out, how="file"))


def test_a_second_file_is_looked_at_before_the_import_has_read_the_first(
    workspace: Workspace, tmp_path: Path, hold_out: HoldOut
) -> None:
    """A misfit must not be found out after minutes, when all training rows are read."""
    mapping = {"prompt": "ask", "completion": "say"}
    good, bad = {"ask": "1 + 1", "say": "2"}, {"ask": "2 + 2", "say": ""}
    held = lines(tmp_path / "held.jsonl", good, good, bad)
    how = workspace, str(held), background.Task(), "prompt-completion"
    told = hold_out.tell_second(look_at_held_out(*how, mapping))
    assert "held.jsonl: 3 rows will be held out, less 1 that cannot be used (line 3" in told
    own = lines(tmp_path / "own.jsonl", {"prompt": "a", "completion": "b"})
    report = look_at_held_out(workspace, str(own), background.Task(), how[-1], mapping)
    assert "own.jsonl: 1 row will be held out." in hold_out.tell_second(report)
    other = lines(tmp_path / "other.jsonl", {"text": "Only words."})
    with pytest.raises(DataError, match="other.jsonl holds Plain text; the training rows are"):
        look_at_held_out(workspace, str(other), background.Task(), how[-1], mapping)


def test_a_recipe_is_shown_by_its_steps_or_refused_with_its_field(tmp_path: Path) -> None:
    with gr.Blocks():
        recipe = Recipe()
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("steps:\n- op: drop_duplicates\n- op: split\n  eval_fraction: 0.2\n")
    bad.write_text("steps:\n- op: split\n  eval_fraction: 3\n")
    steps, _, told = recipe.read(str(good))
    assert [step["op"] for step in steps] == ["drop_duplicates", "split"]
    assert "own split is used" in told
    steps, _, told = recipe.read(str(bad))
    assert steps == [] and "eval_fraction" in told
