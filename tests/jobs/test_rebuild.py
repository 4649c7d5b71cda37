"""A store that was lost is made again from the folders, and equals the one that was lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.jobs.job import Job, read_record
from core.jobs.process import WorkerContext
from core.jobs.queue import move_job, stop_job
from core.jobs.store import Store
from tests.jobs.bench import Bench
from tests.waiting import until


def _lost_and_made_again(bench: Bench, path: Path) -> tuple[dict[str, Job], dict[str, Job]]:
    """Every job by its id, of the store there is and of one made from the folders; without what
    belongs to a scheduler, and with the order of the queue counted anew."""
    again = Store(path)
    again.rebuild(bench.workspace)
    found = []
    for store in (bench.store, again):
        waiting = [job.id for job in store.list(states={"queued"})]
        jobs = {job.id: replace(job, owner_pid=None, owner_started_at=None) for job in store.list()}
        for place, name in enumerate(waiting):
            jobs[name] = replace(jobs[name], position=place)
        found.append(jobs)
    again.close()
    return found[0], found[1]


ENDS = {
    "finished": {},
    "failed": {"behaviour": "raise"},
    "died": {"behaviour": "killed"},
    "stopped": {"gated": True},
    "cancelled": {"gated": True},
}


@pytest.mark.parametrize("end", ENDS)
def test_a_job_that_has_ended_is_the_same_again(bench: Bench, tmp_path: Path, end: str) -> None:
    """A list that forgot how far a run came, or why it failed, after a lost file."""
    job = bench.add(steps=3, **ENDS[end])
    if end == "cancelled":
        stop_job(bench.workspace, bench.store, job.id)
    bench.scheduler()
    if end == "stopped":
        bench.allow(job, 1)
        bench.wait_step(job, 1)
        stop_job(bench.workspace, bench.store, job.id)
    until(lambda: bench.store.get(job.id).ended)
    bench.schedulers[0].close()  # with what it still has to write
    before, again = _lost_and_made_again(bench, tmp_path / "again.db")
    assert again == before
    assert before[job.id].step == {"stopped": 1, "cancelled": 0}.get(end, 3)


def test_jobs_that_wait_or_work_are_the_same_again(bench: Bench, tmp_path: Path) -> None:
    """The queue must not be another one, nor a run be taken for one that nobody stopped."""
    stopping = bench.add(steps=9, gated=True, behaviour="deaf")
    waiting = [bench.add(steps=1, gated=True) for _ in range(3)]
    move_job(bench.workspace, bench.store, waiting[2].id, 1)
    bench.scheduler()
    bench.allow(stopping, 2)
    running = bench.wait_step(stopping, 2)
    assert running.state == "running"

    def same(state: str) -> bool:
        """The scheduler tells the store a moment after the worker told the folder."""
        (tmp_path / "again.db").unlink(missing_ok=True)
        before, again = _lost_and_made_again(bench, tmp_path / "again.db")
        return again == before and before[stopping.id].state == state

    until(lambda: same("running"))
    stop_job(bench.workspace, bench.store, stopping.id)
    until(lambda: same("stopping"))


def test_a_job_whose_worker_is_still_being_started_is_the_same_again(
    bench: Bench, tmp_path: Path
) -> None:
    """It would be started a second time, in the same folder."""
    hanging = WorkerContext(("tests.jobs.hanging_preload",), start_seconds=3)
    job = bench.add()
    scheduler = bench.scheduler(workers=hanging)
    until(lambda: read_record(bench.folder(job))["state"] == "starting")
    before, again = _lost_and_made_again(bench, tmp_path / "starting.db")
    assert again == before
    assert before[job.id].state == "starting"
    scheduler.close()  # it would have another fork server begin
    hanging.close()
