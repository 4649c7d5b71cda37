"""Runs from the queue to their end, in real worker processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from core.errors import JobError
from core.jobs.events import EventWriter, read_events
from core.jobs.job import ACTIVE, Job, read_record
from core.jobs.process import WorkerContext, same_process
from core.jobs.queue import stop_job
from core.jobs.scheduler import live_server
from core.jobs.store import Store
from core.language import PSEUDO, speaking
from tests.jobs.bench import LIGHT, Bench
from tests.waiting import until


def states(bench: Bench, job: Job) -> list[str]:
    events = read_events(bench.folder(job) / "events.jsonl")
    return [event["state"] for event in events if event["kind"] == "state"]


def test_a_run_goes_from_the_queue_to_its_end(bench: Bench) -> None:
    """Else nobody could train at all."""
    job = bench.add(steps=3)
    bench.scheduler()
    done = bench.wait_state(job, "finished")
    assert (done.step, done.max_steps, done.device) == (3, 3, "cpu")
    assert done.best_eval_loss == pytest.approx(2 / 3)
    assert done.started_at <= done.ended_at
    assert states(bench, job) == ["queued", "starting", "running", "finished"]
    assert "begins after step 0" in (bench.folder(job) / "worker.log").read_text()
    assert read_record(bench.folder(job))["state"] == "finished"


def test_runs_on_one_device_take_turns_in_the_order_of_the_queue(bench: Bench) -> None:
    """Two trainings at once on one device would run out of its memory."""
    first, second, third = (bench.add(steps=1, gated=True) for _ in range(3))
    bench.store.reorder(third.id, 0)
    bench.scheduler()
    for job in (third, first, second):
        bench.wait_state(job, "running")
        active = bench.store.list(states=ACTIVE)
        assert [item.id for item in active] == [job.id]
        bench.allow(job, 1)
        bench.wait_state(job, "finished")


def test_each_gpu_has_a_slot_and_the_worker_sees_only_its_own(bench: Bench) -> None:
    """Two runs on two GPUs must not meet on one."""
    jobs = [bench.add(steps=1, gated=True) for _ in range(3)]
    bench.scheduler(devices=["cuda:0", "cuda:1", "cpu"])
    one, two = (bench.wait_state(job, "running") for job in jobs[:2])
    assert {one.device, two.device} == {"cuda:0", "cuda:1"}
    assert bench.store.get(jobs[2].id).state == "queued"
    bench.allow(one, 1)
    three = bench.wait_state(jobs[2], "running")
    assert three.device == one.device


def test_an_export_does_not_wait_for_a_training_on_the_cpu(bench: Bench) -> None:
    """A minute's export behind a training of three hours is three hours of waiting."""
    run = bench.add(steps=1, gated=True)
    bench.scheduler()
    bench.wait_state(run, "running")
    first = bench.add("export", run_id=run.id, gated=True)
    second = bench.add("evaluate", run_id=run.id)
    bench.wait_state(first, "running")
    assert bench.store.get(second.id).state == "queued"
    bench.allow(first, 1)
    bench.wait_state(second, "finished")
    assert bench.store.get(run.id).state == "running"


def test_stop_saves_a_checkpoint_and_ends(bench: Bench) -> None:
    """A stop that loses the work done is a kill."""
    job = bench.add(steps=9, gated=True)
    bench.scheduler()
    bench.allow(job, 2)
    bench.wait_step(job, 2)
    assert stop_job(bench.workspace, bench.store, job.id).state == "stopping"
    bench.wait_state(job, "stopped")
    assert (bench.folder(job) / "checkpoints/checkpoint-2/trainer_state.json").exists()
    assert not (bench.folder(job) / "STOP").exists()


def test_a_worker_that_does_not_stop_is_killed_after_the_grace_time(bench: Bench) -> None:
    """Else a hung run holds its device for ever."""
    job = bench.add(steps=9, gated=True, behaviour="deaf")
    bench.scheduler(stop_seconds=0.3)
    running = bench.wait_state(job, "running")
    stop_job(bench.workspace, bench.store, job.id)
    ended = bench.wait_state(job, "stopped")
    assert ended.signal == 9
    assert not same_process(running.pid, running.pid_started_at)
    last = read_events(bench.folder(job) / "events.jsonl")[-1]
    assert "did not stop within" in last["reason"]


def test_stop_now_kills_at_once(bench: Bench) -> None:
    """Who presses stop twice does not want to wait for the grace time."""
    job = bench.add(steps=9, gated=True, behaviour="deaf")
    bench.scheduler(stop_seconds=600)
    bench.wait_state(job, "running")
    stop_job(bench.workspace, bench.store, job.id)
    bench.wait_state(job, "stopping")
    stop_job(bench.workspace, bench.store, job.id, now=True)
    assert bench.wait_state(job, "stopped").signal == 9


def test_sigterm_to_a_worker_is_a_stop(bench: Bench) -> None:
    """A machine that shuts down sends it: the run must save before it goes."""
    job = bench.add(steps=9, gated=True)
    bench.scheduler()
    running = bench.wait_state(job, "running")
    bench.allow(job, 1)
    bench.wait_step(job, 1)
    os.kill(running.pid, signal.SIGTERM)
    bench.wait_state(job, "stopped")
    assert (bench.folder(job) / "checkpoints/checkpoint-1").is_dir()


def test_a_killed_worker_died_and_says_by_which_signal(bench: Bench) -> None:
    """Out of memory looks like this; 'failed' without a word would send people searching."""
    job = bench.add(steps=9, gated=True, save=True)
    bench.scheduler()
    bench.allow(job, 2)
    running = bench.wait_step(job, 2)
    os.kill(running.pid, signal.SIGKILL)
    died = bench.wait_state(job, "died")
    assert died.signal == 9
    assert "signal 9" in died.error
    assert "Resume goes on from checkpoint-2" in died.advice
    assert states(bench, job)[-1] == "died"
    assert read_record(bench.folder(job))["signal"] == 9
    with speaking(PSEUDO):  # whoever reads it may speak another language
        assert bench.store.get(job.id).error.startswith("⟦")
        assert read_record(bench.folder(job))["error"].startswith("⟦")


@pytest.mark.parametrize(
    ("behaviour", "error", "advice"),
    [
        ("raise", "the loss went away", ""),
        ("explain", "The loss is not finite.", "Lower the learning rate."),
        ("exit", "exit code 3", "worker.log"),
        ("nonsense", "'done'", "Report"),
    ],
)
def test_a_worker_that_raises_failed_with_its_reason(
    bench: Bench, behaviour: str, error: str, advice: str
) -> None:
    """A failure without a useful message is what people complain of most."""
    job = bench.add(steps=1, behaviour=behaviour)
    bench.scheduler()
    failed = bench.wait_state(job, "failed")
    assert error in failed.error
    assert advice in failed.advice
    assert failed.signal is None


def test_the_traceback_of_a_failure_is_in_the_log(bench: Bench) -> None:
    """Without it nobody can mend a new kind of failure."""
    job = bench.add(steps=1, behaviour="raise")
    bench.scheduler()
    bench.wait_state(job, "failed")
    log = (bench.folder(job) / "worker.log").read_text()
    assert "RuntimeError: the loss went away" in log
    assert "fake_jobs.py" in log


def test_a_worker_that_cannot_be_started_fails_its_run(bench: Bench) -> None:
    """A broken installation must be told, not waited for."""
    job = bench.add()
    broken = WorkerContext(("tests.jobs.broken_preload",))
    bench.scheduler(workers=broken)
    failed = bench.wait_state(job, "failed")
    assert "No worker process could be started" in failed.error
    assert "cannot begin like this" in failed.error
    assert "doctor" in failed.advice


def test_a_worker_that_never_begins_is_given_up(bench: Bench) -> None:
    """A fork server that hangs would else keep a run at `starting` for ever."""
    job = bench.add()
    hanging = WorkerContext(("tests.jobs.hanging_preload",), start_seconds=0.5)
    bench.scheduler(workers=hanging)
    failed = bench.wait_state(job, "failed")
    assert "nothing came back for 0.5 s" in failed.error
    hanging.close()


@pytest.mark.parametrize(("kills", "done_meanwhile"), [(1, False), (2, False), (1, True)])
def test_a_fork_server_that_is_killed_costs_no_job(
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kills: int,
    done_meanwhile: bool,
) -> None:
    """The system ends what is large. A job that waited for it is begun with the next one, unless
    what a scheduler before had asked for has come all the same: then it is not failed either."""
    marks = [tmp_path / f"mark-{number}" for number in range(kills)]
    monkeypatch.setenv("HANGING_FIRST", os.pathsep.join(map(str, marks)))
    job = bench.add(steps=2)
    workers = WorkerContext((*LIGHT, "tests.jobs.hanging_first"))
    bench.scheduler(workers=workers)
    bench.wait_state(job, "starting")
    for mark in marks:
        server = int(until(lambda mark=mark: mark.exists() and mark.read_text()))
        if done_meanwhile:
            events = EventWriter(bench.folder(job) / "events.jsonl")
            events.write("state", state="running", pid=1, pid_started_at=1.0)
            events.write("state", state="finished")
        os.kill(server, signal.SIGKILL)
    assert bench.wait_state(job, "finished", "failed").state == "finished"
    assert bench.store.get(job.id).step == (0 if done_meanwhile else 2)
    workers.close()


def test_a_worker_leaves_what_another_one_has_done(bench: Bench) -> None:
    """A training that is done must not begin anew in its own folder."""
    job = bench.add(steps=2, gated=True)
    events = EventWriter(bench.folder(job) / "events.jsonl")
    events.write("state", state="running", pid=1, pid_started_at=1.0)
    events.write("metrics", step=2)
    events.write("state", state="finished")
    bench.scheduler()
    assert bench.wait_state(job, "finished").step == 2
    assert "has done this" in (bench.folder(job) / "worker.log").read_text()


def test_a_run_for_a_device_that_is_not_there_fails(bench: Bench) -> None:
    """A GPU was taken out: the run would wait for ever and hold nobody up to say so."""
    job = bench.add(device="cuda:3")
    bench.scheduler()
    failed = bench.wait_state(job, "failed")
    assert "no cuda:3" in failed.error


def test_a_row_that_another_process_queues_is_taken(bench: Bench) -> None:
    """`train --queue` in a shell hands its run to the server."""
    bench.scheduler()
    other = Store(bench.workspace.database)
    mine, bench.store = bench.store, other
    job = bench.add(steps=1)
    bench.store = mine
    other.close()
    bench.wait_state(job, "finished")


def test_one_workspace_has_one_scheduler(bench: Bench) -> None:
    """Two servers that both take from the queue would run what the other has stopped."""
    first = bench.scheduler()
    with pytest.raises(JobError, match="looked after by process"):
        bench.scheduler()
    assert live_server(bench.workspace)["pid"] == os.getpid()
    first.close()
    assert live_server(bench.workspace) is None
    bench.scheduler()


def test_close_with_stop_runs_ends_them_with_a_checkpoint(bench: Bench) -> None:
    """The second Ctrl-C: nothing goes on, and nothing is lost."""
    running, waiting = (bench.add(steps=9, gated=True) for _ in range(2))
    scheduler = bench.scheduler()
    bench.allow(running, 1)
    bench.wait_step(running, 1)
    scheduler.close(stop_runs=True)
    assert bench.store.get(running.id).state == "stopped"
    assert (bench.folder(running) / "checkpoints/checkpoint-1").is_dir()
    assert bench.store.get(waiting.id).state == "queued"


def test_close_leaves_the_workers_and_the_next_scheduler_finds_them(bench: Bench) -> None:
    """A restart of the server must not cost a run."""
    job = bench.add(steps=3, gated=True)
    scheduler = bench.scheduler()
    bench.allow(job, 1)
    before = bench.wait_step(job, 1)
    scheduler.close()
    assert same_process(before.pid, before.pid_started_at)
    bench.allow(job, 2)
    bench.scheduler()
    assert bench.wait_step(job, 2).pid == before.pid
    bench.allow(job, 3)
    bench.wait_state(job, "finished")
