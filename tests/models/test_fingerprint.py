"""A base that became another one since the training: nothing is measured on it in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from core.chat.settings import Column
from core.errors import ExportError
from core.evaluation.report import read_report
from core.export.combine import find_shares, parse_combination
from core.export.reports import load_export
from core.hub.push import export_to_push
from core.jobs.job import update_record
from core.models.fingerprint import base_changed, fingerprint, keep_base, read_base
from core.models.trained import find_trained
from core.worker.chat.loaded import Models
from core.worker.evaluation.run import run_evaluation
from core.worker.export.run import run_export
from tests.tiny_model import TinyWorld, colour_rows, tiny_adapter, tiny_model, tiny_world

CHANGED = "The base tiny is not the one of the training: its weights are others now."


@pytest.fixture(autouse=True)
def cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_DEVICE", "cpu")


@pytest.fixture
def world(tmp_path: Path) -> TinyWorld:
    """With a run whose base is another one by now, and one that was trained on that."""
    world = tiny_world(tmp_path / "ws", eval_rows=colour_rows()[::2])
    for name in ("before", "after"):
        run = world.run(f"{name}-run")
        tiny_adapter(tiny_model()).save_pretrained(run.adapter)
        keep_base(run, world.base)
        tiny_model(seed=5).save_pretrained(world.base)
    return world


def test_a_model_is_known_by_any_change_of_its_weights(tmp_path: Path) -> None:
    def model(name: str, weights: Any) -> Path:
        folder = tmp_path / name / "snapshots" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        save_file({"a": weights, "b": torch.ones(3)}, folder / "model.safetensors")
        return folder

    torch.manual_seed(0)
    weights = torch.randn(2_000_000)
    one, same = fingerprint(model("one", weights)), fingerprint(model("same", weights))
    other = fingerprint(model("other", weights + 1e-3))
    assert one and same and other
    assert one["weights"] == same["weights"] != other["weights"]
    assert (one["commit"], same["commit"]) == ("one", "same")
    assert fingerprint(tmp_path) is None


def test_what_was_noted_first_stays(world: TinyWorld) -> None:
    before, after = (world.workspace.run(f"{name}-run") for name in ("before", "after"))
    noted = read_base(before)
    keep_base(before, world.base)
    assert read_base(before) == noted != read_base(after)
    assert base_changed(find_trained(before), world.base) == CHANGED
    assert base_changed(find_trained(after), world.base) == ""
    (before.root / "base.json").unlink()
    assert base_changed(find_trained(before), world.base) == ""


def test_an_export_says_it_and_is_not_pushed(world: TinyWorld) -> None:
    for name, wrong in {"before": [CHANGED], "after": []}.items():
        run = world.workspace.run(f"{name}-run")
        folder = world.task(run, "export", "one", {"format": "adapter"})
        assert run_export(folder, world.root) == "finished"
        update_record(folder, state="finished")
        checks = load_export(folder).checks
        assert [str(one["detail"]) for one in checks if not one["ok"]] == wrong
    with pytest.raises(ExportError, match="Is on the base of its training"):
        export_to_push(world.workspace, "before-run")
    assert export_to_push(world.workspace, "after-run")


def test_an_evaluation_and_a_chat_say_it(world: TinyWorld) -> None:
    for name, wrong in {"before": [CHANGED], "after": []}.items():
        folder = world.task(world.workspace.run(f"{name}-run"), "evaluate", "one", {})
        assert run_evaluation(folder, world.root) == "finished"
        report = read_report(folder)
        assert report and [one for one in report.notes if one == CHANGED] == wrong
        models = Models(world.workspace)
        models.load([Column(run_id=f"{name}-run")], [str(world.base)], lambda share, said: None)
        assert models.notes == wrong


def test_adapters_of_two_bases_under_one_name_are_not_combined(world: TinyWorld) -> None:
    asked = parse_combination({"others": [{"run": "after-run", "weight": 1.0}]})
    assert asked is not None
    with pytest.raises(ExportError, match="the weights of its base were others"):
        find_shares(world.workspace, find_trained(world.workspace.run("before-run")), asked)
