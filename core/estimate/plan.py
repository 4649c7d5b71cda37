"""A run's estimate, put together for a page or a shell: will it fit, how long, what would help."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.config import RunConfig
from core.config.run import as_run, devices_on_a_node, settle_devices
from core.errors import ConfigError, Problem, TunesmithError
from core.estimate.auto import USABLE, choose_rows, device_of, with_values
from core.estimate.memory import MemoryEstimate, estimate_memory
from core.estimate.sizes import Batch, ModelShape, largest_batch, read_shape
from core.language import Said, _
from core.models.hardware import CpuFlags, Device, Hardware

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(GB|GiB|MB|MiB)?", re.IGNORECASE)
_UNITS = {"": 10**9, "gb": 10**9, "gib": 2**30, "mb": 10**6, "mib": 2**20}
_BATCH = "training.per_device_train_batch_size"
_CHECKPOINTING = "training.gradient_checkpointing"
_PRECISION = "training.precision"


@dataclass(frozen=True)
class Situation:
    """What an estimate is made from: a model's sizes, the device, and how long the rows are.

    `rows` is how many there are to learn from; `lengths` how many of them have which length in
    tokens (of a pair its longer side), before the cut; empty while that is not known.
    """

    shape: ModelShape
    device: Device
    hardware: Hardware
    rows: int | None = None
    lengths: Sequence[tuple[int, int]] = ()

    def longest(self, config: RunConfig, rows: int) -> list[int]:
        """The lengths of the longest sequences, cut as the run cuts them."""
        most = config.training.max_length
        written = 0
        if config.training_method.generates:
            written = config.reinforcement.max_completion_length
        found: list[int] = []
        for length, count in sorted(self.lengths, reverse=True):
            found += [min(length, most) + written] * min(count, rows - len(found))
            if len(found) >= rows:
                break
        return found

    def free(self, config: RunConfig) -> int:
        """Bytes for each device of a run; processes on the CPU share the machine's."""
        free = self.device.memory_free_bytes
        return free // devices_on_a_node(config) if self.device.kind == "cpu" else free

    def memory(self, config: RunConfig) -> MemoryEstimate:
        """The peak of `config`, in which nothing is on auto any more."""
        rows = config.training.per_device_train_batch_size
        assert isinstance(rows, int), "settled by `settled`"
        return estimate_memory(
            self.shape,
            config,
            self._batch(config, rows),
            device=self.device.kind,
            free_bytes=self.free(config),
        )

    def _batch(self, config: RunConfig, rows: int) -> Batch:
        rows = min(rows, self._sequences(config) or rows)
        return largest_batch(config, rows, self.longest(config, rows))

    def _sequences(self, config: RunConfig) -> int | None:
        """How many rows the trainer has in all: a batch has no more. None while that is not known,
        and where each prompt stands there several times."""
        if config.training_method.generates:
            return None
        whole = config.training_method.fills_blocks
        if not config.training.packing and not whole:
            return self.rows
        counted = sum(count for _tokens, count in self.lengths)
        if not counted:
            return None
        most = config.training.max_length
        tokens = sum((n if whole else min(n, most)) * count for n, count in self.lengths)
        return math.ceil(tokens * (self.rows or counted) / counted / most) or None

    def settled(self, config: RunConfig) -> tuple[RunConfig, list[tuple[str, Any]]]:
        """The config without autos, and what was on auto with what it becomes."""
        values = config.values()
        precision = values[_PRECISION]
        if precision == "auto":
            precision, _why = self.hardware.precision_on(self.device)
        config = with_values(config, {_PRECISION: precision})

        def total(rows: int, checkpointing: bool) -> int:
            return self.memory(
                with_values(config, {_BATCH: rows, _CHECKPOINTING: checkpointing})
            ).total

        rows, checkpointing = choose_rows(
            config,
            total,
            device=self.device.kind,
            room=int(USABLE * self.free(config)),
            rows=self.rows,
        )
        chosen = {_PRECISION: precision, _BATCH: rows, _CHECKPOINTING: checkpointing}
        autos = [(path, value) for path, value in chosen.items() if values[path] == "auto"]
        return with_values(config, chosen), autos


@dataclass(frozen=True)
class RunEstimate:
    """What a run will take on `device`. Without `memory`, `why_not` says what is not known.

    `config` is the run's without autos; `chosen` what was on auto with what it becomes.
    """

    device: Device
    memory: MemoryEstimate | None
    why_not: Said = Said("")
    config: RunConfig | None = None
    chosen: list[tuple[str, Any]] = field(default_factory=list)
    situation: Situation | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for --json."""
        found: dict[str, Any] = {
            "device": dataclasses.asdict(self.device),
            "memory": None,
            "why_not": self.why_not or None,
            "chosen": dict(self.chosen),
        }
        if self.memory:
            found["memory"] = {
                "parts": self.memory.parts,
                "total_bytes": self.memory.total,
                "free_bytes": self.memory.free_bytes,
                "fits": self.memory.fits,
                "doubt": self.memory.doubt or None,
            }
        return found


def estimate_run(
    model: Path | None,
    config: RunConfig,
    hardware: Hardware,
    *,
    rows: int | None = None,
    token_counts: Mapping[str, Any] | None = None,
) -> RunEstimate:
    """The estimate of `config` with the model in a folder (None: not on this machine), for `rows`
    rows with these counts (core.tokens.counts). Raises nothing for a model that tells too little.
    """
    config = settle_devices(as_run(config), [one.label for one in hardware.devices])
    device = device_of(config, hardware)
    if model is None:
        return RunEstimate(device, None, _("not known until the model is fetched"))
    try:
        shape = read_shape(model)
    except (TunesmithError, OSError, ValueError) as error:
        why = _("the model cannot be read: {reason}", reason=str(error))
        return RunEstimate(device, None, why)
    if shape is None:
        return RunEstimate(device, None, _("the model's files do not tell its sizes"))
    lengths = (token_counts or {}).get("row_lengths") or ()
    situation = Situation(shape, device, hardware, rows, [(int(n), int(k)) for n, k in lengths])
    settled, chosen = situation.settled(config)
    memory = situation.memory(settled)
    return RunEstimate(device, memory, "", settled, chosen, situation)


def imagined(hardware: Hardware, text: str) -> Hardware:
    """This machine with a GPU of so much memory, such as `24GB`. Raises ConfigError."""
    match = _SIZE.fullmatch(text.strip())
    if not match or float(match[1]) <= 0:
        wrong = _("{text} is no amount of memory. Write it as 24GB.", text=text)
        raise ConfigError([Problem("device-memory", wrong)])
    size = int(float(match[1]) * _UNITS[(match[2] or "").lower()])
    gpu = Device("cuda", 0, _("a GPU with {memory:g} GB", memory=size / 1e9), size, size, 8.0)
    cpus = tuple(device for device in hardware.devices if device.kind == "cpu")
    return dataclasses.replace(hardware, devices=(gpu, *cpus), cpu_flags=CpuFlags(False, False))
