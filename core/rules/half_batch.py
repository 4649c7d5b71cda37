"""Half the batch and twice the accumulation: less memory, the same training."""

from __future__ import annotations

from typing import Any

from core.config import RunConfig
from core.errors import ConfigError
from core.rules.parsing import parse_config

_BATCH = "training.per_device_train_batch_size"
_ACCUMULATION = "training.gradient_accumulation_steps"
_EVALUATION = "evaluation.per_device_eval_batch_size"


def halved(config: RunConfig, *, in_evaluation: bool = False) -> dict[str, Any] | None:
    """What to change, by dotted path, so that about half the rows are in memory at once; a step
    learns from as many as before. None when one row at a time is too much already."""
    if in_evaluation:
        rows = config.evaluation.per_device_eval_batch_size
        return {_EVALUATION: rows // 2} if rows > 1 else None
    rows = config.training.per_device_train_batch_size  # type: ignore[assignment]
    if not isinstance(rows, int):
        return None
    effective = rows * config.training.gradient_accumulation_steps
    for fewer in range(rows // 2, 0, -1):
        change = {_BATCH: fewer, _ACCUMULATION: effective // fewer}
        if effective % fewer == 0 and _allowed(config, change):
            return change
    return None


def _allowed(config: RunConfig, change: dict[str, Any]) -> bool:
    """Some methods compare the rows of a batch, and need more than one."""
    try:
        parse_config(config.values() | change)
    except ConfigError:
        return False
    return True
