"""The job store: states, the queue, and what happens when the file is lost, broken or old."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from core.errors import JobError
from core.jobs.events import EventWriter
from core.jobs.job import ACTIVE, Job, read_record, update_record, write_record
from core.jobs.queue import new_folder
from core.jobs.store import Store
from core.language import Text, _
from core.rules import parse_config
from core.workspace import Workspace
from tests.jobs.bench import for_slot


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "tunesmith.db")


def job(number: int = 1, **values: object) -> Job:
    name = f"run-{number}"
    return Job(id=name, kind="train", run_id=name, folder=f"runs/{name}", **values)  # type: ignore[arg-type]


def claim(store: Store, slot: str = "cpu", owner: int = 1, only: str | None = None) -> Job | None:
    return store.claim(choose=for_slot(slot), owner=(owner, 1.0), only=only)


def test_a_job_comes_back_as_it_was_added(store: Store) -> None:
    """A field that is lost is lost for every list, chart and resume."""
    added = store.add(job(name="first", params={"a": [1, None]}, created_at=5.0, note="é"))
    assert store.get("run-1") == added
    assert (added.params, added.note, added.state) == ({"a": [1, None]}, "é", "queued")
    with pytest.raises(JobError, match="no job run-2"):
        store.get("run-2")


def test_a_name_may_be_a_sentence_or_look_like_one(store: Store) -> None:
    """What a person typed must not keep the list of jobs from being read."""
    names = [_("Without {step}", step="it"), '{"_": ', '{"_": 3}']
    for number, name in enumerate(names):
        store.add(job(number, name=name))
        assert store.get(f"run-{number}").name == name
    assert isinstance(store.get("run-0").name, Text)


def test_a_state_changes_only_from_the_states_that_are_named(store: Store) -> None:
    """A stop that comes too late must not turn a finished run into a stopped one."""
    store.add(job(state="finished"))
    assert not store.transition("run-1", ACTIVE, "stopped", error="no")
    assert store.get("run-1").state == "finished"
    assert store.get("run-1").error is None
    assert store.transition("run-1", {"finished"}, "queued", step=3)
    assert (store.get("run-1").state, store.get("run-1").step) == ("queued", 3)


def test_update_cannot_change_the_state(store: Store) -> None:
    """Only compare-and-set may, or two writers undo each other."""
    store.add(job())
    with pytest.raises(ValueError, match="transition"):
        store.update("run-1", state="running")
    with pytest.raises(ValueError, match="no stepp"):
        store.update("run-1", stepp=1)


def test_a_job_is_claimed_once_by_however_many(tmp_path: Path) -> None:
    """A run that two schedulers start would be trained twice into one folder."""
    path = tmp_path / "tunesmith.db"
    first = Store(path)
    for number in range(20):
        first.add(job(number))
    taken: list[str] = []

    def take(owner: int) -> None:
        mine = Store(path)
        while (got := claim(mine, slot=f"slot-{owner}-{len(taken)}", owner=owner)) is not None:
            taken.append(got.id)
        mine.close()

    threads = [threading.Thread(target=take, args=(owner,)) for owner in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(item.id for item in first.list())


def test_a_slot_that_is_taken_takes_nothing_more(store: Store) -> None:
    """Also when the job in it belongs to another process."""
    store.add(job(1))
    store.add(job(2))
    assert claim(store, owner=1) is not None
    assert claim(store, owner=2) is None
    assert store.transition("run-1", ACTIVE, "finished")
    second = claim(store, owner=2)
    assert second is not None
    assert second.id == "run-2"


def test_the_queue_keeps_its_order_and_can_be_changed(store: Store) -> None:
    """People put the urgent run first."""
    for number in range(4):
        store.add(job(number, created_at=100.0 - number))
    store.reorder("run-3", 0)
    store.reorder("run-0", 99)
    order = [item.id for item in store.list(states={"queued"})]
    assert order == ["run-3", "run-1", "run-2", "run-0"]
    store.transition("run-3", {"queued"}, "starting")
    with pytest.raises(JobError, match="not waiting"):
        store.reorder("run-3", 1)
    assert store.enqueue("run-3", {"starting"})
    assert [item.id for item in store.list(states={"queued"})][-1] == "run-3"


def test_only_one_adopts_a_job(tmp_path: Path) -> None:
    """Two servers that start at once must not both look after a run."""
    one, two = Store(tmp_path / "tunesmith.db"), Store(tmp_path / "tunesmith.db")
    orphan = one.add(job(state="running", owner_pid=7, owner_started_at=1.0))
    assert one.adopt(orphan, (8, 2.0))
    assert not two.adopt(orphan, (9, 3.0))
    assert two.get("run-1").owner_pid == 8


def test_a_transaction_that_fails_leaves_nothing(store: Store) -> None:
    """Half of a change is a row that says what no folder does."""
    store.add(job())
    with pytest.raises(RuntimeError), store.transaction():
        store.transition("run-1", {"queued"}, "starting")
        raise RuntimeError
    assert store.get("run-1").state == "queued"


def test_a_lost_store_is_made_again_from_the_folders(tmp_path: Path) -> None:
    """The database is an index: deleting it must cost nothing."""
    workspace = Workspace.open(tmp_path)
    kept = job(name="mine", state="finished", created_at=9.0, step=40, best_eval_loss=0.5, note="n")
    write_record(workspace.run("run-1").root, kept)
    exported = Job(
        id="e1", kind="export", run_id="run-1", folder="runs/run-1/exports/e1", state="finished"
    )
    write_record(tmp_path / exported.folder, exported)
    (workspace.runs / "not-a-run").mkdir()
    store = Store.open(workspace)
    assert store.get("run-1") == kept
    assert store.get("e1").run_id == "run-1"
    assert len(store.list()) == 2
    assert store.rebuild(workspace) == 0


def test_a_folder_that_was_copied_in_becomes_a_run_of_its_own(tmp_path: Path) -> None:
    """A run from another machine opens under its folder's name, and no worker is taken for its."""
    workspace = Workspace.open(tmp_path)
    write_record(workspace.run("copy-2").root, job(state="running", pid=1, pid_started_at=1.0))
    store = Store.open(workspace)
    assert store.get("copy-2").run_id == "copy-2"
    assert store.get("copy-2").folder == "runs/copy-2"
    assert store.get("copy-2").pid is None


def test_a_run_that_was_copied_with_its_exports_keeps_no_store_from_being_made(
    tmp_path: Path,
) -> None:
    """The same ids twice: the server would not start any more."""
    workspace = Workspace.open(tmp_path)
    for name in ("run-1", "copy-2"):
        run = workspace.run(name).root
        write_record(run, job(state="finished"))
        write_record(
            run / "exports/e1", Job("e1", "export", "run-1", "runs/run-1/exports/e1", state="died")
        )
    store = Store.open(workspace)
    assert sorted(item.id for item in store.list()) == ["copy-2", "e1", "run-1"]


def test_no_two_jobs_get_one_id(tmp_path: Path) -> None:
    """Ids are a minute and two words: an export and a run may draw the same ones."""
    workspace = Workspace.open(tmp_path)
    store = Store.open(workspace)
    for kind, parent in (("train", workspace.runs), ("import", workspace.jobs)):
        for _place in range(200):
            name, folder = new_folder(store, parent)
            store.add(Job(name, kind, "", folder.relative_to(tmp_path).as_posix()))


def test_a_folder_that_was_removed_takes_its_row_along(tmp_path: Path) -> None:
    """Who deletes a run in the file browser must not see it in the list for ever."""
    workspace = Workspace.open(tmp_path)
    for number in (1, 2):
        write_record(workspace.run(f"run-{number}").root, job(number, state="finished"))
    store = Store.open(workspace)
    shutil.rmtree(workspace.run("run-1").root)
    store.rebuild(workspace)
    assert [item.id for item in store.list()] == ["run-2"]


def test_a_job_json_that_is_wrong_does_no_harm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One spoiled folder must not keep all the others from being listed, nor be lost itself."""
    workspace = Workspace.open(tmp_path)
    good = {"kind": "train", "state": "finished", "id": "good"}
    contents = {
        "good": {**good, "created_at": 5, "step": "many", "params": [], "folder": "/etc", "x": 1},
        "no-state": {**good, "state": "asleep", "note": "mine"},
        "no-kind": {"state": "finished"},
        "My run": good,
    }
    for name, content in contents.items():
        (workspace.runs / name).mkdir()
        (workspace.runs / name / "job.json").write_text(json.dumps(content))
    store = Store.open(workspace)
    read = store.get("good")
    assert (read.folder, read.created_at, read.step, read.params) == ("runs/good", 5, 0, {})
    for name in ("no-state", "no-kind", "My run"):
        assert name in caplog.text
    assert {job.id for job in store.list()} == {"good", "no-state", "no-kind"}
    assert (store.get("no-state").state, store.get("no-state").note) == ("failed", "mine")
    assert "job.json cannot be read" in str(store.get("no-kind").error)


TORN = '{"id": "run-1", "kind": "train", "sta'


@pytest.mark.parametrize("state", ["queued", "running", "finished", "failed"])
def test_a_run_whose_job_json_is_torn_is_shown_with_what_the_rest_tells(
    tmp_path: Path, state: str
) -> None:
    """Hours of training must not vanish from the list for one file."""
    workspace = Workspace.open(tmp_path)
    run = workspace.run("run-1")
    run.root.mkdir()
    values = {"name": "mine", "data.dataset": "d1", "model.model_name_or_path": "m1"}
    parse_config(values).save(run.config)
    run.job.write_text(TORN)
    events = EventWriter(run.events)
    events.write("state", state="queued")
    if state != "queued":
        events.write("state", state="running", pid=1, pid_started_at=1.0)
        events.write("metrics", step=7, eval_loss=0.5)
    if state in ("finished", "failed"):
        events.write("state", state=state, error="no room" if state == "failed" else None)
    read = Store.open(workspace).get("run-1")
    assert (read.name, read.dataset, read.model, read.state) == ("mine", "d1", "m1", state)
    assert read.step == (0 if state == "queued" else 7)
    assert read.error == ("no room" if state == "failed" else None)


def test_an_end_that_only_the_events_tell_is_believed(tmp_path: Path) -> None:
    """A worker that was killed between its last event and job.json has finished all the same."""
    workspace = Workspace.open(tmp_path)
    folder = workspace.run("run-1").root
    write_record(folder, job(state="running"))
    EventWriter(folder / "events.jsonl").write("state", state="failed", error="no room")
    rebuilt = Store.open(workspace).get("run-1")
    assert (rebuilt.state, rebuilt.error) == ("failed", "no room")
    assert rebuilt.ended_at is not None


def test_a_broken_database_is_put_aside_and_made_again(tmp_path: Path) -> None:
    """A disk error in an index must not lock people out of their runs."""
    workspace = Workspace.open(tmp_path)
    write_record(workspace.run("run-1").root, job(state="finished"))
    workspace.database.write_bytes(b"this is no database" * 1000)
    store = Store.open(workspace)
    assert store.get("run-1").state == "finished"
    assert len(list(tmp_path.glob("tunesmith.db.broken-*"))) == 1


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """An older program that writes into tables it does not know would spoil them."""
    path = tmp_path / "tunesmith.db"
    Store(path).close()
    sql = sqlite3.connect(path)
    sql.execute("INSERT INTO migrations VALUES ('m999_future', 0)")
    sql.commit()
    sql.close()
    with pytest.raises(JobError, match="newer Tunesmith"):
        Store(path)


def test_reopening_applies_nothing_twice(tmp_path: Path) -> None:
    """The second start must find what the first one left."""
    path = tmp_path / "tunesmith.db"
    first = Store(path)
    assert first.fresh
    first.add(job())
    first.close()
    again = Store(path)
    assert not again.fresh
    assert again.get("run-1").id == "run-1"


def test_many_may_change_job_json_at_once(tmp_path: Path) -> None:
    """The worker ends while somebody renames the run: neither change may be lost."""
    write_record(tmp_path, job())
    names = ["step", "note", "name", "pid", "error", "model"]

    def change(name: str) -> None:
        for number in range(10):
            update_record(tmp_path, **{name: number})

    threads = [threading.Thread(target=change, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record = read_record(tmp_path)
    assert {name: record[name] for name in names} == dict.fromkeys(names, 9)


def test_the_time_of_pauses_is_not_counted(store: Store) -> None:
    """A run resumed the next day did not take a day."""
    resumed = store.add(job(started_at=1000.0, ended_at=1030.0, earlier_seconds=60.0))
    assert resumed.seconds(5000.0) == 90.0
    assert job(started_at=1000.0).seconds(1004.0) == 4.0
    assert job(earlier_seconds=60.0).seconds(9.0) == 60.0
