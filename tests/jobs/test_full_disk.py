"""A disk that fills up while a job is at work: it ends, and says why. A real, small disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import WorkspaceError
from core.jobs.events import EventWriter, read_events
from core.jobs.job import read_record
from core.jobs.store import Store
from core.jobs.supervise import look_once
from tests.jobs.bench import ROOT, Bench
from tests.tiny_model import tiny_world
from tests.waiting import end_of, until


def fill(disk: Path, free: int = 0) -> Path:
    """Leaves about so many bytes free."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        room = os.statvfs(disk)
        file.write(b"0" * max(0, room.f_bavail * room.f_frsize - free))
    return filler


@pytest.fixture
def bench(small_disk: Path) -> Iterator[Bench]:
    bench = Bench(small_disk / "workspace")
    yield bench
    (small_disk / "filler").unlink(missing_ok=True)
    bench.close()


def test_a_foreground_run_ends_when_nothing_at_all_can_be_written(bench: Bench) -> None:
    """A shell that hangs for ever, with a log that swells, tells nobody to make room."""
    job = bench.add(steps=2, behaviour="fill the disk")
    program = subprocess.Popen(
        [sys.executable, str(ROOT / "tests/jobs/foreground.py"), bench.workspace.root, job.id],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    out, err = end_of(program)
    assert out.endswith("failed\n")
    assert err.count("Trying again") < 5 and "cannot rollback" not in err
    look_once(bench.workspace, bench.store)  # what cannot be written does not end a command
    (bench.folder(job) / "filler").unlink()
    look_once(bench.workspace, bench.store)
    assert bench.store.get(job.id).ended
    assert read_record(bench.folder(job))["state"] == bench.store.get(job.id).state


def test_a_server_settles_a_run_once_there_is_room_again(bench: Bench) -> None:
    """It must neither forget the run nor keep its slot for ever."""
    job = bench.add(steps=2, behaviour="fill the disk")
    bench.scheduler()
    filler = bench.folder(job) / "filler"
    until(lambda: os.statvfs(bench.workspace.root).f_bavail == 0)
    until(lambda: bench.schedulers[0]._unwritten)
    filler.unlink()
    failed = bench.wait_state(job, "failed")
    assert failed.error == "The disk is full."
    until(lambda: read_record(bench.folder(job))["state"] == "failed")
    bench.wait_state(bench.add(steps=1), "finished")


def test_the_store_says_that_the_disk_is_full(bench: Bench, small_disk: Path) -> None:
    """SQLite undoes the change by itself; what it said must not be hidden by our undoing it."""
    job = bench.add()
    fill(small_disk)
    with pytest.raises(WorkspaceError, match="the disk is full"), bench.store.transaction():
        for number in range(2000):
            bench.store.update(job.id, note=f"{number} " * 100)
    assert bench.store.get(job.id).note == ""
    with pytest.raises(WorkspaceError, match="the disk is full"):
        Store(small_disk / "other.db")


def test_an_event_is_written_whole_or_refused(small_disk: Path) -> None:
    """The half of a line that fitted must not pass for an event, nor spoil the next one."""
    events = EventWriter(small_disk / "events.jsonl")
    events.write("log", message="first")
    filler = fill(small_disk)
    with pytest.raises(OSError, match="No space"):
        events.write("log", message="x" * 10_000)
    filler.unlink()
    events.write("log", message="last")
    assert [event["message"] for event in read_events(events.path)] == ["first", "last"]


@pytest.mark.slow
@pytest.mark.parametrize("room", [420_000, 700_000], ids=["the weights", "the optimizer"])
def test_a_training_that_fills_the_disk_fails_without_half_a_checkpoint(
    small_disk: Path, room: int
) -> None:
    """The whole of it: a real trainer, SafeTensors' error and torch's, and the exit code."""
    world = tiny_world(small_disk / "workspace")
    settings = {
        "model.model_name_or_path": "tiny",
        "data.dataset": world.dataset.id,
        "adapter.method": "none",
        "training.precision": "fp32",
        "training.max_steps": 4,
        "tracking.save_steps": 1,
        "evaluation.sample_max_new_tokens": 0,
        "evaluation.eval_strategy": "no",
    }
    options = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    fill(small_disk, room)
    words = ["--workspace", str(world.root), "train", "quickstart", "--json", *options]
    done = subprocess.run(
        [sys.executable, "-m", "core.cli", *words], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert (told["state"], told["error"]) == ("failed", "The disk is full."), done.stderr
    folder = Path(told["folder"])
    assert list((folder / "checkpoints").iterdir()) == []
    record = read_record(folder)
    assert (record["state"], record["error"], record["step"]) == ("failed", "The disk is full.", 1)
