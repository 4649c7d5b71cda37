"""A data set is shaped by recorded steps: nothing is dropped unseen, and every step can go back."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from core.data.pipeline import Watched
from core.data.prepare import import_dataset
from core.data.record import DatasetInfo, StepResult
from core.data.registry import changing, load_dataset_info, read_rows
from core.data.steps import parse_steps, read_recipe, with_step, write_recipe
from core.data.steps.base import Setting
from core.data.versions import (
    apply_steps,
    imported_files,
    prune_versions,
    recipe_of,
    recorded_steps,
    try_in_order,
    undo,
    use_version,
)
from core.errors import ConfigError, DataError
from core.jobs.job import Job
from core.jobs.queue import stop_job
from core.jobs.store import Store
from core.language import PSEUDO, _, speaking
from core.rules import parse_config
from core.runs.submit import submit_run
from core.workspace import Workspace
from tests.data.shaping import bring, numbers, step
from tests.waiting import LIMIT


def test_undo_goes_back_and_versions_stay(
    open_workspace: Workspace, questions: DatasetInfo
) -> None:
    """Someone who cleaned too much gets every row back."""
    first = apply_steps(open_workspace, questions.id, step(op="select_rows", rows="1-50"))
    second = apply_steps(
        open_workspace,
        questions.id,
        with_step(recorded_steps(first), *step(op="select_rows", rows="1-5")),
        note="a handful",
    )
    assert [second.version, second.counts.train] == [3, 5]
    assert numbers(open_workspace, second) == list(range(5))
    assert undo(open_workspace, questions.id).counts.train == 50
    assert undo(open_workspace, questions.id).counts.train == 100
    with pytest.raises(DataError, match="nothing to undo"):
        undo(open_workspace, questions.id)
    again = use_version(open_workspace, questions.id, 3)
    assert again.fingerprint == second.fingerprint
    assert numbers(open_workspace, again) == list(range(5))
    assert load_dataset_info(open_workspace, questions.id).versions[2].note == "a handful"


def test_a_run_finds_the_rows_it_began_with(
    open_workspace: Workspace, questions: DatasetInfo
) -> None:
    """Cleaning a data set while a run on it waits must not change what the run learns."""
    apply_steps(open_workspace, questions.id, step(op="select_rows", rows="1-5"))
    then = load_dataset_info(open_workspace, questions.id, questions.fingerprint)
    assert (then.version, then.counts.train) == (1, 100)
    rows = read_rows(open_workspace, questions.id, limit=1000, fingerprint=questions.fingerprint)
    assert len(rows) == 100


def test_pruning_keeps_what_a_waiting_run_needs(
    open_workspace: Workspace, questions: DatasetInfo
) -> None:
    store = Store.open(open_workspace)
    values = {"data.dataset": questions.id, "evaluation.eval_strategy": "no"}
    job = submit_run(open_workspace, store, parse_config(values), devices=["cpu"])
    for last in (50, 40, 30):
        info = apply_steps(open_workspace, questions.id, step(op="select_rows", rows=f"1-{last}"))
    assert prune_versions(open_workspace, questions.id, store) == [2]
    needed = load_dataset_info(open_workspace, questions.id, questions.fingerprint)
    assert (needed.version, needed.rows_path("train").is_file()) == (1, True)
    stop_job(open_workspace, store, job.id)
    assert prune_versions(open_workspace, questions.id, store) == [1]
    left = load_dataset_info(open_workspace, questions.id)
    assert [one.number for one in left.versions] == [3, 4]
    assert not (info.folder / "versions" / "1").exists()
    assert len(numbers(open_workspace, info)) == 30


def test_trying_a_step_writes_nothing(open_workspace: Workspace, questions: DatasetInfo) -> None:
    tried = try_in_order(open_workspace, questions.id, step(op="sample", rows=10), rows=50)[0]
    assert (tried.rows_in, tried.rows_out, tried.dropped) == (50, 10, 40)
    looked = try_in_order(open_workspace, questions.id, step(op="select_rows", rows="3"))[0]
    assert (looked.rows_in, looked.dropped, len(looked.listed)) == (100, 99, 99)
    assert load_dataset_info(open_workspace, questions.id) == questions


def test_the_same_steps_on_a_new_file_give_the_same_kind_of_set(
    open_workspace: Workspace, questions: DatasetInfo, tmp_path: Path
) -> None:
    steps = parse_steps(
        [
            {"op": "select_rows", "condition": "n < 60"},
            {"op": "split", "eval_fraction": 0.5, "seed": 7},
        ]
    )
    info = apply_steps(open_workspace, questions.id, steps)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(write_recipe(recipe_of(info)), encoding="utf-8")
    read = read_recipe(recipe)
    new = import_dataset(
        open_workspace,
        [tmp_path / "rows.jsonl"],
        form=read["form"],
        mapping=read["mapping"],
        steps=parse_steps(read["steps"]),
    )
    assert new.fingerprint == info.fingerprint
    assert new.id != info.id


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: [1, 2]", "steps.0: Input should be a valid dictionary"),
        ("form: 3", "form: Input should be a valid string"),
        ("mapping: [a]", "mapping: Input should be a valid dictionary"),
        ("mapping: {text: 3}", "mapping.text: Input should be a valid string"),
        ("", "is no recipe"),
        ("[" * 20_000, "is not YAML"),
        ("!!python/object/apply:os.system [exit]", "is not YAML"),
        ("something: else", "no recipe"),
        ("steps: [", "not YAML"),
    ],
)
def test_a_broken_recipe_says_so(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_recipe(path)


def test_a_wrong_step_is_named_with_its_field() -> None:
    with pytest.raises(DataError, match="did you mean cap_per_class"):
        parse_steps([{"op": "cap_per_clas"}])
    with pytest.raises(ConfigError) as caught:
        parse_steps([{"op": "shuffle"}, {"op": "cap_per_class", "most": 0}])
    assert [problem.field for problem in caught.value.problems] == ["steps.2.most"]


def test_a_step_of_another_form_is_refused(
    open_workspace: Workspace, questions: DatasetInfo
) -> None:
    with pytest.raises(DataError, match="for labelled-text; this data set is prompt-completion"):
        apply_steps(open_workspace, questions.id, step(op="rename_labels", names={"a": "b"}))


def test_a_step_that_leaves_nothing_is_refused(
    open_workspace: Workspace, questions: DatasetInfo
) -> None:
    with pytest.raises(DataError, match="no row is left to learn from"):
        apply_steps(open_workspace, questions.id, step(op="select_rows", condition="n < 0"))
    assert load_dataset_info(open_workspace, questions.id) == questions


def test_one_change_at_a_time(open_workspace: Workspace, questions: DatasetInfo) -> None:
    """Two people who clean one set at once must not each undo the other's work."""
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with changing(open_workspace, questions.id):
            inside.set()
            leave.wait(LIMIT)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(LIMIT)
    try:
        with pytest.raises(DataError, match="being changed at this moment"):
            apply_steps(open_workspace, questions.id, step(op="shuffle"))
    finally:
        leave.set()
        thread.join()
    assert apply_steps(open_workspace, questions.id, step(op="shuffle")).version == 2


def test_a_stop_in_the_middle_leaves_the_set_as_it_was(
    open_workspace: Workspace, questions: DatasetInfo
) -> None:
    class StoppedError(Exception):
        pass

    def stop(fraction: float, message: str) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        apply_steps(open_workspace, questions.id, step(op="shuffle"), progress=stop)
    assert load_dataset_info(open_workspace, questions.id) == questions
    assert not list(questions.folder.glob(".scratch-*"))
    assert imported_files(questions)["train"].is_file()


def test_deleting_is_refused_while_a_run_needs_the_set(
    open_workspace: Workspace, questions: DatasetInfo
) -> None:
    from core.data.registry import delete_dataset

    store = Store.open(open_workspace)
    store.add(
        Job(
            id="r-1",
            kind="train",
            run_id="r-1",
            folder="runs/r-1",
            name="my run",
            dataset=questions.id,
        )
    )
    with pytest.raises(DataError, match="needed by my run"):
        delete_dataset(open_workspace, questions.id, store)
    assert store.transition("r-1", {"queued"}, "stopped")
    delete_dataset(open_workspace, questions.id, store)
    assert not questions.folder.exists()


def test_a_set_from_before_there_were_versions_still_opens(open_workspace: Workspace) -> None:
    """An update of the program must not cost anybody their data sets."""
    folder = open_workspace.datasets / "old"
    folder.mkdir(parents=True)
    turns = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    schema = pa.schema([("prompt", turns), ("completion", turns)])
    for part, count in (("train", 20), ("eval", 3)):
        rows = [
            {
                "prompt": [{"role": "user", "content": f"{part} {n}"}],
                "completion": [{"role": "assistant", "content": "A"}],
            }
            for n in range(count)
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / f"{part}.parquet")
    record = {"id": "old", "name": "Old", "form": "prompt-completion", "fingerprint": "f" * 64}
    counts = {"read": 23, "train": 20, "eval": 3, "dropped": 0}
    (folder / "dataset.json").write_text(json.dumps({**record, "counts": counts}))
    info = load_dataset_info(open_workspace, "old")
    assert (info.version, info.parts) == (0, ("train", "eval"))
    assert read_rows(open_workspace, "old", limit=1)[0]["prompt"][0]["content"] == "train 0"
    made = apply_steps(open_workspace, "old", step(op="sample", rows=5))
    assert (made.version, made.counts.train + made.counts.eval) == (1, 5)
    back = undo(open_workspace, "old")
    assert (back.version, back.counts.train, back.fingerprint) == (0, 20, "f" * 64)
    assert len(read_rows(open_workspace, "old", limit=100)) == 20


def test_a_trial_tells_how_far_it_is_and_ends_when_it_is_stopped(
    open_workspace: Workspace, tmp_path: Path
) -> None:
    """Near duplicates of 10,000 rows take a while, and a person may not want to wait."""
    info = bring(open_workspace, tmp_path, [{"text": f"Row {n}."} for n in range(900)])
    steps = parse_steps([{"op": "drop_duplicates"}, {"op": "drop_empty"}])
    told: list[tuple[float, str]] = []
    tried = try_in_order(
        open_workspace, info.id, steps, progress=lambda share, text: told.append((share, text))
    )
    assert [one.rows_in for one in tried] == [900, 900]
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and len(set(shares)) > 6 and max(shares) < 1
    assert {text for _, text in told[1:]} == {one.title for one in tried}

    class Enough(Exception):
        pass

    def stop(share: float, text: str) -> None:
        if share > 0.5:
            raise Enough

    with pytest.raises(Enough):
        try_in_order(open_workspace, info.id, steps, progress=stop)


def test_a_step_that_must_see_all_rows_tells_how_far_it_is_and_never_goes_back(
    open_workspace: Workspace, tmp_path: Path
) -> None:
    """The search for near duplicates said nothing until it was done: nobody knew how long."""
    info = bring(open_workspace, tmp_path, [{"text": f"Row {n} is here."} for n in range(5000)])
    steps = [*step(op="drop_near_duplicates"), *step(op="drop_empty"), *step(op="shuffle")]
    shares: list[float] = []
    apply_steps(open_workspace, info.id, steps, progress=lambda share, text: shares.append(share))
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert len({share for share in shares if share < 0.4}) > 3


def test_what_was_stored_is_read_in_the_readers_language(
    open_workspace: Workspace, tmp_path: Path
) -> None:
    """A worker speaks English; whoever opens the data set later may not."""
    rows = [{"prompt": f"Q {n}", "answer": "A" * bool(n)} for n in range(5)]
    info = bring(open_workspace, tmp_path, rows, eval_fraction=0)
    assert info.dropped[0].reason == "the answer is empty"
    info.warnings = [_("turn {number} has no name", number=1)]
    info.steps = [StepResult(step={}, reasons={_("turn {number} is empty", number="N"): 2})]
    info.save()
    with speaking(PSEUDO):
        read = load_dataset_info(open_workspace, info.id)
        stored = [read.dropped[0].reason, read.form_reason, read.versions[0].note, *read.warnings]
        assert all(text.startswith("⟦") for text in [*stored, *read.steps[0].reasons])
    assert [f"{text}" for text in read.steps[0].reasons] == ["turn N is empty"]
    assert str(read.form_reason) == info.form_reason
    assert StepResult(step={}, reasons={"written before": 3}).reasons == {"written before": 3}
    with pytest.raises(ValidationError):
        StepResult.model_validate({"step": {}, "reasons": [3]})


def test_rows_dropped_for_one_reason_are_counted_together(open_workspace: Workspace) -> None:
    """Their numbers and names differ; what is counted is still said to each reader anew."""
    setting = Setting(open_workspace, "text", open_workspace.datasets)
    watched = Watched.begin(*step(op="drop_empty"), setting)
    for n in range(3):
        row = _("{part} row {number}", part="train", number=n)
        watched.drop("train", n, _("also stands in {row}", row=row), None)
        watched.drop("train", n, _("{rows:,} rows too many", rows=n), None)
    assert watched.result.reasons == {
        "also stands in train row N": 3,
        "N rows too many": 3,
    }
    with speaking(PSEUDO):
        assert str(next(iter(watched.result.reasons))).startswith("⟦")
