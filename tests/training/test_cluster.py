"""Runs on a Ray cluster: two nodes on this machine, with a token. It is Ray's queue in which they
wait; whatever of it is killed, a run goes on or ends with its reason, and can be resumed."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.config import RunConfig
from core.config.run import nest
from core.errors import ConfigError
from core.jobs.events import Event, read_attempt, read_events
from core.jobs.job import Job
from core.jobs.process import context
from core.jobs.queue import stop_job
from core.jobs.store import Store
from core.jobs.worker import DEVICE_VARIABLE
from core.rules import parse_config
from core.runs.cluster import nobody_answers, place_in_cluster
from core.runs.resume import resume_run
from core.runs.submit import submit_run
from core.worker.training.launcher import reports
from core.worker.training.run import run_training
from core.workspace import RunFolder
from tests.jobs.bench import ROOT, Bench
from tests.tiny_model import TinyWorld, tiny_world
from tests.training.cluster_runs import LIGHT, begin
from tests.training.conftest import SETTINGS, losses
from tests.waiting import until
from tests.warm_python import with_commands, with_torch

if find_spec("ray") is None:
    pytest.skip("Ray is not installed", allow_module_level=True)

COMPANION = "core.worker.training.cluster.companion"
RANK = "core.worker.rank"
TOKEN = secrets.token_hex(32)
# Ray tells no one of its use, asks for a token, and takes 127.0.0.1 for what it is.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": TOKEN,
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "PYTHONPATH": str(ROOT),
}


class Nodes:
    """A cluster of two nodes, of which the second can be taken away, and the head begun anew."""

    def __init__(self, **environment: str) -> None:
        self.host = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/training/cluster_host.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
            text=True,
        )
        self.address = self._said()

    def _said(self) -> str:
        assert self.host.stdout is not None
        return self.host.stdout.readline().strip()

    def tell(self, word: str) -> str:
        """What the program answers."""
        assert self.host.stdin is not None
        self.host.stdin.write(f"{word}\n")
        self.host.stdin.flush()
        return self._said()

    def kill_second(self) -> str:
        """Its id."""
        return self.tell("kill")

    def end(self) -> None:
        """Nothing of it may be left."""
        whole = psutil.Process(self.host.pid).children(recursive=True)
        self.host.communicate("")
        until(lambda: not any(one.is_running() and one.status() != "zombie" for one in whole))


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.setenv("PYTHON_EXEC", with_torch())  # torch's launcher
        found = Nodes()
        assert found.address
        yield found
        found.end()
        context(LIGHT).close()


@pytest.fixture
def kept_nodes(nodes: Nodes, tmp_path: Path) -> Iterator[Nodes]:
    """Another cluster, whose head keeps what it knows in Redis."""
    program = shutil.which("redis-server")
    if not program:
        pytest.skip("redis-server is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen([program, *words], stdout=subprocess.DEVNULL) as redis:
        until(lambda: not nobody_answers(f"127.0.0.1:{port}"))
        found = Nodes(RAY_REDIS_ADDRESS=f"127.0.0.1:{port}")
        yield found
        found.end()
        redis.terminate()


@pytest.fixture
def bench(workspace: Path, nodes: Nodes) -> Iterator[Bench]:
    bench = Bench(workspace)
    yield bench
    for job in bench.store.list():
        if not job.ended:
            stop_job(bench.workspace, bench.store, job.id, now=True)
    until(lambda: all(job.ended for job in bench.store.list()), lambda: bench.store.list())
    bench.close()


def add(bench: Bench, nodes: Nodes, settings: dict[str, Any] | None = None, **params: Any) -> Job:
    """A run in the queue that does a step when it is allowed to."""
    params = {"steps": 2, "gated": True, "save": True, **params}
    values = {"training.ray_address": nodes.address, "training.device": "cpu", **(settings or {})}
    config = RunConfig.model_validate(nest(values))
    return bench.add(**params, device="ray", config=config)


def placed(bench: Bench, job: Job) -> list[Event]:
    attempt = read_attempt(bench.folder(job) / "events.jsonl")
    return [event for event in attempt if "node_id" in event]


def at_work(bench: Bench, job: Job) -> set[psutil.Process]:
    """The processes on the nodes that work in a run's folder."""
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "tests.training.cluster_node" in words and str(bench.folder(job)) in words:
            found.add(process)
    return found


def test_a_queue_of_six_runs_on_two_nodes(bench: Bench, nodes: Nodes) -> None:
    """Four have room; the others wait in the cluster, are told so, and come next."""
    jobs = [add(bench, nodes) for _ in range(6)]
    begin(bench)
    until(lambda: sum(bool(placed(bench, job)) for job in jobs) == 4)
    waiting = [job for job in jobs if not placed(bench, job)]
    for job in waiting:
        folder = RunFolder(bench.folder(job))
        until(lambda folder=folder: place_in_cluster(folder) == "waits for room in the cluster")
    first = [placed(bench, job)[0]["node_id"] for job in jobs if job not in waiting]
    assert len(set(first)) == 2
    for job in jobs:
        bench.allow(job, 2)
    for job in jobs:
        done = bench.wait_state(job, "finished")
        assert (done.step, done.slot and done.slot.partition("-")[0]) == (2, "ray")
        assert not at_work(bench, job)


def test_what_is_stopped_gives_its_place_away(bench: Bench, nodes: Nodes) -> None:
    """A run that waits stops at once; one at work with a checkpoint, or now."""
    four = {"training.ray_num_cpus": 2}
    jobs = [add(bench, nodes, four) for _ in range(2)]
    begin(bench)
    for job in jobs:
        until(lambda job=job: placed(bench, job))
    waiting = add(bench, nodes, four)
    until(lambda: place_in_cluster(RunFolder(bench.folder(waiting))))
    stop_job(bench.workspace, bench.store, waiting.id)
    bench.wait_state(waiting, "stopped")
    gently, now = jobs
    bench.allow(gently, 1)
    bench.wait_step(gently, 1)
    stop_job(bench.workspace, bench.store, gently.id)
    bench.wait_state(gently, "stopped")
    assert (bench.folder(gently) / "checkpoints" / "checkpoint-1").is_dir()
    stop_job(bench.workspace, bench.store, now.id, now=True)
    bench.wait_state(now, "stopped")
    until(lambda: not at_work(bench, now) and not at_work(bench, gently))
    after = [add(bench, nodes, four) for _ in range(2)]
    for job in after:
        bench.allow(job, 2)
        bench.wait_state(job, "finished")


def test_a_run_goes_on_when_all_that_followed_it_is_killed(bench: Bench, nodes: Nodes) -> None:
    """The machine that the page is on restarts: the run is found again, where it is."""
    job, ends = add(bench, nodes), add(bench, nodes)
    server = begin(bench)
    for one in (job, ends):
        bench.allow(one, 1)
        bench.wait_step(one, 1)
    before = bench.store.get(job.id)
    processes = until(lambda: at_work(bench, job))
    assert len(processes) == 1
    server.close()
    for one in (job, ends):
        os.kill(bench.store.get(one.id).pid or 0, signal.SIGKILL)
    bench.allow(ends, 2)  # this one is over before anybody looks again
    until(lambda: not at_work(bench, ends))
    begin(bench)
    bench.wait_state(ends, "finished")
    until(lambda: (found := bench.store.get(job.id)).state == "running" and found.pid != before.pid)
    assert at_work(bench, job) == processes
    # Its follower alone is killed: the server sends another one.
    pid = bench.store.get(job.id).pid
    os.kill(pid or 0, signal.SIGKILL)
    until(lambda: bench.store.get(job.id).pid not in (None, pid))
    assert at_work(bench, job) == processes
    bench.allow(job, 2)
    assert bench.wait_state(job, "finished").step == 2
    events = read_events(bench.folder(job) / "events.jsonl")
    assert [event["step"] for event in events if event["kind"] == "metrics"] == [1, 2]


def test_a_run_gets_the_cards_that_it_asks_for(bench: Bench, nodes: Nodes) -> None:
    """And sees no others: they are another run's."""
    both = add(bench, nodes, {"training.device": "cuda", "training.devices": "2"})
    begin(bench)
    until(lambda: placed(bench, both))
    one = add(bench, nodes, {"training.device": "auto"})  # waits: a cluster with cards gives one
    (process,) = until(lambda: at_work(bench, both))
    seen = {name: process.environ()[name] for name in ("CUDA_VISIBLE_DEVICES", DEVICE_VARIABLE)}
    assert seen == {"CUDA_VISIBLE_DEVICES": "0,1", DEVICE_VARIABLE: "cuda"}
    assert place_in_cluster(RunFolder(bench.folder(both))).endswith(", GPU 0,1")
    until(lambda: place_in_cluster(RunFolder(bench.folder(one))))
    assert not placed(bench, one)
    for job in (both, one):
        bench.allow(job, 2)
        bench.wait_state(job, "finished")
    assert placed(bench, one)[0]["cards"] in ("0", "1")


def test_what_goes_wrong_on_a_node_is_told(bench: Bench, nodes: Nodes) -> None:
    explains = add(bench, nodes, behaviour="explain")
    dies = add(bench, nodes, behaviour="killed")
    begin(bench)
    for job in (explains, dies):
        bench.allow(job, 2)
    failed = bench.wait_state(explains, "failed")
    assert (failed.error, failed.advice) == ("The loss is not finite.", "Lower the learning rate.")
    lost = bench.wait_state(dies, "failed")
    assert "signal 9" in (lost.error or "") and "half the batch" in (lost.advice or "")


def test_a_run_is_not_given_up_while_the_cluster_does_not_answer(
    bench: Bench, nodes: Nodes
) -> None:
    """The machine that follows it has just started and has no network yet."""
    job = add(bench, nodes)
    server = begin(bench)
    bench.allow(job, 1)
    bench.wait_step(job, 1)
    server.close()
    run = RunFolder(bench.folder(job))
    address = f"ray_address: {nodes.address}"
    settings = run.config.read_text()
    assert address in settings
    run.config.write_text(settings.replace(address, "ray_address: 127.0.0.1:1"))
    os.kill(bench.store.get(job.id).pid or 0, signal.SIGKILL)
    begin(bench)
    until(lambda: "does not answer" in read_attempt(run.events)[-1].get("message", ""))
    assert bench.store.get(job.id).state == "running" and at_work(bench, job)
    stop_job(bench.workspace, bench.store, job.id)
    bench.wait_state(job, "stopped")
    until(lambda: not at_work(bench, job))


@pytest.mark.slow
def test_runs_outlive_a_restart_of_the_head(bench: Bench, kept_nodes: Nodes) -> None:
    """What follows one goes on, or is killed with it and finds the run by its name."""
    watched, found = add(bench, kept_nodes), add(bench, kept_nodes)
    begin(bench)
    for job in (watched, found):
        bench.allow(job, 1)
        bench.wait_step(job, 1)
    followers = {job.id: bench.store.get(job.id).pid for job in (watched, found)}
    processes = at_work(bench, found)
    assert kept_nodes.tell("restart") == kept_nodes.address
    os.kill(followers[found.id] or 0, signal.SIGKILL)
    until(lambda: bench.store.get(found.id).pid not in (None, followers[found.id]))
    assert at_work(bench, found) == processes
    after = add(bench, kept_nodes)
    bench.allow(after, 2)
    bench.wait_state(after, "finished")
    assert bench.store.get(watched.id).pid == followers[watched.id]
    for job in (watched, found):
        bench.allow(job, 2)
        assert bench.wait_state(job, "finished").step == 2


def test_what_the_cluster_cannot_do_is_said_at_once(bench: Bench, nodes: Nodes) -> None:
    """Ray itself waits for ever for a node that there is not, and tries addresses for minutes."""
    cards = add(bench, nodes, {"training.device": "cuda", "training.devices": "3"})
    cores = add(bench, nodes, {"training.ray_num_cpus": 3})
    three = add(bench, nodes, {"training.ray_num_nodes": 3})
    nobody = add(bench, nodes, {"training.ray_address": "127.0.0.1:1"})
    other = add(bench, nodes, environment={"RAY_AUTH_TOKEN": "b" * 64})
    none = add(bench, nodes, environment={"RAY_AUTH_MODE": "disabled"})
    begin(bench)
    expected = {
        cards.id: "No node of the cluster has 1 cores and 3 GPUs",
        cores.id: "No node of the cluster has 3 cores and 0 GPUs",
        three.id: "with so many cores: 1, and GPUs: 0; 2 have them.",
        nobody.id: "Nobody answers at 127.0.0.1:1",
        other.id: "does not take this token",
        none.id: "does not take this token",
    }
    for job in (cards, cores, three, nobody, other, none):
        failed = bench.wait_state(job, "failed")
        assert expected[job.id] in (failed.error or "")
        assert failed.advice


def test_a_folder_that_is_not_shared_is_named(bench: Bench, nodes: Nodes) -> None:
    """The run would write where nobody looks. Here only this machine's side sees the folder."""
    job = add(bench, nodes)
    bench.store.close()
    elsewhere = bench.workspace.root.with_name("elsewhere")
    bench.workspace.root.rename(elsewhere)
    bench.workspace.root.mkdir()
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\n"
        "from tests.jobs.bench import Bench\n"
        "from tests.training.cluster_runs import begin\n"
        f"bench = Bench(Path({str(bench.workspace.root)!r}))\n"
        "begin(bench)\n"
        f"job = bench.wait_state(bench.store.get({job.id!r}), 'failed', 'finished')\n"
        "print(job.error, job.advice)\n"
        "bench.close()\n"
    )
    mount = 'mount --bind "$0" "$1" && exec "$2" -c "$3"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, elsewhere, bench.workspace.root]
        + [sys.executable, program],
        capture_output=True,
        text=True,
    )
    bench.workspace.root.rmdir()
    elsewhere.rename(bench.workspace.root)
    bench.store = Store.open(bench.workspace)
    if "unshare failed" in done.stderr or "permission denied" in done.stderr.lower():
        pytest.skip("only an administrator may hide a folder")
    assert f"does not see the run's folder {bench.folder(job)}" in done.stdout, done.stderr
    assert "share" in done.stdout


@pytest.mark.slow
def test_a_real_run_from_the_shell(nodes: Nodes, tmp_path: Path) -> None:
    world = tiny_world(tmp_path)
    words = ["--workspace", str(world.root), "--json"]
    settings = {
        "model.model_name_or_path": "tiny",
        "data.dataset": world.dataset.id,
        "training.max_steps": "2",
        "training.device": "cpu",
        "evaluation.eval_strategy": "no",
        "evaluation.sample_max_new_tokens": "0",
    }
    options = [word for name, value in settings.items() for word in (f"--{name}", value)]
    train = ["train", "quickstart", "--ray", nodes.address, *options, *words]
    done = subprocess.run(
        [with_commands(), "-m", "core.cli", *train], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    store = Store.open(world.workspace)
    (job,) = store.list()
    store.close()
    run = world.workspace.run(job.id)
    assert (job.state, job.step, job.device) == ("finished", 2, "ray")
    assert (run.adapter / "adapter_model.safetensors").is_file()
    assert place_in_cluster(run) == os.uname().nodename
    assert f"Trains on the node {os.uname().nodename}." in done.stderr


def test_who_follows_a_run_or_holds_its_place_imports_no_torch() -> None:
    """Eight may be in the cluster at once, and each of them has another process on its node."""
    program = (
        "import sys, core.worker.training.cluster.follow, core.worker.training.cluster.companion\n"
        "print({'torch', 'trl', 'accelerate'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stderr


SHARED: dict[str, Any] = {
    **SETTINGS,
    "training.per_device_train_batch_size": 2,
    "adapter.lora_dropout": 0.0,
    "tracking.logging_steps": 1,
}
_TRAIN = """
import sys
from pathlib import Path
from core.worker.training.run import run_training

print(run_training(Path(sys.argv[1]), Path(sys.argv[2]), None))
"""


def trained(world: TinyWorld, nodes: Nodes, **more: Any) -> tuple[RunFolder, str]:
    """A run that both nodes share, each with one process, and how it ended."""
    settings = {"training.ray_address": nodes.address, "training.ray_num_nodes": 2}
    run = world.run("shared", {**SHARED, **settings, **more})
    run.events.touch()
    done = subprocess.run(
        [with_torch(), "-c", _TRAIN, run.root, world.root],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    return run, done.stdout


def working(run: RunFolder) -> list[psutil.Process]:
    """The processes on the nodes that work in a run's folder."""
    found = psutil.process_iter(["cmdline"])
    return [one for one in found if {str(run.root), "-m"} <= {*(one.info["cmdline"] or [])}]


@pytest.mark.slow
def test_two_nodes_share_a_run(nodes: Nodes, tmp_path: Path) -> None:
    """They learn what one process does from the same rows."""
    world = tiny_world(tmp_path)
    run, said = trained(world, nodes)
    assert "finished" in said
    assert place_in_cluster(run) == f"{os.uname().nodename} + {os.uname().nodename}"
    alone = world.run("alone", {**SHARED, "training.gradient_accumulation_steps": 2})
    assert run_training(alone.root, world.root, None) == "finished"
    assert losses(run) == pytest.approx(losses(alone), abs=1e-4)
    assert not reports(run).exists()
    until(lambda: not working(run))


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["a process", "a node"])
def test_a_shared_run_ends_with_what_it_lost(nodes: Nodes, tmp_path: Path, lost: str) -> None:
    """The others would wait for it for ever."""
    world = tiny_world(tmp_path)

    def kill_on_second() -> None:
        run = RunFolder(world.workspace.run("shared").root)
        until(lambda: run.events.exists() and losses(run))
        (companion,) = (one for one in working(run) if COMPANION in one.cmdline())
        if lost == "a node":
            companion.parent().kill()
        else:
            beneath = companion.children(recursive=True)
            [one for one in beneath if RANK in one.cmdline()][-1].kill()

    killer = threading.Thread(target=kill_on_second)
    killer.start()
    run, said = trained(world, nodes, **{"training.max_steps": 5000})
    killer.join()
    assert {
        "a process": "Process 2 of 2 was killed (signal 9)",
        "a node": "The cluster lost the run",
    }[lost] in said
    until(lambda: not working(run), lambda: working(run))


def test_an_address_where_nobody_answers_is_marked_at_its_field(tmp_path: Path) -> None:
    world = tiny_world(tmp_path)
    settings = {"model.model_name_or_path": "tiny", "data.dataset": world.dataset.id}
    settings |= {"training.ray_address": "127.0.0.1:1", "evaluation.eval_strategy": "no"}
    config = parse_config(settings)
    store = Store.open(world.workspace)
    with pytest.raises(ConfigError) as wrong:
        submit_run(world.workspace, store, config)
    assert [problem.field for problem in wrong.value.problems] == ["training.ray_address"]
    assert not store.list()
    store.close()


def test_a_node_that_vanishes_ends_its_runs_alone(bench: Bench, nodes: Nodes) -> None:
    """Last: the second node does not come back. What it had goes on, on the other one."""
    jobs = [add(bench, nodes, {"training.ray_num_cpus": 2}) for _ in range(2)]
    begin(bench)
    for job in jobs:
        bench.allow(job, 1)
        bench.wait_step(job, 1)
    gone = nodes.kill_second()
    (lost,) = (job for job in jobs if placed(bench, job)[0]["node_id"] == gone)
    (stays,) = (job for job in jobs if job != lost)
    failed = bench.wait_state(lost, "failed")
    assert "node" in (failed.error or "") and "Resume" in (failed.advice or "")
    assert bench.store.get(stays.id).state == "running"
    resume_run(bench.workspace, bench.store, lost.id)
    for job in (stays, lost):
        bench.allow(job, 2)
        bench.wait_state(job, "finished")
    assert placed(bench, lost)[0]["node_id"] != gone
    assert "begins after step 1" in (bench.folder(lost) / "worker.log").read_text()
