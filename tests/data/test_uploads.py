"""What a browser brought is somebody's data: it stays as long as it is needed, and no longer."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from core.data.jobs import run_import, submit_import
from core.data.registry import delete_dataset, list_datasets
from core.data.uploads import KEPT_SECONDS, discard_uploads, sweep_uploads
from core.errors import DataError
from core.jobs.job import ENDED, Job
from core.jobs.store import Store
from core.workspace import Workspace

PAIR = json.dumps({"prompt": "What is it?", "completion": "It is that."}) + "\n"


@pytest.fixture
def place(workspace: Path) -> Workspace:
    return Workspace.open(workspace)


@pytest.fixture
def store(place: Workspace) -> Store:
    return Store.open(place)


def bring(place: Workspace, name: str = "rows.jsonl", text: str = PAIR * 3) -> Path:
    """A file as Gradio keeps an upload."""
    path = place.uploads / f"sha-of-{name}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def work(place: Workspace, store: Store, job: Job) -> str:
    """Does an import here, as its worker does."""
    store.transition(job.id, ("queued",), "starting")
    store.transition(job.id, ("starting",), "running")
    ended = "failed"
    try:
        ended = run_import(place.root / job.folder, place.root)
    finally:
        store.transition(job.id, ("running",), ended)
    return ended


def test_an_upload_goes_when_it_was_imported(place: Workspace, store: Store) -> None:
    rows, held_out = bring(place), bring(place, "held-out.jsonl", PAIR)
    own = place.root / "own.jsonl"
    own.write_text(PAIR)
    how = {"eval_source": str(held_out)}
    job = submit_import(place, store, [str(rows), str(own)], "Rows", **how)
    assert work(place, store, job) == "finished"
    assert list_datasets(place)[0].counts.train == 4
    assert not rows.parent.exists() and not held_out.parent.exists()
    assert own.exists()


def test_an_upload_that_could_not_be_imported_can_be_tried_again(
    place: Workspace, store: Store
) -> None:
    """The form still shows it: another mapping may do, and nobody brings a large file twice."""
    rows = bring(place)
    job = submit_import(place, store, [str(rows)], "Rows", form="preference")
    with pytest.raises(DataError):
        work(place, store, job)
    assert rows.exists()
    discard_uploads(place, store, [str(rows)])
    assert not rows.parent.exists()


def test_what_another_import_has_still_to_read_stays(place: Workspace, store: Store) -> None:
    """The same file brought in two windows lies there once."""
    rows = bring(place)
    first, second = (submit_import(place, store, [str(rows)], name) for name in ("One", "Two"))
    discard_uploads(place, store, [str(rows)])
    assert work(place, store, first) == "finished" and rows.exists()
    assert work(place, store, second) == "finished" and not rows.exists()


def test_nothing_but_an_upload_is_discarded(place: Workspace, store: Store) -> None:
    own, folder = place.root / "own.jsonl", place.uploads / "folder"
    own.write_text(PAIR)
    folder.mkdir(parents=True)
    roundabout = place.uploads / "folder" / ".." / ".." / "own.jsonl"
    discard_uploads(place, store, [str(own), str(roundabout), str(folder), "hf:owner/name", None])
    assert own.exists() and folder.exists()


def test_what_nobody_imported_goes_after_a_day(place: Workspace, store: Store) -> None:
    old, waiting, fresh = (bring(place, f"{name}.jsonl") for name in ("old", "waiting", "fresh"))
    submit_import(place, store, [str(waiting)], "Waiting")
    saved = place.downloads("a-set") / "x" / "rows.parquet"
    saved.parent.mkdir(parents=True)
    saved.write_bytes(b"PAR1")
    long_ago = time.time() - KEPT_SECONDS - 60
    for path in (old, waiting, saved):
        os.utime(path, (long_ago, long_ago))
    sweep_uploads(place, store)
    assert not old.exists() and not saved.exists() and waiting.exists() and fresh.exists()
    sweep_uploads(place, store, now=time.time() + 2 * KEPT_SECONDS)
    assert [path for path in place.uploads.rglob("*") if path.is_file()] == [waiting]
    assert not old.parent.exists() and not saved.parent.exists()


def test_a_deleted_data_set_leaves_nothing_of_its_rows(place: Workspace, store: Store) -> None:
    job = submit_import(place, store, [str(bring(place, "secret-rows.jsonl"))], "Rows")
    assert work(place, store, job) == "finished" and store.get(job.id).state in ENDED
    (info,) = list_datasets(place)
    saved = place.downloads(info.id) / "x" / "rows.jsonl"
    saved.parent.mkdir(parents=True)
    saved.write_text(PAIR)
    delete_dataset(place, info.id, store)
    assert store.find(job.id) is None
    files = [path for path in place.root.rglob("*") if path.is_file() and ".db" not in path.name]
    assert [path for path in files if "What is it?" in path.read_text(errors="replace")] == []
    assert [path for path in place.root.rglob("*") if "secret-rows" in path.name] == []
