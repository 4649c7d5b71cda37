"""A job's folder is all that a worker needs: no server, no fork server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from core.data.jobs import submit_import
from core.data.registry import list_datasets
from core.jobs.events import read_events
from core.jobs.store import Store
from core.workspace import Workspace

ROOT = Path(__file__).parents[2]


def run_worker(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "core.worker", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_worker_started_by_its_folder_does_the_job(workspace: Path) -> None:
    """Where there is no fork server (Windows, a cluster), nothing else could do it."""
    opened = Workspace.open(workspace)
    source = workspace / "rows.jsonl"
    rows = [{"prompt": f"What is {n}?", "completion": f"It is {n}."} for n in range(8)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    job = submit_import(opened, Store(opened.database), [str(source)], "Eight")
    folder = opened.root / job.folder
    done = run_worker(str(folder))
    assert done.returncode == 0, (folder / "worker.log").read_text()
    states = [event["state"] for event in read_events(folder / "events.jsonl") if "state" in event]
    assert states[-2:] == ["running", "finished"]
    assert [info.name for info in list_datasets(opened)] == ["Eight"]


def test_a_folder_without_a_job_is_refused(workspace: Path) -> None:
    done = run_worker(str(workspace))
    assert done.returncode == 2 and "is no job's folder" in done.stderr
    assert run_worker().returncode == 2
