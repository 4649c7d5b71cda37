"""A run of any method ends when it no longer gets better, and leaves its best weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.jobs.events import Event
from core.worker.training.run import run_training
from core.workspace import RunFolder
from tests.preferences import THINGS, bring, judged, pairs
from tests.tiny_model import TinyWorld
from tests.training.conftest import SETTINGS, events
from tests.training.reading import text_world

# So fast that it gets worse after a while.
HASTY: dict[str, Any] = {
    "training.learning_rate": 0.3,
    "training.lr_scheduler_type": "constant",
    "training.warmup_steps": 0.0,
    "training.num_train_epochs": 40.0,
    "evaluation.eval_strategy": "epoch",
    "evaluation.early_stopping_patience": 1,
    "evaluation.load_best_model_at_end": True,
    "tracking.save_strategy": "epoch",
}


def check(run: RunFolder, metric: str = "eval_loss", sign: int = -1) -> None:
    measured: list[Event] = [event for event in events(run, "metrics") if "eval_loss" in event]
    last = measured[-1]["step"]
    later = [event for event in measured if event["step"]]
    best = max(later, key=lambda event: sign * event[metric])["step"]
    assert measured[-1]["epoch"] < 40 and best < last
    kept = load_file(run.checkpoints / f"checkpoint-{best}" / "adapter_model.safetensors")
    final = load_file(run.adapter / "adapter_model.safetensors")
    assert kept.keys() == final.keys()
    assert all(torch.equal(kept[name], final[name]) for name in kept)


@pytest.mark.parametrize("method", ["dpo", "kto", "orpo", "cpo"])
def test_preferences(world: TinyWorld, method: str) -> None:
    rows = judged if method == "kto" else pairs
    info = bring(world.workspace, rows(THINGS[:2]), rows(THINGS[4:5]), f"{method}-early")
    values = {**SETTINGS, **HASTY, "method": method, "data.dataset": info.id}
    run = world.run(f"{method}-early", values)
    assert run_training(run.root, world.root, None) == "finished"
    check(run)


@pytest.mark.parametrize("method", ["cpt", "mlm"])
def test_texts(tmp_path: Any, method: str) -> None:
    world = text_world(tmp_path)
    check(world.train(f"{method}-early", method, "plain", **HASTY))
