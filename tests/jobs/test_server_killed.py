"""What happens to runs when the server goes: killed, closed, or replaced. Real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import nullcontext

import pytest
from filelock import FileLock

from core.jobs.job import Job
from core.jobs.process import same_process
from core.jobs.queue import stop_job
from core.jobs.store import Store
from core.jobs.supervise import look_once
from core.runs.curves import curves
from core.workspace import Workspace
from tests.jobs.bench import ROOT, Bench, for_slot
from tests.waiting import end_of, until


def kill(server: subprocess.Popen[str]) -> None:
    os.kill(server.pid, signal.SIGKILL)
    server.wait()


def test_a_run_goes_on_when_its_server_is_killed(bench: Bench) -> None:
    """Hours of training must not hang on a web page's process."""
    job = bench.add(steps=4, gated=True)
    server = bench.server()
    bench.allow(job, 1)
    before = bench.wait_step(job, 1)
    kill(server)
    assert same_process(before.pid, before.pid_started_at)
    bench.allow(job, 2)  # a step while nobody looks
    bench.server()
    assert bench.wait_step(job, 2).state == "running"
    bench.allow(job, 4)
    done = bench.wait_state(job, "finished")
    assert done.pid == before.pid
    assert [step for step, _ in curves(bench.folder(job))["loss"]] == [1, 2, 3, 4]


def test_the_pipes_of_a_killed_server_are_closed(bench: Bench) -> None:
    """Else a shell that started the server waits for the end of the training."""
    job = bench.add(steps=1, gated=True)
    server = bench.server()
    bench.wait_state(job, "running")
    server.kill()
    end_of(server)
    running = bench.store.get(job.id)
    assert same_process(running.pid, running.pid_started_at)


def test_a_run_that_finished_while_no_server_ran_is_finished(bench: Bench) -> None:
    """Nobody may be told that it died."""
    job = bench.add(steps=2, gated=True)
    server = bench.server()
    running = bench.wait_state(job, "running")
    kill(server)
    bench.allow(job, 2)
    wait_gone(running)
    assert bench.store.get(job.id).state == "running"
    bench.scheduler()
    done = bench.wait_state(job, "finished")
    assert (done.step, done.signal, done.error) == (2, None, None)


def test_a_run_that_was_killed_while_no_server_ran_died(bench: Bench) -> None:
    """It must not be shown as running for ever after the machine was switched off."""
    job = bench.add(steps=2, gated=True)
    server = bench.server()
    running = bench.wait_state(job, "running")
    kill(server)
    os.kill(running.pid, signal.SIGKILL)
    bench.scheduler()
    died = bench.wait_state(job, "died")
    assert died.signal is None
    assert "nobody saw why" in died.error


def test_an_adopted_worker_that_is_killed_died(bench: Bench) -> None:
    """We are not its parent any more, and must see it all the same."""
    job = bench.add(steps=2, gated=True)
    server = bench.server()
    bench.wait_state(job, "running")
    kill(server)
    bench.scheduler()
    until(lambda: bench.store.get(job.id).owner_pid == os.getpid())
    running = bench.store.get(job.id)
    os.kill(running.pid, signal.SIGKILL)
    assert bench.wait_state(job, "died").signal is None


def test_an_adopted_run_can_be_stopped(bench: Bench) -> None:
    """The way to end a run must not be lost with the server."""
    job = bench.add(steps=5, gated=True)
    server = bench.server()
    bench.allow(job, 1)
    bench.wait_step(job, 1)
    kill(server)
    bench.scheduler()
    stop_job(bench.workspace, bench.store, job.id)
    bench.wait_state(job, "stopped")
    assert (bench.folder(job) / "checkpoints/checkpoint-1").is_dir()


def test_a_server_that_ends_properly_waits_for_no_worker(bench: Bench) -> None:
    """Ctrl-C must give the prompt back, and multiprocessing would wait for its children."""
    job = bench.add(steps=1, gated=True)
    server = bench.server()
    running = bench.wait_state(job, "running")
    end_of(server, "leave\n")
    assert server.returncode == 0
    assert same_process(running.pid, running.pid_started_at)
    assert bench.store.get(job.id).owner_pid is None


def test_a_server_told_to_stop_its_runs_waits_for_their_checkpoints(bench: Bench) -> None:
    """The second Ctrl-C."""
    job = bench.add(steps=3, gated=True)
    server = bench.server()
    bench.allow(job, 1)
    bench.wait_step(job, 1)
    end_of(server, "stop\n")
    assert bench.store.get(job.id).state == "stopped"
    assert (bench.folder(job) / "checkpoints/checkpoint-1").is_dir()


def test_a_second_server_is_told_who_has_the_workspace(bench: Bench) -> None:
    """Two servers on one queue; and the first one's address is what the person needs."""
    first = bench.server()
    script = bench.servers[0].args[1]
    second = subprocess.run(
        [sys.executable, script, str(bench.workspace.root)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert second.returncode == 1
    assert f"process {first.pid} at http://127.0.0.1:7860" in second.stdout


def test_the_store_can_be_lost_with_a_run_at_work(bench: Bench) -> None:
    """A deleted database: the folders know everything, also which worker lives."""
    finished = bench.add(steps=1)
    job = bench.add(steps=2, gated=True)
    waiting = bench.add(steps=1, gated=True)
    server = bench.server()
    bench.wait_state(finished, "finished")
    before = bench.wait_state(job, "running")
    kill(server)
    bench.store.close()
    for suffix in ("", "-wal", "-shm"):
        path = bench.workspace.database
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    bench.store = Store.open(Workspace.open(bench.workspace.root))
    assert bench.store.get(finished.id).state == "finished"
    assert bench.store.get(waiting.id).state == "queued"
    bench.scheduler()
    adopted = bench.wait_state(job, "running")
    assert adopted.pid == before.pid
    bench.allow(job, 2)
    bench.wait_state(job, "finished")
    bench.wait_state(waiting, "running")


def test_a_command_without_a_server_sees_how_a_run_ended(bench: Bench) -> None:
    """`runs list` must not say running when there is no such process."""
    job = bench.add(steps=1, gated=True)
    server = bench.server()
    running = bench.wait_state(job, "running")
    kill(server)
    look_once(bench.workspace, bench.store)
    assert bench.store.get(job.id).state == "running"
    bench.allow(job, 1)
    wait_gone(running)
    look_once(bench.workspace, bench.store)
    assert bench.store.get(job.id).state == "finished"


@pytest.mark.parametrize("locked", [False, True])
def test_a_job_that_was_claimed_but_never_begun_is_queued_again(bench: Bench, locked: bool) -> None:
    """A server killed in the instant between claim and start must not lose the run; nor may the
    next one not start while something that stands still has the run's folder locked."""
    job = bench.add(steps=1)
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True
    )
    bench.store.claim(choose=for_slot("cpu"), owner=(int(dead.stdout), 1.0))
    assert bench.store.get(job.id).state == "starting"
    with FileLock(bench.folder(job) / ".job.lock") if locked else nullcontext():
        bench.scheduler()
        assert not locked or bench.store.get(job.id).state == "starting"
    bench.wait_state(job, "finished")


def test_a_second_worker_leaves_the_folder_to_the_first(bench: Bench) -> None:
    """A server killed at the wrong instant knows nothing of the worker that it has started."""
    job = bench.add(steps=2, gated=True)
    first = bench.scheduler()
    before = bench.wait_state(job, "running")
    first.close()
    forgotten = {"pid": None, "pid_started_at": None, "slot": None, "device": "auto"}
    assert bench.store.transition(job.id, {"running"}, "queued", **forgotten)
    bench.scheduler()
    log = bench.folder(job) / "worker.log"
    until(lambda: "Another worker is busy" in log.read_text())
    bench.allow(job, 2)
    done = bench.wait_state(job, "finished")
    assert done.pid == before.pid
    assert log.read_text().count("begins after step 0") == 1


def wait_gone(job: Job) -> None:
    until(lambda: not same_process(job.pid, job.pid_started_at))
