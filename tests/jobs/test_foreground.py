"""A run in the foreground of a shell: with a server beside it, without one, and with Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from core.jobs.job import Job
from core.jobs.process import same_process
from tests.jobs.bench import ROOT, Bench
from tests.waiting import end_of, until


def shell(bench: Bench, job: Job) -> subprocess.Popen[str]:
    """A program in a session of its own, so that a signal to its group is what Ctrl-C is."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tests/jobs/foreground.py"), bench.workspace.root, job.id],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_a_run_in_the_foreground_tells_its_events_and_its_end(bench: Bench) -> None:
    """The progress bar and the exit code of `train` come from here."""
    job, other = bench.add(steps=2), bench.add(steps=2)
    output, _ = end_of(shell(bench, job))
    assert output.split() == [
        *("state", "state", "state"),
        *("metrics", "progress", "metrics", "progress"),
        *("state", "finished"),
    ]
    assert bench.store.get(other.id).state == "queued"


def test_ctrl_c_stops_with_a_checkpoint_and_a_second_one_kills(bench: Bench) -> None:
    """The terminal sends it to every process of the program: the worker must not just vanish."""
    job = bench.add(steps=9, gated=True)
    program = shell(bench, job)
    bench.allow(job, 1)
    bench.wait_step(job, 1)
    os.killpg(program.pid, signal.SIGINT)
    assert end_of(program)[0].endswith("stopped\n")
    assert (bench.folder(job) / "checkpoints/checkpoint-1").is_dir()

    deaf = bench.add(steps=9, gated=True, behaviour="deaf")
    program = shell(bench, deaf)
    bench.wait_state(deaf, "running")
    os.killpg(program.pid, signal.SIGINT)
    bench.wait_state(deaf, "stopping")
    os.killpg(program.pid, signal.SIGINT)
    assert end_of(program)[0].endswith("stopped\n")
    assert bench.store.get(deaf.id).signal == 9


def test_a_server_and_a_shell_never_start_the_same_run(bench: Bench) -> None:
    """Whoever comes first takes it; the other one only watches."""
    job = bench.add(steps=2, gated=True)
    server = bench.server()
    program = shell(bench, job)
    running = bench.wait_state(job, "running")
    assert running.owner_pid in (server.pid, program.pid)
    bench.allow(job, 2)
    assert end_of(program)[0].endswith("finished\n")
    log = (bench.folder(job) / "worker.log").read_text()
    assert log.count("begins after step 0") == 1


def test_a_server_takes_over_the_run_of_a_shell_that_was_killed(bench: Bench) -> None:
    """A closed terminal must not leave a run that nobody looks after."""
    job = bench.add(steps=3, gated=True)
    program = shell(bench, job)
    bench.allow(job, 1)
    bench.wait_step(job, 1)
    server = bench.server()
    assert bench.store.get(job.id).owner_pid == program.pid
    program.kill()
    program.communicate()
    until(lambda: bench.store.get(job.id).owner_pid == server.pid)
    running = bench.store.get(job.id)
    assert same_process(running.pid, running.pid_started_at)
    bench.allow(job, 3)
    bench.wait_state(job, "finished")


def test_a_run_waits_while_a_shell_has_the_device(bench: Bench) -> None:
    """Two processes that schedule on one GPU must take turns on it."""
    mine, queued = bench.add(steps=1, gated=True), bench.add(steps=1)
    program = shell(bench, mine)
    bench.wait_state(mine, "running")
    bench.scheduler()
    short = bench.add("export", run_id=mine.id)
    bench.wait_state(short, "finished")  # the server has been at work meanwhile
    assert bench.store.get(queued.id).state == "queued"
    bench.allow(mine, 1)
    end_of(program)
    bench.wait_state(queued, "finished")
