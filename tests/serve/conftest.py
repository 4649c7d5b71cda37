"""Servers of tiny models: real jobs, real processes, and the real openai client."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from core.config.run import flatten
from core.jobs.events import read_events
from core.jobs.job import Job, write_record
from core.jobs.queue import stop_job
from core.jobs.scheduler import Scheduler
from core.jobs.store import Store
from core.rules import load_config, parse_config
from core.serve.servers import Server, endpoint_key, server_of, submit_server
from core.serve.settings import serve_settings
from core.workspace import RunFolder, Workspace
from tests.tiny_model import (
    TinyWorld,
    colour_rows,
    teach,
    tiny_adapter,
    tiny_model,
    tiny_tokenizer,
    tiny_world,
)
from tests.waiting import until

# What a tiny model cannot write within any test, if it never ends by itself (tokens).
LONGEST = 2**17


@dataclass
class Serving:
    """A workspace whose scheduler starts servers."""

    workspace: Workspace
    store: Store = field(init=False)
    scheduler: Scheduler = field(init=False)

    def __post_init__(self) -> None:
        self.store = Store.open(self.workspace)
        self.scheduler = Scheduler(self.workspace, self.store, ["cpu"])
        self.scheduler.start()

    def add(self, run: RunFolder) -> None:
        """The run's job, as its training left it."""
        name = run.root.name
        job = Job(name, "train", name, f"runs/{name}", name, "finished", model="tiny")
        write_record(run.root, job)
        self.store.add(job)

    def new_run(self, name: str, settings: dict[str, Any]) -> RunFolder:
        """An empty run of the tiny model."""
        run = self.workspace.run(name)
        run.root.mkdir()
        shared = load_config(self.workspace.run("taught").config).model_dump()
        parse_config({**flatten(shared), **settings}).save(run.config)
        return run

    def submit(self, run_id: str, *checkpoints: str, **settings: Any) -> Job:
        how = serve_settings({"context": 256, **settings})
        return submit_server(self.workspace, self.store, run_id, how, checkpoints)

    def start(self, run_id: str, *checkpoints: str, **settings: Any) -> Server:
        job = self.submit(run_id, *checkpoints, **settings)
        until(lambda: self.answering(job) or self.store.get(job.id).ended, lambda: self.saw(job))
        server = self.answering(job)
        assert server is not None, self.saw(job)
        return server

    def answering(self, job: Job) -> Server | None:
        return server_of(self.workspace, self.store.get(job.id))

    def ended(self, job: Job) -> Job:
        until(lambda: self.store.get(job.id).ended, lambda: self.saw(job))
        return self.store.get(job.id)

    def saw(self, job: Job) -> str:
        folder = self.workspace.root / job.folder
        log = folder / "worker.log"
        told = log.read_text() if log.is_file() else ""
        return f"{read_events(folder / 'events.jsonl')}\n{told}"

    def stop(self, server: Server) -> None:
        stop_job(self.workspace, self.store, server.job.id)
        assert self.ended(server.job).state == "stopped"

    def client(self, server: Server, key: str = "") -> OpenAI:
        key = key or endpoint_key(self.workspace)
        return OpenAI(base_url=f"{server.address}/v1", api_key=key, max_retries=0)

    def close(self) -> None:
        self.scheduler.close(stop_runs=True)
        self.store.close()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return taught_world(tmp_path_factory.mktemp("serve") / "ws")


def taught_world(root: Path) -> TinyWorld:
    """A run that knows the colours, with a checkpoint that says something else."""
    world = tiny_world(root)
    config = world.base / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "max_position_embeddings": LONGEST}))
    run = world.run("taught")
    model = tiny_adapter(tiny_model())
    early = run.checkpoints / "checkpoint-10"
    save(model, early)
    (early / "trainer_state.json").write_text('{"global_step": 10}')
    teach(model, tiny_tokenizer(), colour_rows(), 60)
    save(model, run.adapter)
    job = Job("taught", "train", "taught", "runs/taught", "taught", "finished", model="tiny")
    write_record(run.root, job)
    return world


def save(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


@pytest.fixture(scope="module")
def serving(world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    root = tmp_path_factory.mktemp("served") / "ws"
    shutil.copytree(world.root, root)
    made = Serving(Workspace.open(root))
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(serving: Serving) -> Server:
    return serving.start("taught")
