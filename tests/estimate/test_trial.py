"""Two steps beforehand: they must measure, and leave nothing behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from core.estimate.plan import estimate_run
from core.models.hardware import probe
from core.worker.training.run import try_two_steps
from tests.estimate.test_memory import memory
from tests.tiny_model import colour_rows, tiny_world

LONG = "a " + "very " * 30 + "red cup"


def test_a_trial_takes_the_longest_rows_and_leaves_nothing(tmp_path: Path) -> None:
    """A trial on short rows would promise a run that then ends out of memory; one that left
    something behind would stand among the runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = colour_rows()
    rows[5]["messages"][0]["content"] = LONG
    world = tiny_world(tmp_path, rows=rows, eval_rows=colour_rows()[:4])
    settings = {
        "model.model_name_or_path": "tiny",
        "data.dataset": world.dataset.id,
        "training.precision": "fp32",
        "training.device": "cpu",
        "training.per_device_train_batch_size": 2,
        "evaluation.load_best_model_at_end": True,
    }
    before = sorted(path.name for path in world.root.rglob("*"))
    said: list[str] = []
    try:
        found = try_two_steps(str(world.root), settings, lambda _, message: said.append(message))
    finally:
        torch.set_num_threads(threads)
    assert sorted(path.name for path in world.root.rglob("*")) == before
    assert str(world.root) not in os.environ.get("TUNESMITH_ALLOW", "")
    assert found["tokens_per_second"] > 0 and found["memory_bytes"] > 100e6
    assert found["settings"]["training.gradient_checkpointing"] is False
    assert said == ["Looking for the longest rows", "Trying two steps"]


def test_an_estimate_holds_for_a_model_in_memory(tmp_path: Path) -> None:
    """Parts that can be counted exactly: weights, adapter, gradients, optimizer's state."""
    from peft import get_peft_model

    from core.rules import parse_config
    from core.worker.training.adapters import peft_config

    world = tiny_world(tmp_path)
    values = {"training.precision": "fp32", "training.per_device_train_batch_size": 2}
    config = parse_config(values | {"training.gradient_checkpointing": False})
    parts = memory(estimate_run(world.base, config, probe())).parts
    from tests.tiny_model import tiny_model

    adapted = get_peft_model(tiny_model(), peft_config(config))
    trained = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    adapted(torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    optimizer.step()
    state = sum(
        value.numel() * value.element_size()
        for one in optimizer.state.values()
        for value in one.values()
        if value.dim()
    )
    assert parts["adapter"] == sum(p.numel() * 4 for p in trained)
    assert parts["gradients"] == sum(p.grad.numel() * 4 for p in trained if p.grad is not None)
    assert parts["optimizer"] == pytest.approx(state)
    frozen = sum(p.numel() * 4 for p in adapted.parameters() if not p.requires_grad)
    assert parts["weights"] == frozen
