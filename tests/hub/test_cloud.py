"""A run is trained once more on a rented machine: its script really runs there, in a process of the
stand-in's, and what it trained lies in the repository."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from core.hub.cloud import trained_there
from core.jobs.job import Job, write_record
from core.language import pack
from core.models.trained import find_trained
from core.workspace import RunFolder
from tests.hub.conftest import ROOT, environment
from tests.hub.stand_in import WRITES, Hub
from tests.hub.test_account import command
from tests.tiny_model import tiny_adapter, tiny_model, tiny_tokenizer, tiny_world
from tests.waiting import end_of, until
from tests.warm_python import with_commands

STARTER = "SmolLM2-135M-Instruct"
TRAIN = """
import shutil, sys, time
from pathlib import Path
output = Path(sys.argv[sys.argv.index("--output") + 1])
rows = Path(__file__).with_name("train.jsonl").read_text()
for step in range(1, 4):
    print(f" {step}/3 [00:0{step}<00:00, 1.00it/s]", flush=True)
if "forever" in rows:
    time.sleep(3600)
if "breaks" in rows:
    sys.exit("CUDA out of memory")
shutil.copytree(Path(__file__).with_name("learned"), output / "final")
if "torn" in rows:
    (output / "final" / "adapter_model.safetensors").write_bytes(b"rows")
"""


def exported(run: RunFolder, rows: str) -> None:
    folder = run.exports / f"20260101-1100-script-{rows}"
    place = folder / "a-run-script"
    place.mkdir(parents=True)
    (place / "train.py").write_text(TRAIN)
    (place / "train.jsonl").write_text(rows)
    tiny_adapter(tiny_model(), seed=2).save_pretrained(place / "learned")
    result = {"format": "script", "checkpoint": "final", "path": place.name, "checks": []}
    (folder / "result.json").write_text(json.dumps(pack(result)))
    place = f"runs/{run.root.name}/exports/{folder.name}"
    write_record(folder, Job(folder.name, "export", run.root.name, place, state="finished"))


@pytest.fixture
def run(workspace: Path) -> RunFolder:
    """A run of the starter, of which the Hub has the base."""
    world = tiny_world(workspace)
    tiny_model().save_pretrained(world.workspace.models / STARTER)
    tiny_tokenizer().save_pretrained(world.workspace.models / STARTER)
    run = world.run("a-run", {"model.model_name_or_path": STARTER})
    tiny_adapter(tiny_model()).save_pretrained(run.adapter)
    write_record(run.root, Job("a-run", "train", "a-run", "runs/a-run", state="finished"))
    metrics = {"kind": "metrics", "time": "2026-01-01T00:00:00+00:00", "num_tokens": 1e9}
    run.events.write_text(json.dumps({**metrics, "step": 3}) + "\n")
    return run


@pytest.fixture
def home(hub: Hub, tmp_path: Path) -> Path:
    hub.rented.clear()
    home = tmp_path / "home"
    home.mkdir()
    (home / "token").write_text(WRITES)
    return home


def words(run: RunFolder, *more: str) -> tuple[str, ...]:
    return ("--workspace", str(run.root.parents[1]), "cloud", "a-run", *more)


def runs(run: RunFolder) -> tuple[str, ...]:
    return ("--workspace", str(run.root.parents[1]), "runs", "list", "--json")


RENT = ("--flavor", "t4-small", "--repo", "ada/tuned")


def test_a_run_is_trained_on_a_rented_machine(hub: Hub, run: RunFolder, home: Path) -> None:
    missing = command(hub, home, *words(run, *RENT))
    assert missing.returncode == 1 and "export a-run --format script" in missing.stderr
    exported(run, "rows")
    done = command(hub, home, *words(run, *RENT, "--minutes", "90", "--json"))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["repo_id"] == "ada/tuned" and told["cost"] == pytest.approx(90 / 3600 * 0.4)
    assert "Training in the cloud, step 3 of 3" in (
        (run.root / "clouds" / told["cloud"] / "events.jsonl").read_text()
        .replace("{done}", "3").replace("{of}", "3")
    )  # fmt: skip
    repository = hub.repository("ada/tuned")
    assert repository.private
    learned = repository.files()["trained/adapter_model.safetensors"]
    brought = find_trained(RunFolder(run.root.parent / told["brought"]))
    assert (brought.folder / "adapter_model.safetensors").read_bytes() == learned
    assert learned != (run.adapter / "adapter_model.safetensors").read_bytes()
    assert brought.base == STARTER and brought.config == find_trained(run).config
    listed = json.loads(command(hub, home, *runs(run)).stdout)["runs"]
    assert {one["run"]: one["state"] for one in listed}[told["brought"]] == "finished"
    assert f"the run {told['brought']}" in trained_there(Job("j", "cloud", "a-run", ""), told)
    [rented] = hub.rented.values()
    assert rented.asked["timeoutSeconds"] == 90 * 60
    assert rented.asked["secrets"] == {"HF_TOKEN": WRITES}
    for path in run.root.parents[1].rglob("*"):
        if path.is_file():
            assert WRITES.encode() not in path.read_bytes(), path


def test_what_came_back_torn_is_no_run(hub: Hub, run: RunFolder, home: Path) -> None:
    """It was paid for: where it lies is told all the same."""
    exported(run, "torn")
    done = command(hub, home, *words(run, *RENT, "--json"))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["brought"] == "" and told["repo_id"] == "ada/tuned"
    assert "is cut short" in (run.root / "clouds" / told["cloud"] / "events.jsonl").read_text()
    assert [path.name for path in run.root.parent.iterdir()] == ["a-run"]


def test_what_is_rented_ends_with_a_stop(hub: Hub, run: RunFolder, home: Path) -> None:
    exported(run, "forever")
    process = subprocess.Popen(
        [with_commands(), "-m", "core.cli", *words(run, *RENT)],
        env=environment(hub, home),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: any("3/3" in line for one in hub.rented.values() for line in one._lines))
    process.send_signal(signal.SIGINT)
    end_of(process)
    assert process.returncode == 130
    assert [one.stage for one in hub.rented.values()] == ["CANCELED"]


def test_why_it_failed_there_is_said(hub: Hub, run: RunFolder, home: Path) -> None:
    exported(run, "breaks")
    done = command(hub, home, *words(run, *RENT))
    assert done.returncode == 1
    assert "ended with error" in done.stderr and "CUDA out of memory" in done.stderr
    assert "/jobs/ada/1" in done.stderr


def test_one_that_nobody_follows_is_followed_again(hub: Hub, run: RunFolder, home: Path) -> None:
    """As after a machine that was switched off; no second one is rented."""
    exported(run, "rows")
    first = json.loads(command(hub, home, *words(run, *RENT, "--json")).stdout)["cloud"]
    assert command(hub, home, *words(run, "--follow")).returncode == 1  # it came to its end
    (run.root / "clouds" / first / "result.json").unlink()
    again = command(hub, home, *words(run, "--follow", "--json"))
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["cloud"] != first and len(hub.rented) == 1


def test_prices_are_shown_before(hub: Hub, run: RunFolder, home: Path) -> None:
    """By the operations of the run: 6 for each parameter and token."""
    told = command(hub, home, *words(run, "--hardware", "--json"))
    basic, card = json.loads(told.stdout)["hardware"]
    assert (basic["name"], card["name"]) == ("cpu-basic", "t4-small")
    assert card["price"] == pytest.approx(0.4 / 60)
    parameters = sum(one.numel() for one in tiny_model().parameters())
    operations = 6 * parameters * 1e9
    assert card["minutes"] == pytest.approx(4 + operations / (65e12 * 0.25) / 60, rel=0.05)
    hub.fails("GET /api/jobs/hardware", status=200, message='[{"name": "t4-small"}]')
    unread = command(hub, home, *words(run, "--hardware"))
    assert unread.returncode == 1 and "cannot be read" in unread.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--flavor", "h900", "--repo", "ada/tuned"), "cannot be rented"),
        (("--flavor", "t4-small", "--repo", "tuned"), "OWNER/NAME"),
        (("--flavor", "t4-small", "--repo", "ada/tuned", "--minutes", "0"), "minutes"),
        (("--repo", "ada/tuned"), "flavor"),
        (("--flavor", "t4-small", "--repo", "ada/seen"), "already and public"),
    ],
)
def test_what_cannot_be_rented_costs_nothing(
    hub: Hub, run: RunFolder, home: Path, more: tuple[str, ...], said: str
) -> None:
    exported(run, "rows")
    hub.add("ada/seen")
    refused = command(hub, home, *words(run, *more))
    assert refused.returncode in (1, 2) and said in refused.stderr
    assert not hub.rented and "trained" not in str(hub.repositories)


def test_a_base_of_this_machine_is_refused(hub: Hub, workspace: Path, home: Path) -> None:
    world = tiny_world(workspace)
    run = world.run("a-run")
    tiny_adapter(tiny_model()).save_pretrained(run.adapter)
    write_record(run.root, Job("a-run", "train", "a-run", "runs/a-run", state="finished"))
    exported(run, "rows")
    refused = command(hub, home, *words(run, *RENT))
    assert refused.returncode == 1 and "tiny is not on the Hub" in refused.stderr
