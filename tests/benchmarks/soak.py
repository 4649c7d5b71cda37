"""Whether a workspace comes through any number of kills at any moment, with nothing lost.

    python -m tests.benchmarks.soak [--kills 200] [--seed 0] [--minutes 60] [--output FILE]

A tiny model is trained again and again while its worker, the server, the fork server, or the worker
of an import, an evaluation or an export is killed at a random moment. After each kill: every job
comes to a state that is right, `job.json` and a store rebuilt from the folders say what the store
says, the database is whole, nothing is left half made, and no process is left over. The run is
resumed. Whenever one comes to its end, its weights must be those of an undisturbed run, bit for
bit. Prints a summary as JSON; exits with 1 where anything was found.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil

from core.data.jobs import submit_import
from core.data.registry import list_datasets
from core.errors import TunesmithError
from core.jobs.job import Job, read_record
from core.jobs.process import context
from core.jobs.scheduler import Scheduler, live_server
from core.jobs.store import Store
from core.rules import parse_config
from core.runs.curves import curves
from core.runs.resume import resume_run
from core.runs.submit import submit_evaluation, submit_export, submit_run
from core.workspace import Workspace
from tests.tiny_model import TinyWorld, colour_rows, tiny_world

ROOT = Path(__file__).parents[2]
MARK = "TUNESMITH_SOAK"  # in the environment of whatever the soak starts
STEPS = 300
PATIENCE = 180.0  # seconds, for what should take some
# What is killed, and how often among all.
TARGETS = {"worker": 8, "server": 3, "fork server": 3, "import": 2, "evaluate": 2, "export": 2}
# Within how many seconds of its worker's beginning a job is killed.
MOMENTS = {"worker": 5.0, "import": 0.4, "evaluate": 1.5, "export": 2.5}
LIVING = ("queued", "starting", "running", "finished")
SETTINGS: dict[str, Any] = {
    "model.model_name_or_path": "tiny",
    "training.precision": "fp32",
    "training.device": "cpu",
    "training.max_steps": STEPS,
    "training.per_device_train_batch_size": 2,
    "training.gradient_checkpointing": False,
    "adapter.lora_dropout": 0.1,
    "evaluation.eval_steps": 50,
    "evaluation.sample_max_new_tokens": 0,
    "tracking.save_steps": 5,
    "tracking.logging_steps": 1,
}


def serve(root: Path) -> None:
    """The server without its page: what looks after the workspace."""
    workspace = Workspace.open(root)
    scheduler = Scheduler(workspace, Store.open(workspace), ["cpu"])
    scheduler.start("http://127.0.0.1:0")
    scheduler.warm()
    signal.sigwait({signal.SIGTERM})
    scheduler.close()
    context().close()


class Soak:
    def __init__(self, world: TinyWorld, seed: int) -> None:
        self.world, self.workspace = world, world.workspace
        self.store = Store.open(self.workspace)
        self.draw = random.Random(seed)
        self.server: subprocess.Popen[bytes] | None = None
        self.faults: list[dict[str, Any]] = []
        self.kills: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()  # it had ended already: nothing was killed
        self.ends: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.names = 0
        self.reference: bytes = b""
        self.done_run: Job | None = None
        self.run: Job | None = None

    # -- what is done

    def start_server(self) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.soak", "--serve"]
        self.server = subprocess.Popen(
            [*command, str(self.workspace.root)],
            cwd=ROOT,
            env={**os.environ, MARK: str(self.workspace.root), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=(self.workspace.root.parent / "server.log").open("ab"),
        )
        pid = self.server.pid
        self.wait("the server", lambda: (live_server(self.workspace) or {}).get("pid") == pid)

    def prepare(self) -> None:
        """The undisturbed run, which the others are compared with."""
        self.start_server()
        job = self.submit()
        self.wait("the undisturbed run", lambda: self.store.get(job.id).ended)
        self.done_run = self.store.get(job.id)
        if self.done_run.state != "finished":
            raise SystemExit(f"the undisturbed run {self.done_run.state}: {self.done_run.error}")
        self.reference = self.weights(job)

    def submit(self) -> Job:
        values = {**SETTINGS, "data.dataset": self.world.dataset.id}
        return submit_run(self.workspace, self.store, parse_config(values), devices=["cpu"])

    def weights(self, job: Job) -> bytes:
        return (self.folder(job) / "adapter/adapter_model.safetensors").read_bytes()

    def folder(self, job: Job) -> Path:
        return self.workspace.root / job.folder

    def step(self) -> None:
        """One kill, and all that has to hold after it."""
        [target] = self.draw.choices(list(TARGETS), list(TARGETS.values()))
        self.go_on()
        job = self.run if target in ("worker", "server", "fork server") else self.begin(target)
        assert job is not None
        if target in MOMENTS:  # from when its worker is there, or it would seldom be hit
            self.wait(f"the worker of {job.kind}", lambda: self.is_at_work(job))
        time.sleep(self.draw.uniform(0.0, MOMENTS.get(target, 3.0)))
        before = self.store.get(job.id)
        killed = self.kill(target, before)
        (self.kills if killed else self.missed)[target] += 1
        if self.server is None or self.server.poll() is not None:
            self.start_server()
        self.settle(target, job, killed)
        self.check(target)

    def is_at_work(self, job: Job) -> bool:
        now = self.store.get(job.id)
        return now.pid is not None or now.ended

    def begin(self, kind: str) -> Job:
        """A short job to be killed."""
        assert self.done_run is not None
        if kind == "import":
            self.names += 1
            rows = self.workspace.root / "rows.jsonl"  # not an upload: those are swept
            if not rows.exists():
                rows.write_text("".join(json.dumps(row) + "\n" for row in colour_rows()))
            name = f"again {self.names}"
            return submit_import(self.workspace, self.store, [str(rows)], name)
        if kind == "evaluate":
            params = {"max_rows": 4, "max_new_tokens": 8}
            return submit_evaluation(self.workspace, self.store, self.done_run.id, params)
        return submit_export(
            self.workspace, self.store, self.done_run.id, {"format": "merged", "dtype": "auto"}
        )

    def go_on(self) -> None:
        """There is a run at work, or about to be: resumed, or a new one."""
        if self.run is not None:
            job = self.store.get(self.run.id)
            if job.ended and job.state != "finished":
                try:
                    resume_run(self.workspace, self.store, job.id)
                    self.counts["resumed"] += 1
                except TunesmithError as error:
                    if "no checkpoint" not in str(error):
                        self.fault("resume", f"{job.id}: {error}")
                    self.run = None
            elif job.state == "finished":
                self.compare(job)
                self.run = None
        if self.run is None:
            self.run = self.submit()
            self.counts["runs"] += 1

    def kill(self, target: str, job: Job) -> bool:
        assert self.server is not None
        if target == "server":
            self.server.kill()
            self.server.wait()
            return True
        pid = job.pid if job.active else None
        if target == "fork server":
            children = psutil.Process(self.server.pid).children()
            pid = next((one.pid for one in children if "resource_tracker" not in _said(one)), None)
        elif pid is None and job.active:  # it has not said yet which process it is
            pid = self.newest_worker(job)
        if pid is None:
            return False
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def newest_worker(self, job: Job) -> int | None:
        place = str(self.folder(job))
        for process in self.processes():
            try:
                if any(place in item.path for item in process.open_files()):
                    return process.pid
            except psutil.Error:
                continue
        return None

    # -- what has to hold

    def settle(self, target: str, job: Job, killed: bool) -> None:
        """The killed job comes to an end or goes on, and says so."""
        if target in ("server", "fork server"):
            self.wait(f"{job.kind} after a killed {target}", lambda: self.quiet(job))
        elif killed:
            self.wait(f"the end of a killed {job.kind}", lambda: self.store.get(job.id).ended)
        else:
            return
        now = self.store.get(job.id)
        self.ends[f"{target}: {now.state}"] += 1
        # A worker outlives both servers; nothing but its own end ends it.
        wanted = ("died", "finished") if target not in ("server", "fork server") else LIVING
        if now.state not in wanted:
            self.fault("state", f"{now.id} ({target}) {now.state}: {now.error}")

    def quiet(self, job: Job) -> bool:
        """Whether somebody looks after the job, or it waits for that or has ended."""
        now = self.store.get(job.id)
        assert self.server is not None
        return not now.active or now.owner_pid == self.server.pid

    def check(self, target: str) -> None:
        with self.store.transaction() as sql:
            (whole,) = sql.execute("PRAGMA integrity_check").fetchone()
        if whole != "ok":
            self.fault("database", str(whole))
        jobs = self.wait_quiet()
        for job in jobs:
            if not self.folder(job).is_dir():
                self.fault("lost", f"{job.id} has no folder")
            elif job.ended and read_record(self.folder(job)).get("state") != job.state:
                self.fault("job.json", f"{job.id} is {job.state}: {read_record(self.folder(job))}")
        self.check_rebuilt(jobs)
        for info in list_datasets(self.workspace):
            rows = info.counts.train + (info.counts.eval if info.id.startswith("again") else 0)
            if rows != len(colour_rows()):
                self.fault("rows", f"{info.id} has {rows} rows")
        self.check_orphans()

    def wait_quiet(self) -> list[Job]:
        """The jobs that have ended, once their folders say what the store says."""
        ended = [job for job in self.store.list() if job.ended]

        def agree() -> bool:
            return all(read_record(self.folder(job)).get("state") == job.state for job in ended)

        end = time.monotonic() + 10
        while not agree() and time.monotonic() < end:
            time.sleep(0.05)
        return ended

    def check_rebuilt(self, ended: list[Job]) -> None:
        """A store made from the folders has the same rows for what has ended."""
        with tempfile.TemporaryDirectory() as place:
            again = Store(Path(place) / "again.db")
            again.rebuild(self.workspace)
            for job in ended:
                other, mine = again.find(job.id), replace(job, owner_pid=None)
                mine = replace(mine, owner_started_at=None)
                if other != mine:
                    there = asdict(other) if other else {}
                    differ = {
                        name: (value, there.get(name))
                        for name, value in asdict(mine).items()
                        if there.get(name) != value
                    }
                    self.fault("rebuilt", f"{job.id} ({job.kind}, {job.state}): {differ}")
            again.close()

    def check_orphans(self) -> None:
        """Whatever runs belongs to this server, or is the worker of a job that is at work."""

        def orphans() -> list[psutil.Process]:
            assert self.server is not None
            ours = {self.server.pid}
            ours |= {job.pid for job in self.store.list() if job.active and job.pid}
            return [one for one in self.processes() if not _descends(one, ours)]

        # A fork server that is still importing sees only then that its server is gone.
        end = time.monotonic() + PATIENCE
        while (left := orphans()) and time.monotonic() < end:
            # The fork server of a killed server lives as long as one of its workers does.
            if all(any(c.pid in _active(self.store) for c in _children(one)) for one in left):
                return
            time.sleep(0.2)
        for one in left:
            self.fault("orphan", f"{one.pid}: {_said(one)[:160]}")

    def compare(self, job: Job) -> None:
        """A run that came to its end is the undisturbed one."""
        self.counts["runs finished"] += 1
        if self.weights(job) != self.reference:
            self.fault("weights", f"{job.id} has learned something else")
        else:
            self.counts["weights equal"] += 1
        steps = [step for step, _ in curves(self.folder(job)).get("loss", [])]
        if steps != list(range(1, STEPS + 1)):
            self.fault("curve", f"{job.id} has the steps {steps}")

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                    mine = process.environ().get(MARK) == str(self.workspace.root)
                    found += [process] if mine else []
            except psutil.Error:
                continue
        return found

    def fault(self, what: str, detail: str) -> None:
        if any(one["detail"] == detail for one in self.faults):
            return  # seen again at a later look
        self.faults.append({"after": sum(self.kills.values()), "what": what, "detail": detail})
        print(f"FAULT {what}: {detail}", file=sys.stderr, flush=True)

    def wait(self, what: str, condition: Callable[[], Any]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                states = {job.id: job.state for job in self.store.list() if not job.ended}
                self.fault("waiting", f"{what} did not come; at work: {states}")
                return
            time.sleep(0.05)

    def finish(self) -> None:
        """The last run, undisturbed to its end; and each kind of job once more."""
        for _ in range(5):
            self.go_on()
            run = self.run
            assert run is not None
            self.wait("the last run", lambda run=run: self.store.get(run.id).ended)
            if self.store.get(run.id).state == "finished":
                self.compare(self.store.get(run.id))
                break
        for kind in ("import", "evaluate", "export"):
            job = self.begin(kind)
            self.wait(f"the last {kind}", lambda job=job: self.store.get(job.id).ended)
            if self.store.get(job.id).state != "finished":
                self.fault("end", f"{kind}: {self.store.get(job.id).error}")
        assert self.server is not None
        self.server.terminate()
        self.server.wait()
        end = time.monotonic() + PATIENCE
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.2)
        for one in left:
            self.fault("orphan", f"{one.pid} after the end: {_said(one)[:160]}")

    def summary(self, seconds: float) -> dict[str, Any]:
        return {
            "kills": sum(self.kills.values()),
            "by_target": dict(self.kills),
            "missed": dict(self.missed),
            "ends": dict(sorted(self.ends.items())),
            **{name.replace(" ", "_"): count for name, count in self.counts.items()},
            "seconds": round(seconds),
            "faults": self.faults,
        }


def _said(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _active(store: Store) -> set[int | None]:
    return {job.pid for job in store.list() if job.active}


def _descends(process: psutil.Process, from_: set[int | None]) -> bool:
    try:
        return process.pid in from_ or any(one.pid in from_ for one in process.parents())
    except psutil.Error:
        return True  # it has just ended


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
        return 0
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as place:
        rows = colour_rows()
        soak = Soak(tiny_world(Path(place) / "workspace", eval_rows=rows[::2]), given.seed)
        soak.prepare()
        try:
            while sum(soak.kills.values()) < given.kills:
                if time.monotonic() - begun > given.minutes * 60:
                    break
                soak.step()
                done = sum(soak.kills.values())
                print(f"{done} kills, {len(soak.faults)} faults", file=sys.stderr, flush=True)
            soak.finish()
        finally:
            for process in soak.processes():
                process.kill()
        found = soak.summary(time.monotonic() - begun)
    text = json.dumps(found, indent=1)
    if given.output:
        given.output.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 1 if soak.faults else 0


if __name__ == "__main__":
    sys.exit(main())
