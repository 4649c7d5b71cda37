"""How a training goes on: from a checkpoint, with the run's own settings; from the one before where
that cannot be read; with half the batch where the memory ran out.

transformers' auto_find_batch_size takes a tenth off the batch, begins the training anew and lets
the effective batch shrink; so it is not used.
"""

from __future__ import annotations

import pickle
import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from torch.optim.lr_scheduler import LambdaLR
from trl.trainer.base_trainer import _BaseTrainer

from core.config import RunConfig
from core.errors import MemoryRanOut, ModelError, TrainingError
from core.jobs.events import EventWriter
from core.language import _
from core.models.checkpoints import checkpoint_before, last_good_checkpoint
from core.rules import load_config, parse_config
from core.rules.half_batch import halved
from core.worker.models.loading import adapter_misfit, free_memory, weights_misfit
from core.worker.training.advice import advise
from core.workspace import RunFolder

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
_SAID = ("out of memory", "can't allocate memory", "cannot allocate memory")
# In whose call the evaluation's batch is what did not fit.
_EVALUATING = ("evaluation_loop", "prediction_step")

Train = Callable[[RunConfig, Path | None], str]


class LackOfMemory(RuntimeError):
    """What one of the processes of a run had too little memory for, in its words."""

    def __init__(self, said: str, *, in_evaluation: bool) -> None:
        super().__init__(said)
        self.in_evaluation = in_evaluation


class BrokenCheckpoint(TrainingError):
    """A checkpoint that cannot be read, though its files looked whole. `path` is its folder."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            _("{name} cannot be read: {reason}", name=path.name, reason=reason),
            _("Resume from another one, or start again."),
        )
        self.path = path
        self.reason = reason


def in_attempts(run: RunFolder, train: Train, resume_from: Path | None) -> str:
    """What `train` returns, called anew as often as that helps. Raises what nothing helps with;
    MemoryRanOut when the memory was not enough."""
    events = EventWriter(run.events)
    while True:
        try:
            return train(load_config(run.config), resume_from)
        except BrokenCheckpoint as error:
            resume_from = _one_before(error, events)
        except Exception as error:
            if not ran_out(error):
                raise
            resume_from = _with_less(run, error, events)
        free_memory()  # the frames that held the model are gone with the error


def _one_before(error: BrokenCheckpoint, events: EventWriter) -> Path:
    before = checkpoint_before(error.path)
    if before is None:
        raise error
    message = _(
        "{name} cannot be read ({reason}); going on from {before}.",
        name=error.path.name,
        reason=error.reason,
        before=before.name,
    )
    events.write("log", level="warning", message=message)
    return before.path


def _with_less(run: RunFolder, error: Exception, events: EventWriter) -> Path | None:
    """Halves what is in memory at once, if the run may, and doubles the accumulation, so that a
    step learns from as many rows as before; the checkpoint to go on from, if any."""
    config = load_config(run.config)
    change = halved(config, in_evaluation=in_evaluation(error))
    if change is None or config.training.on_out_of_memory != "halve":
        advice = advise(error)
        hint = advice.hint
        if change is not None:
            hint = _("Go on with half the batch, which learns the same. Or: {hint}", hint=hint)
        raise MemoryRanOut(advice.message, hint) from error
    parse_config(config.values() | change).save(run.config)
    checkpoint, _broken = last_good_checkpoint(run.checkpoints)
    place = checkpoint.name if checkpoint else _("the start")
    reason = _(
        "the memory ran out; as many rows a step as before, going on from {place}", place=place
    )
    events.write(
        "log",
        level="warning",
        message=_("Out of memory: {error}", error=str(error).splitlines()[0]),
    )
    for field, value in change.items():
        choice = {"field": field, "value": value, "reason": reason}
        name = field.rpartition(".")[2]
        message = _("{name}: {value} ({reason})", name=name, value=value, reason=reason)
        events.write("log", level="warning", message=message, choice=choice)
    return checkpoint.path if checkpoint else None


def in_evaluation(error: BaseException) -> bool:
    """Whether it was the evaluation's batch that did not fit."""
    if isinstance(error, LackOfMemory):
        return error.in_evaluation
    names = {frame.name for frame in traceback.extract_tb(error.__traceback__)}
    return not names.isdisjoint(_EVALUATING)


def ran_out(error: BaseException) -> bool:
    """Whether it was the memory, a GPU's or the machine's, that was not enough."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError | OSError) and any(words in text for words in _SAID)


class ResumedTrainer(_BaseTrainer):
    """To stand before a trainer of transformers' among the bases of a class.

    A checkpoint of another model is refused, one that cannot be read is told apart from any other
    error, and the run's own learning rate, length and intervals hold, not those that were saved.
    One that cannot be written whole is taken away again, which on a full disk makes the room in
    which the run says so.
    """

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        try:
            super()._save_checkpoint(model, trial)
        except BaseException:
            half = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            shutil.rmtree(half, ignore_errors=True)
            raise

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        with _reading(folder):
            own = self.accelerator.unwrap_model(self.model if model is None else model)
            misfit = _misfit(own, folder)
            if misfit:
                raise TrainingError(
                    _(
                        "{name} is a checkpoint of another model: {misfit}",
                        name=folder.name,
                        misfit=misfit,
                    ),
                    _("Resume from a checkpoint of this run, or give it the settings of that one."),
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
        return _("it is an adapter.") if is_adapter else _("it is a whole model, not an adapter.")
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
