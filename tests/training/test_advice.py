"""For each known failure, what to do next."""

from __future__ import annotations

import errno

import jinja2
import pytest
import torch

from core.errors import DataError, TrainingError
from core.worker.training.advice import advise


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "GPU is out of", "batch_size"),
        (MemoryError(), "machine is out of memory", "batch_size"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
            "machine is out of memory",
            "quantize",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "disk is full", "resume"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "disk is full", "Free"),
        (
            ValueError("Target modules {'wq'} not found in the base model. Please check"),
            "no such modules",
            "all-linear",
        ),
        (
            ValueError("Applying a PEFT adapter to `lm_head` is not supported: the"),
            "lm_head",
            "modules_to_save",
        ),
        (jinja2.exceptions.TemplateError("roles must alternate"), "template", "Data"),
        (ModuleNotFoundError("No module named 'flash'", name="flash"), "flash", "setup"),
        (
            RuntimeError("probability tensor contains either `inf`, `nan` or element < 0"),
            "out of range",
            "learning_rate",
        ),
        (DataError("The file is empty.", "Take another."), "The file is empty.", "Take another."),
        (KeyError("what"), "KeyError: 'what'.", "worker.log"),
        (RuntimeError(), "RuntimeError.", "worker.log"),
    ],
)
def test_each_error_is_explained(error: Exception, message: str, hint: str) -> None:
    """Somebody would stand before a traceback."""
    advice = advise(error)
    assert message in advice.message and hint in advice.hint


def test_the_cause_of_an_error_counts() -> None:
    """A full disk under a library's own exception would look like a bug."""
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("could not serialize") from error
    except RuntimeError as error:
        assert "disk is full" in advise(error).message


def test_our_own_errors_keep_their_words() -> None:
    """Advice that fits exactly would be replaced by a guess from the words in it."""
    error = TrainingError("The loss at step 3 is nan, not a number.", "Lower it.")
    assert advise(error).hint == "Lower it."
