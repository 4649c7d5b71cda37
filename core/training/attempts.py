"""Begins a training again where that can mend what ended it: with half the batch when the memory
ran out, from the checkpoint before when one cannot be read. Imports torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from core.config import RunConfig, load_config, parse_config
from core.jobs.events import EventWriter
from core.models.checkpoints import checkpoint_before, last_good_checkpoint
from core.models.inference import free_memory
from core.training.advice import advise
from core.training.memory import MemoryRanOut, change_for, ran_out
from core.training.resumed import BrokenCheckpoint
from core.workspace import RunFolder

Train = Callable[[RunConfig, Path | None], str]


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
    message = f"{error.path.name} cannot be read ({error.reason}); going on from {before.name}."
    events.write("log", level="warning", message=message)
    return before.path


def _with_less(run: RunFolder, error: Exception, events: EventWriter) -> Path | None:
    """Halves what is in memory at once, if the run may; the checkpoint to go on from, if any."""
    config = load_config(run.config)
    change = change_for(error, config)
    if change is None or config.training.on_out_of_memory != "halve":
        advice = advise(error)
        hint = advice.hint
        if change is not None:
            hint = f"Go on with half the batch, which learns the same. Or: {hint}"
        raise MemoryRanOut(advice.message, hint) from error
    parse_config(config.values() | change).save(run.config)
    checkpoint, _ = last_good_checkpoint(run.checkpoints)
    place = checkpoint.name if checkpoint else "the start"
    reason = f"the memory ran out; as many rows a step as before, going on from {place}"
    events.write("log", level="warning", message=f"Out of memory: {str(error).splitlines()[0]}")
    for field, value in change.items():
        choice = {"field": field, "value": value, "reason": reason}
        name = field.rpartition(".")[2]
        message = f"{name}: {value} ({reason})"
        events.write("log", level="warning", message=message, choice=choice)
    return checkpoint.path if checkpoint else None
