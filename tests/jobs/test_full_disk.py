"""A disk that fills up while a job is at work: it ends, and says why. A real, small disk."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core import cli
from core.data.jobs import submit_import
from core.errors import ExportError, WorkspaceError
from core.jobs.events import EventWriter, read_events
from core.jobs.job import read_record
from core.jobs.store import Store
from core.jobs.supervise import look_once
from core.worker.export.run import run_export
from core.worker.training.advice import advise
from core.workspace import Workspace
from tests.jobs.bench import ROOT, Bench
from tests.tiny_model import tiny_adapter, tiny_model, tiny_tokenizer, tiny_world
from tests.waiting import end_of, until
from tests.warm_python import with_commands


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


def texts(path: Path, megabytes: int) -> Path:
    """Rows that hardly pack."""
    with path.open("w") as file:
        for _ in range(megabytes):
            text = random.Random(file.tell()).randbytes(2**19).hex()
            file.write(json.dumps({"prompt": text[:100], "completion": text}) + "\n")
    return path


def test_an_import_that_fills_the_disk_fails_and_leaves_nothing(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """In a shell and as a job of the page: half a data set would pass for a small one."""
    rows = texts(tmp_path / "rows.jsonl", 24)
    datasets, root = bench.workspace.datasets, str(bench.workspace.root)
    monkeypatch.setenv("TUNESMITH_ALLOW", str(tmp_path))
    bench.workspace = Workspace.open(root)  # which may read the rows
    words = ["--workspace", root, "data", "import", str(rows), "--json"]
    assert cli.main(words) == 1
    told = capsys.readouterr()
    assert "the disk is full" in told.out + told.err
    assert list(datasets.iterdir()) == []
    room = os.statvfs(root).f_bavail
    job = submit_import(bench.workspace, bench.store, [str(rows)], "rows")
    bench.scheduler(target=None)
    failed = bench.wait_state(job, "failed")
    assert "the disk is full" in failed.error and "import again" in failed.advice
    assert list(datasets.iterdir()) == []
    assert os.statvfs(root).f_bavail > room * 0.9
    bench.schedulers[0].close()
    assert read_record(bench.folder(job))["state"] == "failed"


@pytest.mark.slow
def test_an_export_that_fills_the_disk_fails_and_leaves_nothing(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before it begins where there is no room; where others fill the disk meanwhile,
    nothing half-written passes for a model."""
    monkeypatch.setenv("TUNESMITH_DEVICE", "cpu")
    world = tiny_world(small_disk / "workspace")
    run = world.run("lora-run", {"name": "Colour namer"})
    tiny_adapter(tiny_model()).save_pretrained(run.adapter)
    tiny_tokenizer().save_pretrained(run.adapter)
    folder = world.task(run, "export", "refused", {"format": "merged"})
    with pytest.raises(ExportError, match="The disk is full: the export needs"):
        run_export(folder, world.root)
    assert {path.name for path in folder.iterdir()} <= {"job.json", "events.jsonl"}
    folder = world.task(run, "export", "full", {"format": "merged"})
    fill(small_disk, 150_000)
    monkeypatch.setattr("core.worker.export.run.need_room", lambda *_: None)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what a library makes of it
        run_export(folder, world.root)
    assert advise(caught.value).message == "The disk is full."
    assert {path.name for path in folder.iterdir()} <= {"job.json", "events.jsonl"}


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
        [with_commands(), "-m", "core.cli", *words], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert (told["state"], told["error"]) == ("failed", "The disk is full."), done.stderr
    folder = Path(told["folder"])
    assert list((folder / "checkpoints").iterdir()) == []
    record = read_record(folder)
    assert (record["state"], record["error"], record["step"]) == ("failed", "The disk is full.", 1)
