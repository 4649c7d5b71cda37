"""The fork server and the pool: real processes, and what becomes of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import JobError
from core.jobs.events import EventWriter
from core.jobs.isolated import call_isolated
from core.jobs.limits import Limit
from core.jobs.pool import Pool
from core.jobs.process import WorkerContext, context, kill_worker, same_process, start_time
from tests.jobs import children
from tests.jobs.bench import LIGHT, ROOT
from tests.waiting import LIMIT, until


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    pool = Pool(tmp_path, processes=1, workers=context(LIGHT))
    yield pool
    pool.close()


def alive(pid: int) -> bool:
    return start_time(pid) is not None


def run_program(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


PROGRAM = """
import sys
from core.jobs.process import context
from tests.jobs import children
ctx = context(("core.jobs.events",))
ctx.warm()
here, there = ctx.Pipe()
process = ctx.Process(target=children.wait_for_ever, args=(there, {watch}), daemon=True)
process.start()
print(ctx.server._process.pid, here.recv(), flush=True)
sys.stdin.readline()
"""


def test_a_child_has_the_preloaded_modules_and_not_the_program(tmp_path: Path) -> None:
    """Preloading is the point; importing `__main__` again would start a second page."""
    ctx = WorkerContext(("core.jobs.events", "wave"))
    here, there = ctx.Pipe()
    process = ctx.Process(target=children.report, args=(there,))
    process.start()
    told = here.recv()
    process.join()
    assert process.exitcode == 0
    assert {"core.jobs.events", "wave"} <= set(told["modules"])
    assert told["main"] is None
    assert str(ROOT) in told["path"]
    ctx.close()


def test_exit_codes_come_back() -> None:
    """They tell a killed worker from one that gave up."""
    ctx = context(LIGHT)
    process = ctx.Process(target=children.die)
    process.start()
    process.join()
    assert process.exitcode == 9
    here, there = ctx.Pipe()
    process = ctx.Process(target=children.wait_for_ever, args=(there, False))
    process.start()
    here.recv()
    process.kill()
    process.join()
    assert process.exitcode == -9


def test_the_fork_server_is_out_of_the_terminals_reach() -> None:
    """Ctrl-C while it imports would kill it, and the first Start would wait ten seconds again."""
    program = run_program(PROGRAM.format(watch=False))
    assert program.stdout is not None
    server, child = map(int, program.stdout.readline().split())
    assert os.getsid(server) == server
    assert os.getsid(child) == server != os.getsid(program.pid)
    program.communicate("\n")
    until(lambda: not alive(server))


def test_a_fork_server_that_was_killed_is_started_again() -> None:
    """The next run must not fail for it."""
    ctx = WorkerContext(("core.jobs.events",))
    ctx.warm()
    server = ctx.server._process
    assert server is not None
    server.kill()
    server.wait()
    process = ctx.Process(target=children.double, args=(1,))
    process.start()
    process.join()
    assert process.exitcode == 0
    ctx.close()


def test_what_was_installed_meanwhile_is_there_in_new_workers(tmp_path, monkeypatch) -> None:
    """Else an optimizer that a click installed is missing until the server is started again, or
    a run that was at work meanwhile loses how it ended."""
    monkeypatch.syspath_prepend(str(tmp_path))
    ctx = WorkerContext(("tests.jobs.looked_once",))
    assert call_isolated(children.what_was_found, workers=ctx) is False
    here, there = ctx.Pipe()
    at_work = ctx.Process(target=children.wait_for_ever, args=(there, False))
    at_work.start()
    here.recv()
    old = ctx.server
    (tmp_path / "added_meanwhile.py").touch()
    ctx.renew()
    assert call_isolated(children.what_was_found, workers=ctx) is True
    assert ctx.server is not old and old._process is not None
    at_work.kill()
    at_work.join()
    assert at_work.exitcode == -9
    call_isolated(children.what_was_found, workers=ctx)
    assert old._process is None, "the old one ends when it has no children"
    ctx.close()


def test_the_pool_goes_on_with_new_processes(pool: Pool) -> None:
    first = pool.submit(os.getpid).result()
    assert pool.submit(os.getpid).result() == first
    pool.renew()
    assert pool.submit(os.getpid).result() != first


@pytest.mark.parametrize("watch", [True, False])
def test_helpers_end_with_a_killed_program_and_workers_do_not(watch: bool) -> None:
    """A chat's process that nobody can reach would hold its model's memory for ever."""
    program = run_program(PROGRAM.format(watch=watch))
    assert program.stdout is not None
    server, child = map(int, program.stdout.readline().split())
    program.kill()
    program.wait()
    if watch:
        until(lambda: not alive(child))
    else:
        assert alive(child)
        os.kill(child, signal.SIGKILL)
    until(lambda: not alive(server))
    program.communicate()


def test_a_process_is_known_by_its_start_too() -> None:
    """The system gives a pid to somebody else later: killing by pid alone kills a stranger."""
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = start_time(stranger.pid)
    assert started is not None
    assert same_process(stranger.pid, started)
    assert not same_process(stranger.pid, started - 60)
    assert not same_process(stranger.pid, None)
    assert not same_process(None, started)
    kill_worker(stranger.pid, started - 60)
    assert stranger.poll() is None
    kill_worker(stranger.pid, started)
    until(lambda: not same_process(stranger.pid, started))  # a zombie is not alive
    assert stranger.wait() == -9
    assert stranger.stdin is not None
    stranger.stdin.close()


def test_the_pool_calls_functions_elsewhere(pool: Pool) -> None:
    """Previews need a tokenizer, and the web process must never import one."""
    assert pool.submit(children.double, 21).result() == 42
    assert pool.submit(children.own_pid).result() not in (os.getpid(), None)
    with pytest.raises(ValueError, match="no such column"):
        pool.submit(children.fail, "no such column").result()


def test_the_pool_keeps_its_process(pool: Pool) -> None:
    """A tokenizer that is loaded for each preview makes each preview slow."""
    assert pool.submit(children.own_pid).result() == pool.submit(children.own_pid).result()


def test_the_pool_survives_a_killed_process(pool: Pool) -> None:
    """One preview that runs out of memory must not end all previews."""
    with pytest.raises(JobError, match="was killed"):
        pool.submit(children.die).result()
    pid = pool.submit(children.own_pid).result()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid))
    assert pool.submit(children.double, 2).result() == 4


def test_a_closed_pool_has_no_processes(pool: Pool) -> None:
    """Memory comes back when the program ends."""
    pid = pool.submit(children.own_pid).result()
    pool.close()
    until(lambda: not alive(pid))


def test_the_web_processs_modules_import_no_torch() -> None:
    """DESIGN law 2: the page opens in seconds and stays small."""
    code = (
        "import sys, core.jobs.scheduler, core.jobs.pool, core.runs.records, core.runs.submit\n"
        "heavy = {'torch', 'transformers', 'datasets', 'peft', 'trl', 'pandas', 'gradio'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    program = run_program(code)
    assert program.communicate()[0].strip() == "[]"


@pytest.mark.slow
def test_a_later_worker_is_ready_at_once(tmp_path: Path) -> None:
    """Importing torch and the trainers takes ten seconds; each worker finds them there when it
    begins, since the fork server has them."""
    from core.jobs import worker
    from core.jobs.events import read_events
    from core.jobs.job import Job, write_record

    ctx = context()
    for number in range(2):
        folder = tmp_path / f"run-{number}"
        folder.mkdir()
        write_record(folder, Job(id=folder.name, kind="evaluate", run_id="r", folder=folder.name))
        EventWriter(folder / "events.jsonl").write("state", state="queued")
        target = "tests.jobs.children:torch_is_there"
        process = ctx.Process(
            target=worker.main, args=(str(folder), str(tmp_path), None, "cpu", target)
        )
        process.start()
        process.join()
        assert process.exitcode == 0, (folder / "worker.log").read_text()
        log = next(e for e in read_events(folder / "events.jsonl") if e["kind"] == "log")
        assert log["modules"] == ["peft", "torch", "transformers", "trl"]
        assert log["cuda_initialized"] is False
    ctx.close()


def test_what_does_not_end_is_ended_and_the_process_goes_on_for_others(pool: Pool) -> None:
    """A person's loop or pattern would keep one of two processes for ever, and then the other."""
    short = Limit(seconds=0.5)
    for asked in (
        pool.submit(children.never_end, within=short),
        pool.submit(children.match_for_ever, "(a+)+b", "a" * 40, within=short),
    ):
        with pytest.raises(JobError, match=r"longer than 0\.5 seconds"):
            asked.result(timeout=LIMIT)
    assert pool.submit(children.grow, 1).result(timeout=LIMIT) == 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a limit of memory")
def test_what_wants_all_memory_gets_an_error(pool: Pool) -> None:
    small = Limit(seconds=LIMIT, memory_bytes=2**28)
    with pytest.raises(JobError, match=r"more than 0\.25 GB"):
        pool.submit(children.grow, 500, within=small).result(timeout=LIMIT)
    assert pool.submit(children.grow, 500).result(timeout=LIMIT) == 500 * 2**20
