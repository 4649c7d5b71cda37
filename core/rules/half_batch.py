"""The same training with other batches: half as many rows at once, or on more or fewer devices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from core.config import RunConfig, checked_fields
from core.config.run import device_count, rows_a_step
from core.errors import ConfigError
from core.rules.parsing import parse_config

_BATCH = "training.per_device_train_batch_size"
_ACCUMULATION = "training.gradient_accumulation_steps"
_DEVICES = "training.devices"
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
    return next(_same_step(config, rows // 2, {}), None)


def on_devices(config: RunConfig, devices: str) -> dict[str, Any] | None:
    """What to change, by dotted path, so that a step learns from as many rows as before on so many
    `devices`. None when these cannot share them evenly."""
    rows = config.training.per_device_train_batch_size
    if not isinstance(rows, int):
        return {_DEVICES: devices}
    return next(_same_step(config, rows, {_DEVICES: devices}), None)


def _same_step(config: RunConfig, most: int, changes: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """With these changes, batches of `most` rows and fewer with which a step learns from as many
    rows as before."""
    rows = config.training.per_device_train_batch_size
    assert isinstance(rows, int), "looked at by the callers"
    count = device_count(checked_fields(config.values() | changes))
    effective = rows_a_step(config, rows)
    for fewer in range(most, 0, -1):
        accumulation = effective // (fewer * count)
        change = {**changes, _BATCH: fewer, _ACCUMULATION: accumulation}
        if accumulation and effective % (fewer * count) == 0 and _allowed(config, change):
            yield change


def _allowed(config: RunConfig, change: dict[str, Any]) -> bool:
    """Some methods compare the rows of a batch, and need more than one."""
    try:
        parse_config(config.values() | change)
    except ConfigError:
        return False
    return True
