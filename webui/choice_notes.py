"""What stands under a setting about the choice that was made there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.config.arguments import Argument
from core.config.optimizers import OPTIMIZERS
from core.config.schedules import SCHEDULES

# How the list of optimizers names each: with its group.
OPTIMIZER_LABELS = {optimizer.name: optimizer.label for optimizer in OPTIMIZERS.values()}


def choice_notes(values: Mapping[str, Any]) -> dict[str, str]:
    """A sentence by the path of a setting, for the values that the form has now."""
    optimizer = OPTIMIZERS.get(str(values.get("training.optim")))
    schedule = SCHEDULES.get(str(values.get("training.lr_scheduler_type")))
    found: dict[str, str] = {}
    if optimizer:
        found["training.optim"] = optimizer.sentence
        found["training.optim_args"] = _taken(optimizer.name, optimizer.arguments)
    if schedule:
        found["training.lr_scheduler_type"] = schedule.sentence
        found["training.lr_scheduler_kwargs"] = _taken(schedule.name, schedule.arguments)
    return {path: text for path, text in found.items() if text}


def _taken(name: str, arguments: Mapping[str, Argument]) -> str:
    if not arguments:
        return ""
    parts = [f"{argument} ({known.allowed})" for argument, known in arguments.items()]
    return f"{name} takes {', '.join(parts)}."
