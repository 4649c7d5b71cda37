"""A run that was stopped and resumed ends exactly as one that was not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.errors import DataError, TrainingError
from core.training.callbacks import ReportEvents
from core.training.run import run_training
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


def stopped_and_resumed(
    train: Train, world: TinyWorld, monkeypatch: pytest.MonkeyPatch, step: int, **settings: Any
) -> RunFolder:
    with monkeypatch.context() as patch:
        stop_at(step, patch)
        run = train("parts", **settings)
    assert not run.adapter.exists() and not run.model.exists()
    assert [path.name for path in run.checkpoints.iterdir()] == [f"checkpoint-{step}"]
    run.stop_request.unlink()
    torch.manual_seed(12345)  # another process has other random numbers
    checkpoint = Path("checkpoints") / f"checkpoint-{step}"
    assert run_training(run.root, world.root, checkpoint) == "finished"
    return run


@pytest.mark.parametrize("step", [2, 3, 5], ids=["with-evaluation", "epoch-end", "middle"])
def test_weights_are_equal_bit_for_bit(
    train: Train, world: TinyWorld, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """A run that was stopped would not be the run that one would have had."""
    whole = train("whole", **EXACT)
    parts = stopped_and_resumed(train, world, monkeypatch, step, **EXACT)
    for name in ("loss", "num_tokens"):
        curves = [[e[name] for e in events(r, "metrics") if name in e] for r in (parts, whole)]
        assert curves[0] == curves[1], name
    expected, found = weights(whole.adapter), weights(parts.adapter)
    assert expected.keys() == found.keys()
    for name in expected:
        assert torch.equal(expected[name], found[name]), name


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
    whole = train("whole", **settings)
    parts = stopped_and_resumed(train, world, monkeypatch, 4, **settings)
    expected, found = weights(whole.model), weights(parts.model)
    for name in expected:
        assert torch.equal(expected[name], found[name]), name


def test_patience_goes_on_where_it_was(
    train: Train, world: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each stop would give an overfitting run its whole patience anew."""
    settings = {
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
    whole = train("whole", **settings)
    last = max(event["step"] for event in events(whole, "metrics"))
    with monkeypatch.context() as patch:
        stop_at(last - 1, patch)
        parts = train("parts", **settings)
    parts.stop_request.unlink()
    run_training(parts.root, world.root, parts.checkpoints / f"checkpoint-{last - 1}")
    assert max(event["step"] for event in events(parts, "metrics")) == last
    expected, found = weights(whole.adapter), weights(parts.adapter)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_stop_leaves_the_evaluation_out(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping would take as long as an evaluation does."""
    stop_at(2, monkeypatch)
    run = train("stopped", **EXACT)
    assert not any("eval_loss" in event for event in events(run, "metrics"))


def test_a_stop_in_the_middle_of_an_epoch_is_no_epoch_end(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopping would evaluate and save as if the epoch were over."""
    stop_at(2, monkeypatch)
    by_epoch = {"evaluation.eval_strategy": "epoch", "tracking.save_strategy": "epoch"}
    run = train("stopped", **{**EXACT, **by_epoch})
    assert [path.name for path in run.checkpoints.iterdir()] == ["checkpoint-2"]
    assert not any("eval_loss" in event for event in events(run, "metrics"))


def test_a_stop_at_the_last_step_is_the_end(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished run would count as stopped and keep no result."""
    stop_at(9, monkeypatch)
    assert train("late", **EXACT).adapter.is_dir()


def test_other_rows_than_before_are_refused(
    train: Train, world: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run would learn other rows in another order without a word."""
    with monkeypatch.context() as patch:
        stop_at(2, patch)
        run = train("changed", **EXACT)
    run.stop_request.unlink()
    text = run.config.read_text().replace(world.dataset.fingerprint, "f" * 64)
    run.config.write_text(text)
    with pytest.raises(DataError, match="has changed"):
        run_training(run.root, world.root, run.checkpoints / "checkpoint-2")


def test_a_checkpoint_that_is_not_there_is_named(train: Train, world: TinyWorld) -> None:
    """The run would silently begin anew."""
    run = train("gone", **{**EXACT, "training.max_steps": 1})
    with pytest.raises(TrainingError, match="checkpoint-77"):
        run_training(run.root, world.root, Path("checkpoints/checkpoint-77"))
