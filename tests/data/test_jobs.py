"""Long work on data as jobs: it outlives a killed server, stops when asked, and leaves no halves.

Real servers and workers. A worker that must not be done yet stands still until it may go on.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from core.data.drafts import review, tasks
from core.data.jobs import (
    submit_adding,
    submit_combine,
    submit_drafts,
    submit_import,
    submit_steps,
)
from core.data.prepare import import_dataset
from core.data.registry import delete_dataset, list_datasets, load_dataset_info
from core.data.steps import parse_steps
from core.errors import DataError, JobError
from core.jobs.job import Job, read_record
from core.jobs.kinds import KINDS
from core.jobs.process import named
from core.jobs.queue import dismiss_job, forget_old_jobs, stop_job
from core.jobs.store import Store
from core.jobs.task import read_result
from tests.data.drafts.conftest import KEY, Answer, StandIn, new_rows, serve
from tests.jobs.bench import Bench
from tests.waiting import LIMIT, until

ROWS = 40_000
PAIR = json.dumps({"prompt": "What is it?", "completion": "It is that."}) + "\n"
DAY = 86400.0


@pytest.fixture
def bench(workspace: Path) -> Iterator[Bench]:
    bench = Bench(workspace)
    yield bench
    bench.close()


def write(bench: Bench, rows: int, name: str) -> str:
    path = bench.workspace.root / f"{name}.jsonl"
    path.write_text(PAIR * rows, encoding="utf-8")
    return str(path)


def texts(bench: Bench) -> str:
    """A data set on which the search for near duplicates takes a while."""
    chance = random.Random(7)
    words = [f"word{n}" for n in range(3000)]
    pieces = [" ".join(chance.choices(words, k=200)) for _ in range(100)]
    path = bench.workspace.root / "texts.jsonl"
    lines = (json.dumps({"text": " ".join(chance.choices(pieces, k=4))}) for _ in range(2_000))
    path.write_text("\n".join(lines), encoding="utf-8")
    return import_dataset(bench.workspace, [path], name="texts", eval_fraction=0.0).id


def near_duplicates(bench: Bench) -> Job:
    steps = parse_steps([{"op": "drop_near_duplicates"}])
    dataset = texts(bench)
    title = "Drop near duplicates"
    return submit_steps(bench.workspace, bench.store, dataset, steps, title=title, note="n")


@contextmanager
def held(bench: Bench, job: Job) -> Iterator[psutil.Process]:
    """The worker of a job stands still as soon as there is one, until the end of the block."""
    bench.wait_state(job, "running")
    worker = psutil.Process(bench.store.get(job.id).pid)
    worker.suspend()
    assert bench.store.get(job.id).active
    try:
        yield worker
    finally:
        with suppress(psutil.NoSuchProcess):
            worker.resume()


def kill(server: subprocess.Popen[str]) -> None:
    os.kill(server.pid, signal.SIGKILL)
    server.wait()


def told(bench: Bench, job: Job) -> str:
    result = read_result(bench.folder(job))
    return str(named(KINDS[job.kind].result)(job, result))


def test_an_import_goes_on_when_its_server_is_killed(bench: Bench) -> None:
    """Whoever brought a large file must not bring it again because the server was restarted."""
    job = submit_import(bench.workspace, bench.store, [write(bench, ROWS, "many")], "Many")
    server = bench.server(real=True)
    with held(bench, job) as worker:
        kill(server)
        bench.server(real=True)
        until(lambda: bench.store.get(job.id).owner_pid == bench.servers[-1].pid)
        assert list_datasets(bench.workspace) == []
    done = bench.wait_state(job, "finished")
    assert done.pid == worker.pid
    assert told(bench, job) == "Many is imported: 36,000 rows to learn, 4,000 held out."
    assert [info.name for info in list_datasets(bench.workspace)] == ["Many"]


def test_an_import_whose_worker_was_killed_with_the_server_died_and_left_nothing(
    bench: Bench,
) -> None:
    job = submit_import(bench.workspace, bench.store, [write(bench, ROWS, "many")], "Many")
    server = bench.server(real=True)
    with held(bench, job) as worker:
        kill(server)
        worker.kill()
    bench.server(real=True)
    ended = bench.wait_state(job, "died")
    assert ended.advice == "Start it again."
    assert list_datasets(bench.workspace) == []


def test_steps_go_on_when_their_server_is_killed(bench: Bench) -> None:
    job = near_duplicates(bench)
    server = bench.server(real=True)
    with held(bench, job):
        kill(server)
        bench.server(real=True)
        until(lambda: bench.store.get(job.id).owner_pid == bench.servers[-1].pid)
    bench.wait_state(job, "finished")
    info = load_dataset_info(bench.workspace, job.dataset)
    assert (info.version, info.versions[-1].note) == (2, "n")
    assert told(bench, job) == "Drop near duplicates: version 2 is in use."


def test_a_step_that_is_stopped_leaves_the_data_set_as_it_was(bench: Bench) -> None:
    job = near_duplicates(bench)
    bench.server(real=True)
    with held(bench, job):
        with pytest.raises(JobError, match="Drop near duplicates is still going on"):
            submit_steps(bench.workspace, bench.store, job.dataset, [], title="Another")
        with pytest.raises(DataError, match="is needed by Drop near duplicates"):
            delete_dataset(bench.workspace, job.dataset, bench.store)
        stop_job(bench.workspace, bench.store, job.id)
    assert bench.wait_state(job, "stopped").signal is None
    info = load_dataset_info(bench.workspace, job.dataset)
    assert info.version == 1
    assert not list(info.folder.glob(".scratch-*"))


def test_a_step_that_fails_says_why(bench: Bench) -> None:
    dataset = texts(bench)
    steps = parse_steps([{"op": "select_rows", "condition": 'text == "nothing"'}])
    job = submit_steps(bench.workspace, bench.store, dataset, steps, title="Select")
    bench.server(real=True)
    failed = bench.wait_state(job, "failed")
    assert failed.error and failed.advice
    assert load_dataset_info(bench.workspace, dataset).version == 1


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The second reply of the endpoint waits until this is set."""
    gate = threading.Event()

    def answer(number: int, body: dict[str, object]) -> Answer:
        assert number == 0 or gate.wait(LIMIT)
        return new_rows(number, body)

    stand_in = StandIn(answer)
    endpoint = serve(stand_in)
    monkeypatch.setenv("TUNESMITH_OPENAI_BASE_URL", stand_in.url)
    monkeypatch.setenv("TUNESMITH_OPENAI_API_KEY", KEY)
    yield gate
    gate.set()
    endpoint.shutdown()
    endpoint.server_close()


def drafts(bench: Bench) -> tuple[Job, tasks.DraftTask]:
    dataset = import_dataset(bench.workspace, [write(bench, 10, "few")], eval_fraction=0.0).id
    settings = {"model": "stand-in", "rows": 4, "rows_per_request": 2, "requests_at_once": 1}
    task = tasks.begin(bench.workspace, dataset, settings)
    job = submit_drafts(bench.workspace, bench.store, dataset, task.id)
    return job, task


def so_far(bench: Bench, task: tasks.DraftTask) -> tasks.DraftTask:
    return tasks.load_task(bench.workspace, task.dataset, task.id)


def test_drafts_are_written_on_when_their_server_is_killed_and_become_rows(
    bench: Bench, gate: threading.Event
) -> None:
    job, task = drafts(bench)
    server = bench.server(real=True)
    until(lambda: so_far(bench, task).tally.drafts == 2)
    kill(server)
    assert so_far(bench, task).state == "working"
    bench.server(real=True)
    gate.set()
    bench.wait_state(job, "finished")
    written = so_far(bench, task)
    assert (written.state, written.tally.drafts) == ("finished", 4)
    review.accept(bench.workspace, task.dataset, task.id, [1, 2])
    adding = submit_adding(bench.workspace, bench.store, task.dataset, task.id)
    bench.wait_state(adding, "finished")
    assert told(bench, adding) == "Added. Version 2 is in use."
    assert load_dataset_info(bench.workspace, task.dataset).counts.train == 12
    assert KEY not in (bench.folder(job) / "worker.log").read_text()


def test_drafts_that_are_stopped_keep_what_was_written(bench: Bench, gate: threading.Event) -> None:
    job, task = drafts(bench)
    bench.server(real=True)
    until(lambda: so_far(bench, task).tally.drafts == 2)
    stop_job(bench.workspace, bench.store, job.id)
    bench.wait_state(job, "stopped")
    written = so_far(bench, task)
    assert (written.state, written.reason, written.tally.drafts) == ("stopped", "Stopped.", 2)
    gate.set()
    again = submit_drafts(bench.workspace, bench.store, task.dataset, task.id)
    bench.wait_state(again, "finished")
    assert so_far(bench, task).tally.drafts == 4


def test_drafts_whose_worker_died_can_be_gone_on_with(bench: Bench, gate: threading.Event) -> None:
    job, task = drafts(bench)
    server = bench.server(real=True)
    until(lambda: so_far(bench, task).tally.drafts == 2)
    kill(server)
    psutil.Process(bench.store.get(job.id).pid).kill()
    bench.server(real=True)
    bench.wait_state(job, "died")
    assert (so_far(bench, task).state, so_far(bench, task).reason) == ("stopped", tasks.DIED)


def test_data_sets_are_put_together_by_a_job(bench: Bench) -> None:
    ids = [
        import_dataset(bench.workspace, [write(bench, 10, name)], eval_fraction=0.0).id
        for name in ("one", "two")
    ]
    weighted = [(ids[0], 1.0), (ids[1], 0.5)]
    job = submit_combine(bench.workspace, bench.store, weighted, name="Both", seed=1)
    bench.server(real=True)
    bench.wait_state(job, "finished")
    assert told(bench, job) == "Both is put together: 15 rows to learn."


def test_the_store_is_rebuilt_from_the_folders_of_jobs_on_data(bench: Bench) -> None:
    job = submit_import(bench.workspace, bench.store, [write(bench, 10, "few")], "few")
    bench.server(real=True)
    done = bench.wait_state(job, "finished")
    bench.close()
    bench.store.close()
    bench.workspace.database.unlink()
    bench.store = Store.open(bench.workspace)
    again = bench.store.get(job.id)
    assert (again.kind, again.state, again.name) == ("import", "finished", "few")
    assert again.params == done.params


def test_what_is_left_of_a_job_goes_some_time_after_its_end_was_seen(bench: Bench) -> None:
    """A year of imports must not pile up, and an end that nobody has seen must not be lost."""
    seen, unseen = (
        submit_import(bench.workspace, bench.store, [write(bench, 2, name)], name)
        for name in ("a", "b")
    )
    for job in (seen, unseen):
        stop_job(bench.workspace, bench.store, job.id)
    dismiss_job(bench.workspace, bench.store, seen.id)
    assert read_record(bench.folder(seen))["params"]["seen"] is True
    now = bench.store.get(seen.id).ended_at or 0.0
    forget_old_jobs(bench.workspace, bench.store, now + DAY / 2)
    assert len(bench.store.list()) == 2
    forget_old_jobs(bench.workspace, bench.store, now + 2 * DAY)
    assert [job.id for job in bench.store.list()] == [unseen.id]
    assert not bench.folder(seen).exists() and bench.folder(unseen).is_dir()
    forget_old_jobs(bench.workspace, bench.store, now + 40 * DAY)
    assert bench.store.list() == []
