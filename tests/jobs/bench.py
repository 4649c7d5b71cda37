"""A workspace with a store, jobs without a model, and real schedulers, servers and workers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from core.config import RunConfig
from core.jobs.job import ACTIVE, Job
from core.jobs.kinds import KINDS
from core.jobs.process import context, kill_worker
from core.jobs.queue import enqueue
from core.jobs.scheduler import Scheduler
from core.jobs.store import Choose, Store
from core.workspace import Workspace, new_id
from tests.waiting import until

ROOT = Path(__file__).parents[2]
LIGHT = ("core.jobs.worker", "tests.jobs.fake_jobs")


def for_slot(name: str) -> Choose:
    """The next job of the queue for a slot, whatever it asks for."""

    def choose(queued: list[Job], busy: Collection[str]) -> tuple[Job, str, str] | None:
        return (queued[0], name, "cpu") if queued and name not in busy else None

    return choose


class Bench:
    """A workspace on which jobs without a model are run by real schedulers."""

    def __init__(self, root: Path) -> None:
        self.workspace = Workspace.open(root)
        self.store = Store.open(self.workspace)
        self.schedulers: list[Scheduler] = []
        self.servers: list[subprocess.Popen[str]] = []

    def add(
        self,
        kind: str = "train",
        run_id: str | None = None,
        config: RunConfig | None = None,
        **params: Any,
    ) -> Job:
        """A queued job, as submit leaves it; with its settings, where its worker reads them."""
        job_id = f"{new_id()}-{len(self.store.list())}"  # never twice the same
        parent = self.workspace.runs
        if kind != "train":
            parent = self.workspace.run(run_id or "").root / KINDS[kind].folder
        folder = parent / job_id
        folder.mkdir(parents=True)
        if config is not None:
            config.save(folder / "config.yaml")
        job = Job(
            id=job_id,
            kind=kind,
            run_id=run_id or job_id,
            folder=folder.relative_to(self.workspace.root).as_posix(),
            device=params.get("device", "auto"),
            params=params,
        )
        return enqueue(self.workspace, self.store, job)

    def folder(self, job: Job) -> Path:
        return self.workspace.root / job.folder

    def allow(self, job: Job, steps: int) -> None:
        path = self.folder(job) / "allowed"
        path.with_suffix(".new").write_text(str(steps))
        path.with_suffix(".new").replace(path)

    def scheduler(self, start: bool = True, **options: Any) -> Scheduler:
        options = {
            "devices": ["cpu"],
            "poll_seconds": 0.02,
            "workers": context(LIGHT),
            "target": "tests.jobs.fake_jobs:either",
            **options,
        }
        scheduler = Scheduler(self.workspace, self.store, **options)
        self.schedulers.append(scheduler)
        if start:
            scheduler.start()
        return scheduler

    def server(self, *, real: bool = False) -> subprocess.Popen[str]:
        """A server process that schedules; killed when the test ends. With `real` it does what
        jobs on data ask for."""
        root = str(self.workspace.root)
        server = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/jobs/server.py"), root, *(["real"] if real else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.servers.append(server)
        assert server.stdout is not None
        assert server.stdout.readline() == "imported\n"
        assert server.stdout.readline() == "ready\n"
        return server

    def wait_state(self, job: Job, *states: str) -> Job:
        until(lambda: self.store.get(job.id).state in states)
        return self.store.get(job.id)

    def wait_step(self, job: Job, step: int) -> Job:
        until(lambda: self.store.get(job.id).step >= step)
        return self.store.get(job.id)

    def close(self) -> None:
        for server in self.servers:
            server.kill()
            server.wait()
            for pipe in (server.stdin, server.stdout, server.stderr):
                assert pipe is not None
                pipe.close()
        for scheduler in self.schedulers:
            scheduler.close()
        for job in self.store.list(states=ACTIVE):
            if job.pid is not None and job.pid_started_at is not None:
                kill_worker(job.pid, job.pid_started_at)
        self.store.close()
