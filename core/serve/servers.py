"""Servers as jobs: one is put in the queue, and what it says of itself is read back.

A server belongs to its run and lies in its folder. What it needs to know of the key is in the
workspace's file alone; neither its job nor its events nor a command line hold it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import ModelError
from core.jobs.devices import DATA
from core.jobs.events import last_event
from core.jobs.job import Job
from core.jobs.kinds import KINDS
from core.jobs.queue import enqueue, new_folder
from core.jobs.store import Store
from core.language import _
from core.models.checkpoints import checkpoints as checkpoints_of
from core.models.trained import FINAL, find_trained
from core.rules import load_config
from core.runs.records import run_job
from core.serve.settings import ServeSettings
from core.workspace import Workspace, write_atomic

SERVER = "server"
"""The kind of the event with which a server says that it answers, and where."""
_KEY = re.compile(r"[A-Za-z0-9_-]{20,200}")


@dataclass(frozen=True)
class Server:
    """A server that answers. The first of `models` is the one that was trained; `routes` are what
    it has an answer to. `why` tells why it is not llama.cpp that answers."""

    job: Job
    address: str
    engine: str
    why: str
    models: tuple[str, ...]
    routes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "server": self.job.id,
            "run": self.job.run_id,
            "state": self.job.state,
            "address": self.address,
            "engine": self.engine,
            "why": self.why,
            "models": list(self.models),
            "routes": list(self.routes),
        }


def submit_server(
    workspace: Workspace,
    store: Store,
    run_id: str,
    settings: ServeSettings,
    names: Sequence[str] = (),
) -> Job:
    """Puts a server of a run's model in the queue: of the checkpoints of these names, or else of
    all that it left. Raises ModelError when it left none, and for a reward model."""
    run = run_job(store, run_id)
    folder = workspace.run(run_id)
    method = load_config(folder.config).training_method
    if method.makes == "scorer":
        raise ModelError(
            _(
                "{run} was trained with {method}: a server has no use for that.",
                run=run_id,
                method=method.description,
            ),
            _("Serve a run that writes, gives labels or reads texts."),
        )
    there = [one.name for one in checkpoints_of(folder.root)]
    for name in names or there[-1:] or [FINAL]:
        find_trained(folder, name)
    endpoint_key(workspace)
    job_id, place = new_folder(store, folder.root / KINDS["serve"].folder)
    job = Job(
        id=job_id,
        kind="serve",
        run_id=run_id,
        folder=place.relative_to(workspace.root).as_posix(),
        name=run.name,
        device=DATA,
        model=run.model,
        dataset=run.dataset,
        params={"settings": settings.model_dump(), "checkpoints": list(names)},
    )
    return enqueue(workspace, store, job)


def servers(workspace: Workspace, store: Store, run_id: str) -> list[Server]:
    """The servers of a run that answer, the newest first."""
    jobs = [job for job in store.list(kind="serve", run_id=run_id) if job.active]
    found = [server_of(workspace, job) for job in sorted(jobs, key=lambda job: -job.created_at)]
    return [one for one in found if one is not None]


def server_of(workspace: Workspace, job: Job) -> Server | None:
    """What a server said of itself; None while it does not answer."""
    event = last_event(workspace.root / job.folder / "events.jsonl", SERVER)
    if event is None or not job.active:
        return None
    told = {name: event[name] for name in ("address", "engine", "why")}
    return Server(job, **told, models=tuple(event["models"]), routes=tuple(event["routes"]))


def endpoint_key(workspace: Workspace) -> str:
    """The key that the workspace's servers ask for; made when there is none yet."""
    try:
        kept = workspace.endpoint_key.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        kept = ""
    if not _KEY.fullmatch(kept):
        kept = secrets.token_urlsafe(32)
        write_atomic(workspace.endpoint_key, kept + "\n")
    return kept
