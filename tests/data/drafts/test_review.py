"""What a person decides about drafts stands, and only accepted rows get into a data set."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from core.data.drafts.review import accept, add_to_dataset, edit, read_drafts, reject, take_over
from core.data.drafts.run import run_drafts
from core.data.drafts.settings import DraftSettings, draft_settings, drafts_form
from core.data.drafts.tasks import at_work, begin, change_task, delete_task, list_tasks, load_task
from core.data.registry import load_dataset_info, read_rows
from core.data.versions import undo
from core.errors import ConfigError, DataError, JobError, ModelError
from tests.data.drafts.conftest import completion, questions

QUICK: dict[str, Any] = {"model": "big", "requests_per_minute": 60_000}


@pytest.fixture
def drafts(make_dataset: Any, endpoint: Any) -> Any:
    """(workspace, id of the data set of 12 rows, id of a task with 6 drafts)."""
    workspace, info = make_dataset(questions())
    task = begin(workspace, info.id, {**QUICK, "rows": 6})
    run_drafts(workspace.root, info.id, task.id)
    return workspace, info.id, task.id


def test_only_accepted_rows_get_in_and_an_undo_gives_them_back(drafts: Any) -> None:
    workspace, dataset, task = drafts
    accept(workspace, dataset, task, [1, 2, 4])
    changed = edit(workspace, dataset, task, 2, {"prompt": "2 * 3?", "completion": "6"})
    assert changed.edited and changed.status == "accepted"
    tally = reject(workspace, dataset, task, [4, 5]).tally
    assert (tally.new, tally.accepted, tally.rejected, tally.taken) == (2, 2, 2, 0)
    info = add_to_dataset(workspace, dataset, task)
    assert info.id == dataset and info.counts.train == 14
    rows = read_rows(workspace, dataset, "train", 12, 5)
    first = read_drafts(workspace, dataset, task)[0][0]
    meta = {"synthetic": "more_like", "synthetic_model": "big"}
    assert rows[0] == {**first.row, "meta": meta}
    assert rows[1]["completion"][0]["content"] == "6"
    taken, count = read_drafts(workspace, dataset, task, status="taken")
    assert count == 2 and [draft.id for draft in taken] == [1, 2]
    with pytest.raises(DataError, match="in the data set already"):
        reject(workspace, dataset, task, [1])
    with pytest.raises(DataError, match="No accepted draft is waiting"):
        add_to_dataset(workspace, dataset, task)
    accept(workspace, dataset, task, [3])
    assert add_to_dataset(workspace, dataset, task).counts.train == 15
    undo(workspace, dataset)
    undo(workspace, dataset)
    assert load_task(workspace, dataset, task).tally.taken == 0
    assert add_to_dataset(workspace, dataset, task).counts.train == 15


def test_a_file_of_accepted_rows_never_changes(drafts: Any) -> None:
    """The step that adds it is done again at each change of the data set."""
    workspace, dataset, task = drafts
    folder = workspace.dataset(dataset)
    accept(workspace, dataset, task, [1])
    first = take_over(workspace, dataset, task)
    before = (folder / first.path).read_bytes()
    accept(workspace, dataset, task, [2])
    second = take_over(workspace, dataset, task)
    assert first.path != second.path and (first.count, second.count) == (1, 2)
    assert (folder / first.path).read_bytes() == before
    for added in (first, second):
        data = (folder / added.path).read_bytes()
        assert hashlib.sha256(data).hexdigest() == added.sha256
        assert len(data.splitlines()) == added.count
    assert take_over(workspace, dataset, task) == second


def test_drafts_of_another_form_become_a_data_set_of_their_own(
    make_dataset: Any, endpoint: Any
) -> None:
    workspace, info = make_dataset(questions(3))
    endpoint.answer = lambda number, body: completion(
        json.dumps({"answer_b": "Dunno", "better": "A"})
    )
    task = begin(workspace, info.id, {**QUICK, "kind": "preference_pairs", "rows": 3})
    run_drafts(workspace.root, info.id, task.id)
    accept(workspace, info.id, task.id, [1, 2, 3])
    made = add_to_dataset(workspace, info.id, task.id, name="Pairs")
    assert made.id != info.id and made.form == "preference" and made.name == "Pairs"
    assert made.counts.read == 3 and made.counts.dropped == 0
    row = read_rows(workspace, made.id)[0]
    assert row["rejected"] == [{"role": "assistant", "content": "Dunno"}]
    assert row["meta"] == {"synthetic": "preference_pairs", "synthetic_model": "big"}
    assert load_dataset_info(workspace, info.id).counts.train == 3
    assert load_task(workspace, info.id, task.id).tally.taken == 3


def test_a_wrong_edit_names_the_field_and_changes_nothing(drafts: Any) -> None:
    workspace, dataset, task = drafts
    before = read_drafts(workspace, dataset, task)
    with pytest.raises(DataError, match="completion, turn 1: is empty"):
        edit(workspace, dataset, task, 1, {"prompt": "a", "completion": " "})
    with pytest.raises(DataError, match="There is no draft 7"):
        edit(workspace, dataset, task, 7, {"prompt": "a", "completion": "b"})
    with pytest.raises(DataError, match="There is no draft 0"):
        accept(workspace, dataset, task, [1, 0])
    assert read_drafts(workspace, dataset, task) == before


def test_tasks_are_listed_and_deleted_but_not_while_they_are_needed(drafts: Any) -> None:
    workspace, dataset, task = drafts
    second = begin(workspace, dataset, {**QUICK, "rows": 1})
    assert {one.id for one in list_tasks(workspace, dataset)} == {task, second.id}
    with at_work(second), pytest.raises(JobError, match="at work already"):
        delete_task(workspace, dataset, second.id)
    delete_task(workspace, dataset, second.id)
    assert [one.id for one in list_tasks(workspace, dataset)] == [task]
    accept(workspace, dataset, task, [1])
    add_to_dataset(workspace, dataset, task)
    with pytest.raises(DataError, match="are in the data set"):
        delete_task(workspace, dataset, task)
    with pytest.raises(DataError, match="has no drafts 20261122-0000-no-task"):
        load_task(workspace, dataset, "20261122-0000-no-task")


def test_what_was_asked_cannot_be_changed_but_how_much_can(drafts: Any) -> None:
    workspace, dataset, task = drafts
    with pytest.raises(ConfigError, match="kind: stays as it was"):
        change_task(workspace, dataset, task, {"kind": "paraphrase"})
    change_task(workspace, dataset, task, {"rows": 8})
    assert run_drafts(workspace.root, dataset, task).tally.drafts == 8


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": ""}, "model"),
        ({"rows": 0}, "rows"),
        ({"kind": "poems"}, "kind"),
        ({"max_cost": 1}, "max_cost"),
        ({"token_budget": "many"}, "token_budget"),
        ({"only_label": "tax"}, "only_label"),
        ({"api_key": "x"}, "api_key"),
    ],
)
def test_a_wrong_setting_is_named(
    make_dataset: Any, endpoint: Any, changes: Any, field: str
) -> None:
    workspace, info = make_dataset(questions(2))
    with pytest.raises(ConfigError) as caught:
        begin(workspace, info.id, {**QUICK, **changes})
    assert [problem.field for problem in caught.value.problems] == [field]
    assert list_tasks(workspace, info.id) == []


def test_nothing_begins_without_an_endpoint(
    make_dataset: Any, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, info = make_dataset(questions(2))
    monkeypatch.delenv("TUNESMITH_OPENAI_BASE_URL")
    with pytest.raises(ModelError, match="Set TUNESMITH_OPENAI_BASE_URL"):
        begin(workspace, info.id, QUICK)


def test_a_kind_that_cannot_be_written_from_a_form_is_refused() -> None:
    forms = "text prompt-completion messages preference unpaired-preference prompt-only".split()
    answers = DraftSettings(model="m", kind="answer_prompts")
    pairs = DraftSettings(model="m", kind="preference_pairs")
    for form in [*forms, "labelled-text"]:
        assert drafts_form(draft_settings({"model": "m"}), form) == form
        if form in ("text", "labelled-text"):
            with pytest.raises(ConfigError, match="no prompt"):
                drafts_form(answers, form)
        if form in ("text", "labelled-text", "unpaired-preference"):
            with pytest.raises(ConfigError, match="not possible"):
                drafts_form(pairs, form)
        else:
            assert drafts_form(pairs, form) == "preference"
