"""What lies in the Hub's cache is seen, and one repository of it can be deleted: nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.jobs.store import Store
from core.workspace import Workspace
from tests.hub.stand_in import Hub
from tests.hub.test_account import command
from tests.hub.test_search import MODEL, USABLE
from tests.webui.made_runs import make_run


def listed(hub: Hub, home: Path) -> list[dict[str, Any]]:
    done = command(hub, home, "hub", "cache", "list", "--json", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    answer: list[dict[str, Any]] = json.loads(done.stdout)["cached"]
    return answer


@pytest.fixture
def home(hub: Hub, tmp_path: Path) -> Path:
    """With two models and a data set of the name of one of them in the cache."""
    for name in ("lab/one", "lab/two"):
        hub.holds(name, MODEL, **USABLE)
        assert command(hub, tmp_path, "hub", "pull", name).returncode == 0
    rows = tmp_path / "hub" / "datasets--lab--one" / "snapshots" / ("0" * 40) / "rows.csv"
    rows.parent.mkdir(parents=True)
    rows.write_text("a\n")
    hub.asked.clear()
    return tmp_path


def test_what_is_in_the_cache(hub: Hub, home: Path) -> None:
    found = {(one["repo_id"], one["kind"]): one for one in listed(hub, home)}
    assert found.keys() == {("lab/one", "model"), ("lab/two", "model"), ("lab/one", "dataset")}
    one = found["lab/one", "model"]
    assert one["size_bytes"] == 5302 and one["revisions"] == 1 and one["last_used"] > 0
    text = command(hub, home, "hub", "cache", "list").stdout
    assert "lab/two" in text and "5.3 kB" in text
    assert hub.asked == [], "the Hub is not asked"


def test_one_is_deleted_and_the_others_stay(hub: Hub, home: Path) -> None:
    done = command(hub, home, "hub", "cache", "delete", "lab/one")
    assert done.returncode == 0 and "lab/one is deleted, which frees 5.3 kB" in done.stdout
    left = [(one["repo_id"], one["kind"]) for one in listed(hub, home)]
    assert sorted(left) == [("lab/one", "dataset"), ("lab/two", "model")]
    assert not (home / "hub" / "models--lab--one").exists()
    again = command(hub, home, "hub", "cache", "delete", "lab/one")
    assert again.returncode == 1 and "no lab/one in the cache" in again.stderr
    done = command(hub, home, "hub", "cache", "delete", "lab/one", "--dataset", "--json")
    assert json.loads(done.stdout)["deleted"]["kind"] == "dataset"
    assert [one["repo_id"] for one in listed(hub, home)] == ["lab/two"]


def test_a_model_that_runs_need_is_deleted_by_force_alone(
    hub: Hub, home: Path, workspace: Path
) -> None:
    opened = Workspace.open(workspace)
    store = Store.open(opened)
    job = make_run(opened, store, steps=1)
    store.close()
    record = {**json.loads((opened.run(job.id).job).read_text()), "model": "lab/one"}
    opened.run(job.id).job.write_text(json.dumps(record))
    (workspace / "tunesmith.db").unlink()  # it is made again from the folders
    words = ("hub", "cache", "delete", "--workspace", str(workspace))
    done = command(hub, home, *words, "lab/one")
    assert done.returncode == 1 and f"1 run needs lab/one: {job.id}." in done.stderr
    assert "--force" in done.stderr and (home / "hub" / "models--lab--one").exists()
    assert command(hub, home, *words, "lab/one", "--dataset").returncode == 0
    assert command(hub, home, *words, "lab/two").returncode == 0
    assert command(hub, home, *words, "lab/one", "--force").returncode == 0
    assert listed(hub, home) == []


def test_nothing_outside_the_cache_is_deleted(hub: Hub, home: Path) -> None:
    outside = home / "models--lab--three" / "snapshots" / ("1" * 40)
    outside.mkdir(parents=True)
    (outside / "model.safetensors").write_bytes(b"w")
    cache = home / "hub"
    for name in ("../models--lab--three", "..", str(outside), "", "lab/two/../../..", "lab--two"):
        done = command(hub, home, "hub", "cache", "delete", name)
        assert done.returncode == 1, name
    (cache / "models--lab--linked").symlink_to(home / "models--lab--three")
    command(hub, home, "hub", "cache", "delete", "lab/linked")
    assert (outside / "model.safetensors").exists(), "a link is taken away, not what it leads to"
    assert len(listed(hub, home)) == 3


def test_there_need_be_no_cache(hub: Hub, tmp_path: Path) -> None:
    assert listed(hub, tmp_path) == []
    assert "cache is empty" in command(hub, tmp_path, "hub", "cache", "list").stdout
    assert command(hub, tmp_path, "hub", "cache", "delete", "lab/one").returncode == 1
