"""A workspace with a tiny model and data set, and a quick way to train on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from core.jobs.events import Event, read_events
from core.worker.training.run import run_training
from core.workspace import RunFolder
from tests.tiny_model import TinyWorld, colour_rows, tiny_world

# Twelve rows in batches of four: three steps an epoch.
SETTINGS: dict[str, Any] = {
    "training.per_device_train_batch_size": 4,
    "training.learning_rate": 1e-2,
    "training.num_train_epochs": 2.0,
    "training.max_length": 64,
    "evaluation.eval_strategy": "no",
    "evaluation.sample_max_new_tokens": 0,
    "tracking.save_strategy": "no",
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads on a tiny model wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    """Four of the rows are held out as well."""
    return tiny_world(tmp_path_factory.mktemp("training"), eval_rows=colour_rows()[:4])


Train = Callable[..., RunFolder]


@pytest.fixture
def train(world: TinyWorld, tmp_path: Path) -> Train:
    """Trains a run with these settings, given by dotted path, and gives back its folder."""
    return _trains(world, tmp_path.name)


@pytest.fixture(scope="module")
def train_once(world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """The same for a run that several tests of a module look at, and none changes."""
    return _trains(world, tmp_path_factory.mktemp("once").name)


def _trains(world: TinyWorld, place: str) -> Train:
    def go(name: str, resume_from: Path | None = None, **settings: Any) -> RunFolder:
        unique = f"{place.replace('_', '-').lower()[:50]}-{name}"
        folder = world.workspace.run(unique)
        if resume_from is None:
            folder = world.run(unique, {**SETTINGS, **settings})
        run_training(folder.root, world.root, resume_from)
        return folder

    return go


def events(run: RunFolder, kind: str) -> list[Event]:
    return [event for event in read_events(run.events) if event["kind"] == kind]


def losses(run: RunFolder) -> list[float]:
    """The training loss at each step."""
    return [event["loss"] for event in events(run, "metrics") if "loss" in event]
