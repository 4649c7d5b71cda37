"""A chain of runs from the shell, with real workers: begun with another run, and trained longer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.workspace import Workspace
from tests.cli_bench import make_chat_model, write_rows
from tests.test_cli_runs import Bench

FEW = [
    *("--training.max_steps", "2", "--training.per_device_train_batch_size", "4"),
    *("--training.precision", "fp32", "--evaluation.eval_strategy", "no"),
    *("--evaluation.sample_max_new_tokens", "0", "--tracking.save_steps", "2"),
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    root = tmp_path_factory.mktemp("chain")
    bench = Bench(Workspace.open(root / "workspace"), make_chat_model(root / "a model"))
    assert bench.type("data", "import", str(write_rows(root / "rows.jsonl")))[0] == 0
    return bench


def _asked(bench: Bench, *words: str) -> dict[str, Any]:
    code, out, err = bench.type(*words, "--json")
    assert code == 0, err
    return dict(json.loads(out))


def test_a_chain_in_the_shell(bench: Bench) -> None:
    """From the shell only single runs could be made, and nobody saw what they came from."""
    model = ["--model.model_name_or_path", str(bench.model), "--data.dataset", "rows"]
    first = _asked(bench, "train", "quickstart", "--name", "first", *model, *FEW)
    merged = _asked(bench, "train", "--from-run", first["run"], "--name", "second")
    assert (merged["state"], merged["step"]) == ("finished", 2)
    longer = _asked(bench, "runs", "resume", merged["run"], "--training.max_steps", "3")
    assert (longer["state"], longer["step"]) == ("finished", 3)
    assert longer["name"] == "second, longer"

    shown = _asked(bench, "runs", "show", longer["run"])
    assert [(one["run"], one["how"]) for one in shown["lineage"]] == [
        (merged["run"], "longer"),
        (first["run"], "merge"),
    ]
    assert shown["config"]["model"]["model_name_or_path"] == str(bench.model)
    text = bench.type("runs", "show", longer["run"])[1]
    assert "from second (sft, trained longer from checkpoint-2)" in text
    assert "which came from first (sft, merged)" in text
    assert _asked(bench, "runs", "show", first["run"])["built_on"] == [merged["run"]]

    code, _, err = bench.type("runs", "delete", first["run"])
    assert code == 1 and "second" in err
    assert bench.type("runs", "delete", first["run"], "--though-built-on")[0] == 0
    assert not Path(first["folder"]).exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("train",), "Name a preset"),
        (("train", "--from-run", "nobody"), "no run nobody"),
        (("runs", "list", "--training.seed", "1"), "Only resume"),
    ],
)
def test_what_makes_no_sense_is_said(bench: Bench, words: tuple[str, ...], told: str) -> None:
    """A slip would begin something else, or be passed over."""
    code, _, err = bench.type(*words)
    assert code in (1, 2)
    assert told in err
