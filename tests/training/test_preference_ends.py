"""What a run that learned from preferences leaves behind: it is measured, exported and described
as any other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.worker.evaluation.run import run_evaluation
from core.worker.export.run import run_export
from core.worker.training.run import run_training
from core.workspace import RunFolder
from tests.preferences import THINGS, bring, judged, pairs
from tests.tiny_model import TinyWorld, shown_report, tiny_world
from tests.training.conftest import SETTINGS

HELD_OUT = THINGS[4:]


@pytest.fixture(autouse=True)
def cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_DEVICE", "cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyWorld]:
    before = torch.get_num_threads()
    yield tiny_world(tmp_path_factory.mktemp("ends"))
    torch.set_num_threads(before)


def trained(world: TinyWorld, method: str, **settings: Any) -> RunFolder:
    rows = judged if method == "kto" else pairs
    info = bring(world.workspace, rows(THINGS[:4]), rows(HELD_OUT), f"{method}-rows")
    values = {
        **SETTINGS,
        "method": method,
        "data.dataset": info.id,
        "training.num_train_epochs": 4.0,
        "evaluation.eval_strategy": "epoch",
        **settings,
    }
    run = world.run(f"{method}-run", values)
    assert run_training(run.root, world.root, None) == "finished"
    return run


def test_the_better_answers_are_expected_and_the_rewards_are_told(world: TinyWorld) -> None:
    """A run could not be compared with its base, or by the wrong answers."""
    run = trained(world, "dpo")
    folder = world.task(run, "evaluate", "e1", {})
    assert run_evaluation(folder, world.root) == "finished"
    result = shown_report(folder)
    assert (result["rows"], result["part"]) == (8, "eval")
    assert result["differences"][0]["expected"].startswith("yes, ")
    assert result["tuned"]["eval_loss"]["value"] < result["base"]["eval_loss"]["value"]
    assert any("better answer of each pair" in note for note in result["notes"])
    assert any("higher reward in 100.0% of cases" in note for note in result["notes"])

    for kind in ("adapter", "merged"):
        task = world.task(run, "export", kind, {"format": kind})
        assert run_export(task, world.root) == "finished"
        made = task / _result(task)["path"]
        card = (made / "README.md").read_text()
        assert "direct preference optimization (DPO)" in card and "- dpo" in card
    AutoTokenizer.from_pretrained(made)
    assert AutoModelForCausalLM.from_pretrained(made).num_parameters() > 0


def test_only_good_answers_of_kto_are_expected(world: TinyWorld) -> None:
    """A model would be praised for answers that were judged bad."""
    run = trained(world, "kto")
    folder = world.task(run, "evaluate", "e1", {"compare_base": False})
    assert run_evaluation(folder, world.root) == "finished"
    result = shown_report(folder)
    assert result["rows"] == 8
    assert any("8 rows with a bad one were left out" in note for note in result["notes"])
    assert all(item["expected"].startswith("yes, ") for item in result["differences"])


def _result(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result
