"""The commands as a shell or a script uses them: what goes where, and the exit codes."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core import cli
from core.commands.data import FORMS
from core.commands.output import pairs, table
from core.commands.serve import is_loopback
from core.language import _, speaking
from core.workspace import Workspace
from tests.cli_bench import ROOT, make_chat_model, write_rows

Typed = tuple[int, str, str]
Type = Callable[..., Typed]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chat_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def typed(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Type:
    """Runs a command in this process; gives exit code, standard output, standard error."""
    monkeypatch.setenv("TUNESMITH_WORKSPACE", str(workspace))
    monkeypatch.setenv("TUNESMITH_ALLOW", "")

    def run(*words: str) -> Typed:
        code = cli.main(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def asked(typed: Type) -> Callable[..., Any]:
    """The JSON of a command that succeeds."""

    def run(*words: str) -> Any:
        code, out, err = typed(*words, "--json")
        assert code == 0, err
        return json.loads(out)

    return run


@pytest.fixture
def queued(asked: Callable[..., Any], model: Path, tmp_path: Path) -> str:
    """The id of a run that waits in the queue."""
    asked("data", "import", str(write_rows(tmp_path / "rows.jsonl")))
    made = asked("train", "quickstart", *settings(model), "--queue", "--name", "First")
    return str(made["run"])


def settings(model: Path) -> list[str]:
    return ["--model.model_name_or_path", str(model), "--data.dataset", "rows"]


def test_listing_runs_is_quick_and_free_of_torch(workspace: Path) -> None:
    """A script that asks for the runs each few seconds must not cost more than the training."""
    code = (
        "import sys; from core.cli import main; code = main(['runs', 'list']);"
        "heavy = {'torch', 'transformers', 'datasets', 'gradio'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else code)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"TUNESMITH_WORKSPACE": str(workspace), "PATH": ""},
        capture_output=True,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert "no runs yet" in done.stdout
    # Time on the processor, so that a busy machine does not fail the test. It takes about 0.6.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5


def test_the_help_names_every_command_and_the_exit_codes(typed: Type) -> None:
    code, out, _ = typed("--help")
    assert code == 0
    for name in ("train", "runs", "data", "evaluate", "chat", "export", "estimate", "presets"):
        assert f"\n    {name} " in out
    for text in ("doctor", "setup", "test", "--host", "--auth", "130 stopped"):
        assert text in out


def test_the_help_of_train_has_every_setting(typed: Type) -> None:
    code, out, _ = typed("train", "--help")
    assert code == 0
    assert "--training.learning_rate\n      Higher learns faster" in out


@pytest.mark.parametrize("asked", [["--language", "zh"], ["--language=zh"], []])
def test_a_command_its_help_and_its_errors_are_in_the_language_asked_for(
    typed: Type, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    if not asked:
        for name in ("TUNESMITH_LANGUAGE", "LANGUAGE", "LC_ALL", "LC_MESSAGES"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    with speaking("zh"):
        none = str(_("There are no runs yet. Start one: train quickstart"))
        helped = str(_("show this help message and exit"))
        own = str(_("the language to speak (else what LANG and its like ask for, or English)"))
        missing = _("the following arguments are required: %s") % "ID"
        unknown = str(_("There is no run {run}.", run="nothing"))
    assert not own.isascii()
    assert typed("runs", "list", *asked)[:2] == (0, f"{none}\n")
    code, out, _err = typed("runs", "list", "--help", *asked)
    assert code == 0
    for text in (helped, own):
        assert "".join(text.split()) in "".join(out.split())
    for words, code, says in ((["show"], 2, missing), (["show", "nothing"], 1, unknown)):
        assert typed("runs", *words, *asked)[0] == code
        assert says in typed("runs", *words, *asked)[2]


def test_columns_stand_below_each_other_whatever_the_script() -> None:
    rows = [("中文", "x", 1), ("ab", "y", 20)]
    assert table(("名", "列", "数"), rows).splitlines() == [
        "名    列  数",
        "中文  x    1",
        "ab    y   20",
    ]
    assert pairs([("名称", "x"), ("id", "y")]) == "名称  x\nid    y"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nonsense"], "invalid choice"),
        (["runs"], "ACTION"),
        (["runs", "show"], "ID"),
        (["train"], "Name a preset"),
        (["train", "no-such-preset"], "none named"),
        (["train", "no-such-file.yaml"], "no-such-file.yaml"),
        (["train", "quickstart", "--training.lr", "1"], "training.learning_rate"),
        (["train", "quickstart", "--training.seed", "-1"], "training.seed"),
        (["estimate", "quickstart", "--adapter.bias", "some"], "adapter.bias"),
        (["presets", "show"], "needs a preset's name"),
        (["presets", "show", "no-such"], "none named"),
        (["data", "import", "x.jsonl", "--eval-fraction", "1"], "--eval-fraction"),
        (["data", "import", "x.jsonl", "--map", "prompt"], "FIELD=COLUMN"),
        (["chat", "x", "--json"], "--prompt"),
        (["chat", "x", "--file", "not-here.txt"], "not-here.txt"),
        (["chat", "x", "--file", "x", "--prompt", "y"], "not allowed with"),
        (["export", "x", "--format", "tar"], "invalid choice"),
        (["evaluate", "x", "--max-rows", "0"], "at least 1"),
        (["--host", "0.0.0.0"], "--auth"),
        (["--auth", "ada"], "with a colon"),
        (["--port", "0"], "1 to 65535"),
        (["runs", "list", "--training.seed", "1"], "There is no option --training.seed"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_wrong_use_ends_with_2_and_says_why(
    typed: Type, words: list[str], says: str, as_json: bool
) -> None:
    code, out, err = typed(*words, *(["--json"] if as_json and "--json" not in words else []))
    assert code == 2
    assert says in err
    if as_json or "--json" in words:
        error = json.loads(out)["error"]
        assert says in error["message"] + error["hint"]
    else:
        assert out == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["runs", "show", "nothing"], "There is no run nothing"),
        (["runs", "resume", "nothing"], "There is no run nothing"),
        (["data", "inspect", "nothing"], "nothing"),
        (["data", "import", "nowhere.jsonl"], "nowhere.jsonl"),
        (["evaluate", "nothing"], "There is no run nothing"),
        (["--workspace", "s3://bucket/ours", "runs", "list"], "a workspace is a folder"),
    ],
)
def test_what_cannot_be_done_ends_with_1_and_says_why(
    typed: Type, words: list[str], says: str
) -> None:
    code, out, err = typed(*words, "--json")
    assert code == 1
    assert says in err
    assert says in json.loads(out)["error"]["message"]


def test_every_wrong_setting_is_told_with_its_field(typed: Type) -> None:
    words = ["--training.seed", "-1", "--adapter.r", "0"]
    code, out, err = typed("train", "quickstart", *words, "--json")
    problems = json.loads(out)["error"]["problems"]
    assert code == 2
    assert {problem["field"] for problem in problems} == {"training.seed", "adapter.r"}
    assert "Error: training.seed: must be a whole number" in err


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("box.example", False),
    ],
)
def test_only_loopback_is_served_without_a_password(host: str, alone: bool, typed: Type) -> None:
    assert is_loopback(host) is alone
    if not alone:
        code, _, err = typed("--host", host)
        assert (code, "--auth USER:PASSWORD" in err) == (2, True)


def test_presets_are_listed_and_shown(asked: Callable[..., Any], typed: Type) -> None:
    names = [preset["name"] for preset in asked("presets")["presets"]]
    assert names[0] == "quickstart"
    shown = asked("presets", "show", "quickstart")
    assert shown["config"]["data"]["dataset"] == "sample"
    assert "num_train_epochs" in shown["config"]["training"]
    code, out, _ = typed("presets", "show", "quickstart")
    assert code == 0 and out.startswith("# Quick start:")


def test_a_shown_preset_can_be_saved_and_trained_from(
    typed: Type, asked: Callable[..., Any], tmp_path: Path
) -> None:
    _, out, _ = typed("presets", "show", "qlora-8gb")
    (tmp_path / "mine.yaml").write_text(out, encoding="utf-8")
    by_file = asked("estimate", str(tmp_path / "mine.yaml"))
    by_name = asked("estimate", "qlora-8gb")
    for plan in (by_file, by_name):
        plan.pop("device")  # what is free on it has changed meanwhile
    assert by_file == by_name


def test_estimate_tells_the_plan(
    asked: Callable[..., Any], typed: Type, model: Path, tmp_path: Path
) -> None:
    asked("data", "import", str(write_rows(tmp_path / "rows.jsonl")))
    plan = asked("estimate", "quickstart", *settings(model), "--training.num_train_epochs", "2")
    assert (plan["train_rows"], plan["eval_rows"], plan["steps"]) == (22, 2, 6)
    assert 0 < plan["trainable"] < plan["parameters"]
    code, out, _ = typed("estimate", "quickstart", *settings(model))
    assert code == 0
    assert "trained" in out and "Memory: fits" in out and "Time: not known" in out


def test_a_model_that_lies_elsewhere_may_be_named(
    asked: Callable[..., Any], model: Path, workspace: Path
) -> None:
    """The shell's user may read what they name; the page's user may not."""
    assert not model.is_relative_to(workspace)
    plan = asked("estimate", "quickstart", "--model.model_name_or_path", str(model))
    assert plan["parameters"] > 0


def test_data_comes_in_is_listed_inspected_and_deleted(
    asked: Callable[..., Any], typed: Type, tmp_path: Path
) -> None:
    file = write_rows(tmp_path / "questions.jsonl", 10)
    with file.open("a", encoding="utf-8") as rows:
        rows.write('{"prompt": "broken"\n')
    made = asked("data", "import", str(file), "--name", "Questions", "--eval-fraction", "0.2")
    assert (made["dataset"], made["form"]) == ("questions", "prompt-completion")
    assert (made["counts"]["train"], made["counts"]["eval"]) == (8, 2)
    listed = {item["id"]: item for item in asked("data", "list")["datasets"]}
    assert listed["questions"]["name"] == "Questions"
    inspected = asked("data", "inspect", "questions", "--rows", "2")
    assert len(inspected["rows"]) == 2
    assert inspected["dropped"][0]["line"] == 11
    assert asked("data", "delete", "questions") == {"deleted": "questions"}
    assert typed("data", "inspect", "questions")[0] == 1


def test_dropped_rows_are_told_with_line_and_reason(typed: Type, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", 3)
    file.write_text(file.read_text() + '{"prompt": "x", "completion": ""}\n', encoding="utf-8")
    code, out, err = typed("data", "import", str(file))
    assert code == 0
    assert "Dropped: line 4:" in err
    assert "dropped rows" in out


def test_a_file_is_looked_at_before_it_is_imported(
    asked: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "table.csv"
    file.write_text("q,a\n1+1,2\n2+2,4\n", encoding="utf-8")
    seen = asked("data", "inspect", str(file), "--map", "prompt=q", "--map", "completion=a")
    assert (seen["columns"], seen["total_rows"]) == (["q", "a"], 2)
    mapped = ["--form", "prompt-completion", "--map", "prompt=q", "--map", "completion=a"]
    assert asked("data", "import", str(file), *mapped)["counts"]["read"] == 2


def test_the_forms_in_the_help_are_those_that_there_are() -> None:
    from core.data.forms import FORMS as KNOWN

    assert set(FORMS) == set(KNOWN)


def test_a_queued_run_is_listed_shown_renamed_noted_cancelled_and_deleted(
    asked: Callable[..., Any], typed: Type, queued: str, workspace: Path
) -> None:
    (listed,) = asked("runs", "list")["runs"]
    assert (listed["run"], listed["state"], listed["queue_position"]) == (queued, "queued", 1)
    shown = asked("runs", "show", queued)
    assert shown["name"] == "First"
    assert shown["config"]["data"]["dataset"] == "rows"
    assert asked("runs", "rename", queued, "Second")["name"] == "Second"
    assert asked("runs", "note", queued, "looks good")["note"] == "looks good"
    assert asked("runs", "stop", queued)["state"] == "stopped"
    code, _, err = typed("runs", "delete", queued[:15])
    assert (code, f"runs delete {queued}" in err) == (2, True)
    assert asked("runs", "delete", queued) == {"deleted": queued}
    assert not Workspace.open(workspace).run(queued).root.exists()
    assert asked("runs", "list")["runs"] == []


def test_a_queued_run_says_when_it_starts(typed: Type, queued: str, model: Path) -> None:
    code, out, _ = typed("train", "quickstart", *settings(model), "--queue")
    assert code == 0
    assert "starts when the app runs" in out


def test_the_start_of_an_id_is_enough_if_it_is_one_runs(
    asked: Callable[..., Any], typed: Type, queued: str, model: Path
) -> None:
    assert asked("runs", "show", queued[:-2])["run"] == queued
    asked("train", "quickstart", *settings(model), "--queue")
    code, _, err = typed("runs", "show", queued[:4])
    assert (code, "begins 2 runs" in err) == (1, True)


def test_options_may_stand_before_the_command(workspace: Path, typed: Type, tmp_path: Path) -> None:
    code, _, _ = typed("--workspace", str(tmp_path / "other"), "runs", "list")
    assert code == 0
    assert (tmp_path / "other" / "tunesmith.db").is_file()
    assert not (workspace / "tunesmith.db").exists()


def test_a_reader_that_has_seen_enough_is_no_error(workspace: Path) -> None:
    done = subprocess.run(
        f"'{sys.executable}' -m core.cli presets --json | head -c 1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        cwd=ROOT,
        env={"TUNESMITH_WORKSPACE": str(workspace), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "{", "")


@pytest.mark.parametrize("words", [["runs", "list"], ["data", "import", "rows.jsonl"]])
def test_a_workspace_that_cannot_be_written_is_told_in_words(
    small_disk: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A traceback of SQLite's would be read as a fault of the program."""
    Workspace.open(small_disk / "workspace")
    (small_disk / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    monkeypatch.chdir(small_disk)
    done = subprocess.run(
        [sys.executable, "-m", "core.cli", "--workspace", "workspace", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "cannot be written" in done.stderr or "could not be written" in done.stderr
    assert "rights of the workspace's folder" in done.stderr
