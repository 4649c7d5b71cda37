"""The rules of a run that begins with another one, and how its name and checkpoint are written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from core.errors import Problem

if TYPE_CHECKING:
    from core.config.run import RunConfig

BASE = "base"
RUN_PATTERN = r"^([a-z0-9][a-z0-9-]{0,79}(@(final|checkpoint-\d+))?)?$"
"""An id, or an id with a checkpoint behind an @; or nothing."""


def continues(config: RunConfig) -> bool:
    """Whether the run begins with what another run made."""
    return bool(config.model.start_from != BASE and config.model.from_run)


def run_and_checkpoint(config: RunConfig) -> tuple[str, str]:
    """(id of the run to begin with, its checkpoint): `quiet-otter@checkpoint-40` has both."""
    run_id, _, checkpoint = config.model.from_run.partition("@")
    return run_id, checkpoint or "final"


def chain_rules(config: RunConfig) -> Iterator[Problem]:
    """What a run that begins with another one has to keep, as far as its own settings tell."""
    model = config.model
    if model.start_from == BASE and model.from_run:
        yield Problem(
            "model.from_run",
            f"{model.from_run} with model.start_from base: it would have no effect. Set "
            "start_from to merge, stack or continue, or leave the run out.",
            ("model.start_from",),
        )
    if model.start_from != BASE and not model.from_run:
        yield Problem(
            "model.from_run",
            f"empty with model.start_from {model.start_from}: name the run to begin with.",
            ("model.start_from",),
        )
    quantization: str = config.adapter.quantization
    if model.start_from == "stack" and quantization != "none":
        yield Problem(
            "model.start_from",
            f"stack with adapter.quantization {quantization}: the adapter beneath would be "
            "rounded away. Take merge, which quantizes the merged model.",
            ("adapter.quantization",),
        )
