"""How a training goes on from a checkpoint: whose it is, whether it can be read, and with which
settings."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors import SafetensorError
from torch.optim.lr_scheduler import LambdaLR
from trl.trainer.base_trainer import _BaseTrainer

from core.errors import ModelError, TrainingError
from core.models.fit import adapter_misfit, weights_misfit
from core.training.memory import ran_out

_UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
    EOFError,
    TypeError,
    AttributeError,
    pickle.UnpicklingError,
    SafetensorError,
)


class BrokenCheckpoint(TrainingError):
    """A checkpoint that cannot be read, though its files looked whole. `path` is its folder."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path.name} cannot be read: {reason}", "Resume from another one, or start again."
        )
        self.path = path
        self.reason = reason


class ResumedTrainer(_BaseTrainer):
    """To stand before a trainer of transformers' among the bases of a class.

    A checkpoint of another model is refused, one that cannot be read is told apart from any other
    error, and the run's own learning rate, length and intervals hold, not those that were saved.
    """

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        with _reading(folder):
            own = self.accelerator.unwrap_model(self.model if model is None else model)
            misfit = _misfit(own, folder)
            if misfit:
                raise TrainingError(
                    f"{folder.name} is a checkpoint of another model: {misfit}",
                    "Resume from a checkpoint of this run, or give it the settings of that one.",
                )
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        schedule = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)
        rates = list(getattr(schedule, "base_lrs", []))
        with _reading(Path(checkpoint)):
            super()._load_optimizer_and_scheduler(checkpoint)
        if isinstance(schedule, LambdaLR):
            _set_rates(self.optimizer, schedule, rates)
        # Those of the saved state would hold: evaluations and checkpoints would come as before.
        self.state.compute_steps(self.args, self.state.max_steps)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with _reading(Path(checkpoint or "")):
            super()._load_rng_state(checkpoint)


def _set_rates(optimizer: Any, schedule: LambdaLR, rates: list[float]) -> None:
    """The learning rates that the run's own settings give at this step of its own schedule."""
    schedule.base_lrs = rates
    schedule._last_lr = [
        rate * share(schedule.last_epoch)
        for rate, share in zip(rates, schedule.lr_lambdas, strict=True)
    ]
    for group, rate, now in zip(optimizer.param_groups, rates, schedule._last_lr, strict=True):
        group["initial_lr"], group["lr"] = rate, now


def _misfit(model: Any, folder: Path) -> str | None:
    is_adapter = (folder / "adapter_config.json").is_file()
    if is_adapter != isinstance(model, PeftModel):
        return "it is an adapter." if is_adapter else "it is a whole model, not an adapter."
    if is_adapter:
        return adapter_misfit(model, folder, model.active_adapters[0])
    return weights_misfit(model, folder)


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """What fails in here is the checkpoint's fault, unless it is the memory's."""
    try:
        yield
    except TrainingError:
        raise
    except (*_UNREADABLE, ModelError) as error:
        if ran_out(error):
            raise
        lines = str(error).strip().splitlines()
        raise BrokenCheckpoint(folder, lines[0] if lines else type(error).__name__) from error
