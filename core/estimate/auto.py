"""What `auto` becomes, as far as it can be told without torch. The worker has the last word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.config import RunConfig
from core.models.hardware import Device, Hardware

# Rows at once that auto does not exceed: more only smooths, at the price of fewer steps.
MOST_ROWS = {"cpu": 8, "mps": 8, "cuda": 16}
# The share of the memory that a run may take by its estimate, where auto decides.
USABLE = 0.85
# All activations are kept where so many rows at once fit; else they are computed twice.
_ENOUGH_ROWS = 4

# Bytes that so many rows at once need, with or without checkpointing.
Total = Callable[[int, bool], int]


def device_of(config: RunConfig, hardware: Hardware) -> Device:
    """The device that the run will be given."""
    wanted = config.training.device
    same = [item for item in hardware.devices if wanted in (item.label, item.kind)]
    return same[0] if same else hardware.devices[0]


def choose_rows(
    config: RunConfig, total: Total, *, device: str, room: int, rows: int | None
) -> tuple[int, bool]:
    """(rows at once, checkpointing): what is set, and for what is on auto the most that fits into
    `room` bytes. `rows` is how many there are, None where that is not known."""
    most = MOST_ROWS.get(device, 8)
    most = min(most, max(1, rows)) if rows is not None else most
    wanted = config.training.per_device_train_batch_size
    checkpointing = config.training.gradient_checkpointing
    if checkpointing == "auto":
        enough = min(_ENOUGH_ROWS, most) if wanted == "auto" else int(wanted)
        checkpointing = total(enough, False) > room
    if wanted != "auto":
        return int(wanted), bool(checkpointing)
    while most > 1 and total(most, bool(checkpointing)) > room:
        most //= 2
    return most, bool(checkpointing)


def with_values(config: RunConfig, values: dict[str, Any]) -> RunConfig:
    """A copy of `config` with other values, by dotted path."""
    changed = config.model_copy(deep=True)
    for path, value in values.items():
        section, _dot, name = path.rpartition(".")
        setattr(getattr(changed, section) if section else changed, name, value)
    return changed
