"""A run from the shell, with real workers: trained, evaluated, talked to, stopped, resumed."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from core import cli
from core.jobs.events import read_events
from core.models.fingerprint import fingerprint
from core.rules import load_config
from core.workspace import Workspace
from tests.cli_bench import Shell, make_chat_model, write_rows
from tests.waiting import end_of, until

FEW = ["--evaluation.sample_max_new_tokens", "2", "--training.precision", "fp32"]


@dataclass
class Bench:
    """A workspace with a model and data, and a shell that types in this process."""

    workspace: Workspace
    model: Path

    def type(self, *words: str) -> tuple[int, str, str]:
        """(exit code, standard output, standard error)."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main(["--workspace", str(self.workspace.root), *words])
        return code, out.getvalue(), err.getvalue()

    def settings(self, *more: str) -> list[str]:
        return [
            "--model.model_name_or_path",
            str(self.model),
            "--data.dataset",
            "rows",
            *FEW,
            *more,
        ]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    root = tmp_path_factory.mktemp("shell")
    model = make_chat_model(root / "a model")
    bench = Bench(Workspace.open(root / "workspace"), model)
    assert bench.type("data", "import", str(write_rows(root / "rows.jsonl")))[0] == 0
    return bench


@pytest.fixture(scope="module")
def trained(bench: Bench) -> dict[str, Any]:
    """What `train` printed of a run that finished."""
    code, out, err = bench.type("train", "quickstart", *bench.settings(), "--json")
    assert code == 0, err
    return {**json.loads(out), "stderr": err}


def test_the_settings_in_which_runs_differ_are_told(bench: Bench, trained: dict[str, Any]) -> None:
    code, out, _ = bench.type("runs", "diff", trained["run"], trained["run"])
    assert (code, out.strip()) == (0, "Their settings are the same.")
    assert bench.type("runs", "diff", trained["run"])[0] == 2
    assert bench.type("runs", "diff", trained["run"], "no-such")[0] == 1


def test_train_sees_a_run_through(bench: Bench, trained: dict[str, Any]) -> None:
    assert trained["state"] == "finished"
    noted = bench.workspace.run(trained["run"]).root / "base.json"
    assert json.loads(noted.read_text()) == fingerprint(bench.model)
    assert (trained["step"], trained["max_steps"]) == (9, 9)
    assert trained["best_eval_loss"] > 0
    folder = Path(trained["folder"])
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    assert (folder / "config.yaml").is_file()


def test_progress_and_choices_are_told_on_standard_error(trained: dict[str, Any]) -> None:
    assert f"Run {trained['run']} in " in trained["stderr"]
    assert "device: cpu (" in trained["stderr"]
    assert "eval loss" in trained["stderr"]


def test_a_finished_run_is_shown_with_its_settings_and_checkpoints(
    bench: Bench, trained: dict[str, Any]
) -> None:
    code, out, _ = bench.type("runs", "show", trained["run"], "--json")
    shown = json.loads(out)
    assert code == 0
    assert shown["config"]["training"]["precision"] == "fp32"
    assert [c["name"] for c in shown["checkpoints"]] == ["checkpoint-9", "final"]
    assert shown["size_bytes"] > 1000
    code, out, _ = bench.type("runs", "list")
    assert trained["run"] in out and "finished" in out and "9/9" in out


def test_a_run_on_several_devices_is_shown_as_one(bench: Bench, trained: dict[str, Any]) -> None:
    file = Path(trained["folder"]) / "config.yaml"
    before, config = file.read_text(), load_config(file)
    assert "devices" not in bench.type("runs", "show", trained["run"])[1]
    config.training.devices = "2"
    config.save(file)
    out = bench.type("runs", "show", trained["run"])[1]
    file.write_text(before)
    assert "2 devices (ddp)" in out and "rows a step" in out


def test_a_finished_run_cannot_be_resumed_and_says_so(
    bench: Bench, trained: dict[str, Any]
) -> None:
    code, _, err = bench.type("runs", "resume", trained["run"])
    assert (code, "finished" in err) == (1, True)


def test_evaluate_prints_the_report(bench: Bench, trained: dict[str, Any]) -> None:
    words = ["evaluate", trained["run"], "--max-rows", "1", "--max-new-tokens", "2"]
    code, out, err = bench.type(*words, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["state"] == "finished"
    assert report["result"]["rows"] == 1
    assert report["result"]["tuned"]["eval_loss"]["value"] > 0
    assert Path(report["folder"], "result.json").is_file()


@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_export_writes_a_checked_model_where_it_is_asked_for(
    bench: Bench, trained: dict[str, Any], tmp_path: Path, suffix: str
) -> None:
    place = tmp_path / f"out{suffix}"
    words = ["export", trained["run"], "--format", "merged", "--output", str(place)]
    code, out, err = bench.type(*words, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["result"]["checks"] and all(check["ok"] for check in told["result"]["checks"])
    assert Path(told["folder"], "model.safetensors").is_file()
    assert told["output"] == str(place)
    if suffix:
        names = zipfile.ZipFile(place).namelist()
        assert f"{Path(told['folder']).name}/model.safetensors" in names
    else:
        assert (place / "model.safetensors").is_file()
    code, _, err = bench.type(*words)
    assert (code, "is there already" in err) == (2, True)
    assert told["unfinished_bytes"] == 0
    code, out, err = bench.type("export", trained["run"], "--delete-unfinished")
    assert (code, out) == (0, "Deleted 0 B of unfinished exports.\n"), err


def test_adapters_of_two_runs_are_exported_as_one(bench: Bench, trained: dict[str, Any]) -> None:
    words = ["train", "quickstart", *bench.settings("--training.seed", "9"), "--json"]
    code, out, err = bench.type(*words)
    assert code == 0, err
    other = json.loads(out)["run"]
    words = ["export", trained["run"], "--format", "adapter", "--weight", "0.5"]
    way = ["--combine", "ties_svd", "--density", "0.7"]
    code, out, err = bench.type(*words, "--with", f"{other}@final=0.25", *way, "--json")
    assert code == 0, err
    told = json.loads(out)["result"]
    assert told["combination"] == {
        "weight": 0.5,
        "combination_type": "ties_svd",
        "density": 0.7,
        "others": [{"run": other, "checkpoint": "final", "weight": 0.25}],
    }
    assert "Combines the adapters" in [check["name"] for check in told["checks"]]
    for wrong in (other, f"{other}=much", f"{other}@final"):
        code, _, err = bench.type(*words, "--with", wrong)
        assert (code, "is no RUN=WEIGHT" in err) == (2, True)
    code, _, err = bench.type(*words, "--with", f"{trained['run']}=1")
    assert (code, "is named twice" in err) == (1, True)


def test_chat_answers_one_prompt(bench: Bench, trained: dict[str, Any]) -> None:
    words = ["chat", trained["run"], "--max-new-tokens", "4", "--sampling", "exact"]
    code, out, err = bench.type(*words, "--prompt", "What is 3?", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert 0 < told["tokens"] <= 4
    # The likeliest answer is the same each time, and what a person sees is the answer alone.
    code, out, _ = bench.type(*words, "--prompt", "What is 3?")
    assert (code, out) == (0, told["answer"] + "\n")
    asked = bench.workspace.root / "asked.txt"
    asked.write_text("What is 3?\n")
    code, out, _ = bench.type(*words, "--file", str(asked))
    assert (code, out) == (0, told["answer"] + "\n")
    code, out, err = bench.type(*words, "--prompt", "What is 3?", "--base", "--json")
    assert (code, json.loads(out)["model"]) == (0, str(bench.model))


def test_chat_talks_until_its_input_ends(
    bench: Bench, trained: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("What is 3?\n\n/clear\nAnd 4?\n/exit\nnever\n"))
    code, out, err = bench.type("chat", trained["run"], "--max-new-tokens", "1")
    assert code == 0
    assert out.count("\n") >= 2
    assert "Forgotten." in err


def test_a_checkpoint_that_is_not_there_is_named(bench: Bench, trained: dict[str, Any]) -> None:
    words = ["chat", trained["run"], "--prompt", "x", "--checkpoint", "checkpoint-7"]
    code, _, err = bench.type(*words)
    assert code == 1
    assert "checkpoint-7" in err and "checkpoint-9" in err


def test_a_run_that_fails_ends_with_1_and_says_what_to_do(bench: Bench) -> None:
    """Whoever waits for it in a script must not take it for a success."""
    words = bench.settings("--training.max_length", "16")  # leaves nothing to learn
    code, out, err = bench.type("train", "quickstart", *words, "--json")
    assert code == 1
    record = json.loads(out)
    assert (record["state"], bool(record["error"])) == ("failed", True)
    assert record["error"] in err


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("rank_pattern", '{"dwn_proj": 64}', "Did you mean down_proj"),
        ("alpha_pattern", '{"layers.7.self_attn.q_proj": 64}', "fits no module"),
        ("modules_to_save", '["lmhead"]', "Did you mean lm_head"),
        ("target_modules", '["q_proj","vproj"]', "Did you mean v_proj"),
    ],
)
def test_a_setting_that_fits_no_module_is_refused_before_the_start(
    bench: Bench, field: str, value: str, says: str
) -> None:
    """An hour of training with another rank than the one asked for, and not a word of it."""
    before = set(bench.workspace.runs.iterdir())
    words = bench.settings(f"--adapter.{field}", value)
    code, out, err = bench.type("train", "quickstart", *words, "--json")
    assert code == 2, err
    (problem,) = json.loads(out)["error"]["problems"]
    assert problem["field"] == f"adapter.{field}" and says in problem["message"]
    assert set(bench.workspace.runs.iterdir()) == before


def test_a_run_that_learns_nothing_says_so(bench: Bench) -> None:
    """One step to try the settings, at the rate 0 with which every warm-up begins."""
    code, _, err = bench.type(
        "train", "quickstart", *bench.settings("--training.max_steps", "1"), "--json"
    )
    assert code == 0 and "learning rate is 0: nothing is learned" in err


def test_ctrl_c_stops_with_a_checkpoint_and_resume_goes_on(bench: Bench) -> None:
    """An evening's training must survive the person who wants their machine back."""
    words = bench.settings("--training.max_steps", "4000", "--evaluation.eval_steps", "4000")
    before = set(bench.workspace.runs.iterdir())
    process = Shell(bench.workspace.root).start("train", "quickstart", *words, "--json")
    new = until(lambda: set(bench.workspace.runs.iterdir()) - before).pop()
    until(lambda: any(e["kind"] == "metrics" for e in read_events(new / "events.jsonl")))
    process.send_signal(signal.SIGINT)
    out, err = end_of(process)
    assert process.returncode == 130, err
    record = json.loads(out)
    assert record["state"] == "stopped"
    assert "Stopping with a checkpoint" in err
    assert f"runs resume {record['run']}" in err
    saved = list((Path(record["folder"]) / "checkpoints").glob("checkpoint-*/"))
    assert [path.name for path in saved] == [f"checkpoint-{record['step']}"]

    code, out, _ = bench.type("runs", "resume", record["run"], "--queue", "--json")
    assert (code, json.loads(out)["state"]) == (0, "queued")
    assert bench.type("runs", "stop", record["run"])[0] == 0
