"""How long: a time without its origin would be believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.config import RunConfig
from core.estimate.pace import Pace, pace_from_runs, seconds_of
from core.jobs.job import Job
from core.jobs.store import Store
from core.rules import parse_config
from core.workspace import Workspace
from tests.estimate.test_memory import SMOLLM2, model
from tests.webui.made_runs import make_run

COUNTS = {"train_rows": 100, "train_tokens": 20_000}
SETTLED = {"training.per_device_train_batch_size": 4, "training.gradient_checkpointing": False}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


def finished(workspace: Workspace, store: Store, **settings: Any) -> Job:
    """A finished run of some 503 tokens a second."""
    job = make_run(workspace, store, device="cpu", steps=20)
    parse_config({**SETTLED, **settings}).save(workspace.run(job.id).config)
    return job


def test_a_run_of_the_same_kind_gives_its_pace_as_it_is(workspace: Workspace) -> None:
    store = Store.open(workspace)
    finished(workspace, store, method="dpo")
    job = finished(workspace, store)
    pace = pace_from_runs(workspace, store, parse_config(SETTLED), "cpu")
    assert pace is not None and pace.is_exact and pace.run == job.id
    assert pace.tokens_per_second == pytest.approx(503, abs=3)
    assert "from your run" in pace.origin


def test_another_model_s_run_is_scaled_and_called_rough(workspace: Workspace) -> None:
    """The time for a model of twice the size would be that of the small one."""
    whole = str(model(workspace.models / "whole", SMOLLM2))
    half = str(model(workspace.models / "half", {**SMOLLM2, "num_hidden_layers": 15}))
    store = Store.open(workspace)
    finished(workspace, store, **{"model.model_name_or_path": whole})
    wanted = parse_config({**SETTLED, "model.model_name_or_path": half})
    pace = pace_from_runs(workspace, store, wanted, "cpu")
    assert pace is not None and not pace.is_exact and "roughly" in pace.origin
    assert pace.tokens_per_second == pytest.approx(503 * 134.5 / 81.4, rel=0.02)


def test_nothing_is_guessed_from_another_device_or_method(workspace: Workspace) -> None:
    store = Store.open(workspace)
    finished(workspace, store, method="dpo")
    assert pace_from_runs(workspace, store, parse_config(SETTLED), "cpu") is None
    assert pace_from_runs(workspace, store, parse_config({"method": "dpo"}), "cuda") is None


def test_the_time_follows_epochs_steps_and_rows() -> None:
    pace = Pace(100.0, "from a trial", True)
    assert seconds_of(parse_config({"training.num_train_epochs": 3}), pace, COUNTS) == 600
    steps = {**SETTLED, "training.max_steps": 10}
    assert seconds_of(parse_config(steps), pace, COUNTS) == 10 * 4 * 200 / 100
    fewer = {"training.num_train_epochs": 1, "data.max_train_samples": 50}
    assert seconds_of(parse_config(fewer), pace, COUNTS) == 100
    assert seconds_of(RunConfig(), pace, None) is None
