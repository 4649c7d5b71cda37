"""A full disk, a kill or a second change in the middle: the data set stays as it was, and nothing
is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.data.prepare import import_dataset
from core.data.record import DatasetInfo, read_record
from core.data.registry import (
    changing,
    delete_dataset,
    load_dataset_info,
    only_changer,
    read_rows,
    rename_dataset,
)
from core.data.steps import parse_steps
from core.data.versions import apply_steps, undo
from core.errors import DataError
from core.jobs.job import Job
from core.jobs.store import Store
from core.workspace import Workspace

CHILD = """
import os, resource, signal, sys
from core.data.steps import parse_steps
from core.data.versions import apply_steps
from core.errors import DataError
from core.workspace import Workspace

how, root, dataset = sys.argv[1:]
if how == "full disk":
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

def progress(fraction, message):
    if how == "kill" and fraction > 0.5:
        os.kill(os.getpid(), signal.SIGKILL)

steps = parse_steps([{"op": "broken_encoding"}, {"op": "shuffle"}, {"op": "split"}])
try:
    apply_steps(Workspace.open(root), dataset, steps, progress=progress)
except DataError as error:
    sys.exit(error.message)
"""


@pytest.fixture
def data(open_workspace: Workspace, tmp_path: Path) -> DatasetInfo:
    path = tmp_path / "rows.jsonl"
    lines = (json.dumps({"text": f"{n} {os.urandom(40).hex()}"}) + "\n" for n in range(2000))
    path.write_text("".join(lines), encoding="utf-8")
    return import_dataset(open_workspace, [path])


def everything(folder: Path) -> dict[str, bytes]:
    """All files below a folder but the lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def in_a_child(how: str, workspace: Workspace, data: DatasetInfo) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", CHILD, how, str(workspace.root), data.id]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_full_disk_leaves_the_data_set_as_it_was(
    open_workspace: Workspace, data: DatasetInfo
) -> None:
    before = everything(data.folder)
    done = in_a_child("full disk", open_workspace, data)
    assert "could not be written: File too large" in done.stderr and done.returncode == 1
    assert everything(data.folder) == before


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_killed_change_is_no_version_and_what_it_left_goes_with_the_next_one(
    open_workspace: Workspace, data: DatasetInfo
) -> None:
    before = everything(data.folder)
    assert in_a_child("kill", open_workspace, data).returncode == -signal.SIGKILL
    left = set(everything(data.folder)) - set(before)
    assert left and all(".scratch-" in name for name in left)
    assert load_dataset_info(open_workspace, data.id).version == 1
    assert len(read_rows(open_workspace, data.id, limit=5000)) == 1800
    info = apply_steps(open_workspace, data.id, parse_steps([{"op": "sample", "rows": 10}]))
    assert info.counts.train == 10
    assert not list(data.folder.glob(".scratch-*"))
    assert {path.name for path in (data.folder / "versions").iterdir()} == {"1", "2"}


def test_a_step_that_fails_leaves_nothing(open_workspace: Workspace, data: DatasetInfo) -> None:
    before = everything(data.folder)
    with pytest.raises(DataError, match=r"no row is left to learn from: does not match \(2,000\)"):
        nothing = parse_steps([{"op": "select_rows", "condition": "len(text) > 10000"}])
        apply_steps(open_workspace, data.id, nothing)
    assert everything(data.folder) == before


def test_no_change_gets_between_another_and_its_record(
    open_workspace: Workspace, data: DatasetInfo
) -> None:
    """A new name must not take away the version that is being made, and a set that is being
    changed must not be deleted under it."""
    with changing(open_workspace, data.id):
        with pytest.raises(DataError, match="is being changed"):
            rename_dataset(open_workspace, data.id, "Other")
        with pytest.raises(DataError, match="is being changed"):
            delete_dataset(open_workspace, data.id)
    assert rename_dataset(open_workspace, data.id, "Other").name == "Other"
    delete_dataset(open_workspace, data.id)
    assert not data.folder.exists()


class QueuedMeanwhile(Store):
    """A store in which somebody queues a run as soon as it was seen to be empty."""

    dataset = ""

    def list(self, *args: Any, **kwargs: Any) -> Any:
        found = super().list(*args, **kwargs)
        if self.dataset and not found:
            run = "20261122-0800-calm-otter"
            self.add(Job(run, "train", run, f"runs/{run}", dataset=self.dataset))
        return found


def test_a_change_of_a_set_that_is_gone_does_not_bring_its_folder_back(
    open_workspace: Workspace, data: DatasetInfo
) -> None:
    """An empty folder would be listed as a damaged data set."""
    delete_dataset(open_workspace, data.id)
    with pytest.raises(DataError, match="There is no data set"), only_changer(data.folder):
        pass
    assert not data.folder.exists()


def test_a_run_that_is_queued_while_its_data_is_deleted_keeps_it(
    open_workspace: Workspace, data: DatasetInfo
) -> None:
    store = QueuedMeanwhile.open(open_workspace)
    store.dataset = data.id
    with pytest.raises(DataError, match="is needed by"):
        delete_dataset(open_workspace, data.id, store)
    assert read_record(data.folder).id == data.id


def test_a_record_of_many_versions_stays_small(
    open_workspace: Workspace, data: DatasetInfo
) -> None:
    """Every list of data sets reads it: it must not grow by all dropped rows of each version."""
    for rows in range(100, 700, 100):
        info = apply_steps(open_workspace, data.id, parse_steps([{"op": "sample", "rows": rows}]))
    listed = [len(version.steps[0].listed) for version in info.versions[1:]]
    assert listed == [20, 20, 20, 20, 1000, 1000]
    assert [version.steps[0].dropped for version in info.versions[1:]] == list(
        range(1900, 1300, -100)
    )
    assert len(undo(open_workspace, data.id).steps[0].listed) == 1000
