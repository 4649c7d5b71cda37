"""A DPO run from the shell: import, train, chat; a set of another form is refused with what to
change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli_bench import Shell, make_chat_model, write_rows
from tests.preferences import pairs

SMALL = [
    *("--method", "dpo", "--training.max_length", "64", "--training.learning_rate", "2e-3"),
    *("--training.per_device_train_batch_size", "4", "--training.num_train_epochs", "2"),
    *("--training.device", "cpu", "--training.precision", "fp32"),
    *("--evaluation.eval_strategy", "epoch", "--evaluation.sample_max_new_tokens", "4"),
]


@pytest.mark.timeout(300)
def test_preferences_are_learned_from_the_shell(workspace: Path, tmp_path: Path) -> None:
    """What the page can do could not be scripted."""
    shell = Shell(workspace)
    model = make_chat_model(workspace / "models" / "tiny")
    rows = tmp_path / "pairs.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in pairs()), encoding="utf-8")
    made = shell.ask("data", "import", str(rows), "--eval-fraction", "0.25")
    assert made["form"] == "preference"
    shell.ask("data", "import", str(write_rows(tmp_path / "questions.jsonl")))
    settings = ["--model.model_name_or_path", str(model), *SMALL]

    words = ["train", "quickstart", *settings, "--data.dataset"]
    code, _, error = shell.type(*words, "questions", "--queue")
    assert code != 0
    assert "The data set questions holds prompt-completion rows" in error
    assert "method dpo learns from preference" in error

    # Before a model is looked for that may take an hour to fetch.
    far = ["--model.model_name_or_path", "nobody/not-here"]
    _, _, error = shell.type(*words, "questions", *far, "--queue")
    assert "method dpo learns from preference" in error and "is not on this machine" not in error

    run = shell.ask(*words, made["id"])
    assert (run["state"], run["step"]) == ("finished", run["max_steps"])
    events = [
        json.loads(line) for line in (Path(run["folder"]) / "events.jsonl").read_text().splitlines()
    ]
    accuracies = [e["eval_rewards/accuracies"] for e in events if "eval_rewards/accuracies" in e]
    assert len(accuracies) == 3 and accuracies[-1] > accuracies[0]
    answer = shell.ask("chat", run["run"], "--prompt", "a red cup", "--max-new-tokens", "4")
    assert answer["run"] == run["run"]
