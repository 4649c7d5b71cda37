"""A model that was trained from a run's script elsewhere becomes a run of its own here: it can be
measured, talked to and exported as any other."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from core.errors import HubError, JobError
from core.hub.answers import client, told_plainly
from core.jobs.events import EventWriter
from core.jobs.job import Job, write_record
from core.jobs.queue import new_folder
from core.jobs.store import Store
from core.language import _
from core.models.checkpoints import weights_broken
from core.models.fingerprint import FILE as BASE
from core.workspace import RunFolder, Workspace


def bring(workspace: Workspace, run_id: str, repository: str, folder: str, seconds: float) -> str:
    """The model in a folder of a repository as a new run, which has the settings of the run
    `run_id`; returns its id. `seconds` is how long it was trained. Raises HubError where it cannot
    be fetched or is not whole, JobError where that run is gone."""
    store = Store.open(workspace)
    try:
        first = store.find(run_id)
        if first is None:
            raise JobError(_("There is no run {run}.", run=run_id))
        with tempfile.TemporaryDirectory(dir=workspace.runs, prefix=".brought-") as place:
            with told_plainly(repository):
                client().snapshot_download(
                    repository, allow_patterns=f"{folder}/*", local_dir=place
                )
            trained = Path(place) / folder
            broken = weights_broken(trained)
            if broken:
                raise HubError(
                    _("What was trained in {repository}: {why}.", repository=repository, why=broken)
                )
            return _as_run(workspace, store, first, trained, repository, seconds)
    finally:
        store.close()


def _as_run(
    workspace: Workspace, store: Store, first: Job, trained: Path, repository: str, seconds: float
) -> str:
    run_id, place = new_folder(store, workspace.runs)
    run, before = RunFolder(place), RunFolder(workspace.root / first.folder)
    for path in (before.config, before.chat_template, before.root / BASE):
        if path.is_file():
            shutil.copy2(path, run.root)
    is_adapter = (trained / "adapter_config.json").is_file()
    os.replace(trained, run.adapter if is_adapter else run.model)
    job = Job(
        id=run_id,
        kind="train",
        run_id=run_id,
        folder=place.relative_to(workspace.root).as_posix(),
        name=_("{name}, from the cloud", name=first.name or first.id),
        state="finished",
        device="cloud",
        step=first.max_steps,
        max_steps=first.max_steps,
        model=first.model,
        dataset=first.dataset,
        earlier_seconds=seconds,
        params={"repository": repository, "script_of": first.id},
    )
    events = EventWriter(run.events)
    events.write("log", message=_("Trained in {repository}.", repository=repository), level="info")
    events.write("state", state="finished")
    with store.transaction():
        write_record(place, store.add(job))
    return run_id
