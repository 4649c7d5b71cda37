"""A search from the shell: real workers train a tiny model, the best is told, and a search that was
stopped goes on."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from core import cli
from core.jobs.queue import forget_old_jobs
from core.jobs.store import Store
from core.runs.sweep import go_on, list_sweeps, trials
from core.workspace import Workspace
from tests.cli_bench import Shell, make_chat_model, write_rows
from tests.waiting import end_of, until

RATE = "training.learning_rate"


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    root = tmp_path_factory.mktemp("sweep")
    shell = Shell(root / "workspace")
    shell.workspace.mkdir()
    make_chat_model(shell.workspace / "models" / "tiny")
    assert shell.type("data", "import", str(write_rows(root / "rows.jsonl")))[0] == 0
    return shell


def words(*more: str) -> list[str]:
    settings = {
        "model.model_name_or_path": "tiny",
        "data.dataset": "rows",
        "training.max_steps": "2",
        "training.precision": "fp32",
        "evaluation.sample_max_new_tokens": "0",
        "tracking.save_strategy": "no",
    }
    given = [word for path, value in settings.items() for word in (f"--{path}", value)]
    return ["sweep", "quickstart", *given, *more]


@pytest.fixture(scope="module")
def searched(shell: Shell) -> dict[str, Any]:
    return shell.ask(*words("--over", f"{RATE}=1e-6,1e-2", "--at-once", "2"))


def test_the_best_run_comes_first(shell: Shell, searched: dict[str, Any]) -> None:
    assert (searched["state"], searched["metric"]) == ("finished", "eval_loss")
    best, other = searched["runs"]
    assert best["changes"] == {RATE: 1e-2}
    assert best["score"] < other["score"]
    shown = shell.ask("runs", "show", best["run"])
    assert shown["config"]["training"]["learning_rate"] == 1e-2
    assert shown["name"].endswith(": learning_rate 0.01")
    again = shell.ask("sweep", "--show", searched["sweep"])
    assert again["runs"] == searched["runs"]


def test_it_is_listed_until_somebody_puts_it_away(shell: Shell, searched: dict[str, Any]) -> None:
    listed = shell.ask("sweep", "--list")["sweeps"]
    assert [one["sweep"] for one in listed] == [searched["sweep"]]
    workspace = Workspace.open(shell.workspace)
    store = Store.open(workspace)
    forget_old_jobs(workspace, store, now=4e9)
    assert store.find(searched["sweep"]) is not None
    store.close()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--over", "adapter.ranks=1,2"], "adapter.r"),
        (["--over", "adapter.r=4,-8"], "adapter.r"),
        (["--over", "adapter.r=4,8", "--evaluation.eval_strategy", "no"], "eval_strategy"),
        (["--over", "adapter.r=4,8", "--trials", "no"], "trials"),
        ([], "Name a setting"),
    ],
)
def test_what_cannot_be_searched_is_said_and_leaves_nothing(
    shell: Shell,
    searched: dict[str, Any],
    more: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--workspace", str(shell.workspace)]
    assert cli.main([*given, *words(*more)]) == 2
    assert said in capsys.readouterr().err
    assert cli.main([*given, "sweep", "--list", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["sweeps"]) == 1
    assert cli.main([*given, "sweep", "--show", "no-such"]) == 1
    assert cli.main([*given, "sweep", "--go-on", searched["sweep"]]) == 1  # nothing is left to do


def test_ctrl_c_stops_the_search_and_its_run_and_it_goes_on(
    shell: Shell, searched: dict[str, Any]
) -> None:
    """What was trained before counts; the run that was stopped is tried once more."""
    over = ["--over", "training.seed=1,2"]
    process = shell.start(*words(*over), "--training.max_steps", "100000", "--json")
    store = Store.open(Workspace.open(shell.workspace))

    def learns() -> bool:
        return any(job.step and job.state == "running" for job in store.list(kind="train"))

    until(learns)
    process.send_signal(signal.SIGINT)
    out, err = end_of(process)
    record = json.loads(out)
    assert process.returncode == 130, err
    assert record["state"] == "stopped"
    assert f"sweep --go-on {record['sweep']}" in err
    [first] = record["runs"]
    assert store.get(first["run"]).state == "stopped"

    workspace = Workspace.open(shell.workspace)
    again = go_on(workspace, store, record["sweep"])
    assert [job.id for job in list_sweeps(store)] == [again.id, searched["sweep"]]
    assert [one.job.id for one in trials(workspace, store, again)] == [first["run"]]
    store.close()
