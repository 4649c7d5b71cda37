"""What to do when the memory runs out: half the batch and twice the accumulation, so that a step
learns from as many rows as before.

transformers' auto_find_batch_size takes a tenth off the batch, begins the training anew and lets
the effective batch shrink; so it is not used.
"""

from __future__ import annotations

import traceback
from typing import Any

import torch

from core.config import RunConfig
from core.config.memory import halved
from core.errors import TrainingError

__all__ = ["MemoryRanOut", "change_for", "ran_out"]

_SAID = ("out of memory", "can't allocate memory", "cannot allocate memory")
# In whose call the evaluation's batch is what did not fit.
_EVALUATING = ("evaluation_loop", "prediction_step")


class MemoryRanOut(TrainingError):
    """The memory was not enough for the run as it is set."""


def ran_out(error: BaseException) -> bool:
    """Whether it was the memory, a GPU's or the machine's, that was not enough."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError | OSError) and any(words in text for words in _SAID)


def change_for(error: BaseException, config: RunConfig) -> dict[str, Any] | None:
    """The settings to go on with after this error, by dotted path; None when none would help."""
    names = {frame.name for frame in traceback.extract_tb(error.__traceback__)}
    return halved(config, in_evaluation=not names.isdisjoint(_EVALUATING))
