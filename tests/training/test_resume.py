"""A run that was stopped and resumed ends exactly as one that was not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.errors import DataError, TrainingError
from core.worker.training.callbacks import ReportEvents
from core.worker.training.run import run_training
from core.workspace import RunFolder
from tests.tiny_model import TinyWorld
from tests.training.conftest import events

Train = Callable[..., RunFolder]
# Dropout draws random numbers at each step; evaluations and samples lie on and off the stop.
EXACT: dict[str, Any] = {
    "training.precision": "fp32",
    "training.num_train_epochs": 3.0,
    "adapter.lora_dropout": 0.1,
    "training.neftune_noise_alpha": 5.0,
    "evaluation.eval_strategy": "steps",
    "evaluation.eval_steps": 2,
    "evaluation.sample_max_new_tokens": 4,
    "tracking.save_strategy": "steps",
    "tracking.save_steps": 100,
}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    name = "adapter_model.safetensors" if folder.name != "model" else "model.safetensors"
    return load_file(folder / name)


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stop request comes while this step is computed."""
    begin = ReportEvents.on_step_begin

    def ask(self: ReportEvents, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step == step - 1:
            RunFolder(Path(args.output_dir).parent).stop_request.touch()
        begin(self, args, state, control, **given)

    monkeypatch.setattr(ReportEvents, "on_step_begin", ask)


# Overfits within some steps, and then has no patience left.
HASTY: dict[str, Any] = {
    **EXACT,
    "training.num_train_epochs": 40.0,
    "training.learning_rate": 0.3,
    "training.lr_scheduler_type": "constant",
    "training.warmup_steps": 0.0,
    "evaluation.early_stopping_patience": 3,
    "evaluation.sample_max_new_tokens": 0,
    "tracking.save_steps": 2,
    "tracking.save_total_limit": None,
}


@pytest.fixture(scope="module")
def whole(train_once: Train) -> RunFolder:
    """A run that was not stopped."""
    return train_once("whole", **EXACT)


@pytest.fixture(scope="module")
def hasty(train_once: Train) -> RunFolder:
    return train_once("hasty", **HASTY)


def stopped(
    train: Train, monkeypatch: pytest.MonkeyPatch, step: int, **settings: Any
) -> tuple[RunFolder, Path]:
    """(a run that was stopped at this step, its checkpoint)"""
    with monkeypatch.context() as patch:
        stop_at(step, patch)
        run = train("parts", **settings)
    assert not run.adapter.exists() and not run.model.exists()
    run.stop_request.unlink()
    return run, Path("checkpoints") / f"checkpoint-{step}"


def resume(world: TinyWorld, run: RunFolder, checkpoint: Path) -> RunFolder:
    torch.manual_seed(12345)  # another process has other random numbers
    assert run_training(run.root, world.root, checkpoint) == "finished"
    return run


def check_same(found: RunFolder, expected: RunFolder) -> None:
    mine, theirs = (
        weights(run.adapter if run.adapter.is_dir() else run.model) for run in (found, expected)
    )
    assert mine.keys() == theirs.keys()
    for name in theirs:
        assert torch.equal(mine[name], theirs[name]), name


@pytest.mark.parametrize("step", [2, 3, 5], ids=["with-evaluation", "epoch-end", "middle"])
def test_weights_are_equal_bit_for_bit(
    train: Train, world: TinyWorld, whole: RunFolder, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """A run that was stopped would not be the run that one would have had. Stopping would take as
    long as an evaluation does. A resumed run would learn other rows in another order without a
    word."""
    run, checkpoint = stopped(train, monkeypatch, step, **EXACT)
    assert [path.name for path in run.checkpoints.iterdir()] == [checkpoint.name]
    told = [event["step"] for event in events(run, "metrics") if "eval_loss" in event]
    assert told == [at for at in (2, 4) if at < step]
    text = run.config.read_text()
    run.config.write_text(text.replace(world.dataset.fingerprint, "f" * 64))
    with pytest.raises(DataError, match="has changed"):
        run_training(run.root, world.root, checkpoint)
    run.config.write_text(text)
    parts = resume(world, run, checkpoint)
    for name in ("loss", "num_tokens"):
        curves = [[e[name] for e in events(r, "metrics") if name in e] for r in (parts, whole)]
        assert curves[0] == curves[1], name
    check_same(parts, whole)


def test_weights_are_equal_bit_for_bit_in_full_fine_tuning_with_accumulation(
    train: Train, world: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for a model that is trained whole."""
    settings = {
        **EXACT,
        "adapter.method": "none",
        "training.per_device_train_batch_size": 2,
        "training.gradient_accumulation_steps": 2,
        "training.learning_rate": 1e-3,
    }
    unstopped = train("whole", **settings)
    check_same(resume(world, *stopped(train, monkeypatch, 4, **settings)), unstopped)


def test_training_stops_early_and_ends_with_the_best(hasty: RunFolder) -> None:
    """A run would go on when it no longer learns, and end with worse weights."""
    found = {e["step"]: e["eval_loss"] for e in events(hasty, "metrics") if "eval_loss" in e}
    last, best = max(found), min(found, key=lambda step: found[step])
    assert last < 120 and last == best + 6
    kept = load_file(hasty.checkpoints / f"checkpoint-{best}" / "adapter_model.safetensors")
    final = weights(hasty.adapter)
    assert all(torch.equal(kept[name], final[name]) for name in kept)


def test_patience_goes_on_where_it_was(
    train: Train, world: TinyWorld, hasty: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each stop would give an overfitting run its whole patience anew."""
    last = max(event["step"] for event in events(hasty, "metrics"))
    parts = resume(world, *stopped(train, monkeypatch, last - 1, **HASTY))
    assert max(event["step"] for event in events(parts, "metrics")) == last
    check_same(parts, hasty)


def test_a_stop_in_the_middle_of_an_epoch_is_no_epoch_end(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopping would evaluate and save as if the epoch were over."""
    by_epoch = {"evaluation.eval_strategy": "epoch", "tracking.save_strategy": "epoch"}
    run, checkpoint = stopped(train, monkeypatch, 2, **{**EXACT, **by_epoch})
    assert [path.name for path in run.checkpoints.iterdir()] == [checkpoint.name]
    assert not any("eval_loss" in event for event in events(run, "metrics"))


def test_a_stop_at_the_last_step_is_the_end(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished run would count as stopped and keep no result."""
    short = {**EXACT, "training.num_train_epochs": 1.0}
    stop_at(3, monkeypatch)
    assert train("late", **short).adapter.is_dir()


def test_a_checkpoint_that_is_not_there_is_named(whole: RunFolder, world: TinyWorld) -> None:
    """The run would silently begin anew."""
    with pytest.raises(TrainingError, match="checkpoint-77"):
        run_training(whole.root, world.root, Path("checkpoints/checkpoint-77"))
