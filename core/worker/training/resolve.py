"""What `auto` becomes in a run, each with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from core.config import RunConfig
from core.estimate.auto import USABLE, choose_rows, with_values
from core.estimate.memory import estimate_memory
from core.estimate.sizes import ModelShape, largest_batch, shape_of
from core.language import _
from core.models.describe import facts_of
from core.worker.models.loading import pick_device, precision_on
from core.worker.training.attention import NAME as ROW_ATTENTION

_BATCH = "training.per_device_train_batch_size"
DTYPE_NAMES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Choice:
    """What was chosen for a setting on `auto` (a dotted path), and why."""

    field: str
    value: Any
    reason: str

    def __str__(self) -> str:
        name = self.field.rpartition(".")[2]
        return _("{name}: {value} ({reason})", name=name, value=self.value, reason=self.reason)


def with_choices(config: RunConfig, choices: Sequence[Choice]) -> RunConfig:
    """A copy of `config` with the choices in it."""
    changed = config.model_copy(deep=True)
    for choice in choices:
        section, _, name = choice.field.partition(".")
        setattr(getattr(changed, section), name, choice.value)
    return changed


def choose_device(config: RunConfig) -> Choice:
    """Where the run trains. A worker sees no other accelerator than the one it was given."""
    wanted = config.training.device
    device = pick_device() if wanted == "auto" else wanted
    kind = device.partition(":")[0]
    if kind == "cuda" and not torch.cuda.is_available():
        kind, reason = "cpu", _("no GPU can be used here")
    elif kind == "cuda":
        reason = torch.cuda.get_device_name(0)
    elif wanted == "auto":
        reason = (
            _("no accelerator was found") if kind == "cpu" else _("the accelerator that is there")
        )
    else:
        reason = _("as set")
    return Choice("training.device", kind, reason)


def choose_precision(config: RunConfig, device: str) -> list[Choice]:
    """The fastest precision that the device computes in without loss of steadiness, and with it
    the type in which the unpacked weights of a 4-bit base are multiplied."""
    value, reason = precision_on(device)
    found = [Choice("training.precision", value, reason)]
    if config.adapter.quantization in ("nf4", "fp4"):
        wanted = config.training.precision
        name = DTYPE_NAMES[value if wanted == "auto" else wanted]
        found.append(Choice("adapter.bnb_4bit_compute_dtype", name, _("follows the precision")))
    return found


@dataclass(frozen=True)
class Need:
    """What training a model takes, by the arithmetic of `core.estimate`.

    `no_padding` says whether rows stand behind each other.
    """

    shape: ModelShape
    config: RunConfig
    device: str
    no_padding: bool

    def total(self, lengths: Sequence[int], rows: int, checkpointing: bool) -> int:
        """Bytes for a batch of `rows` rows, the longest of those with these lengths in tokens (a
        pair's are those of both sides)."""
        sides = 2 if self.config.training_method.is_paired else 1
        config = with_values(
            self.config, {"training.gradient_checkpointing": checkpointing, _BATCH: rows}
        )
        each = [length // sides for length in lengths[:rows]]
        if not self.config.training_method.generates:  # there each prompt stands several times
            rows = min(rows, len(each) or rows)
        batch = largest_batch(config, rows, each, no_padding=self.no_padding)
        return estimate_memory(self.shape, config, batch, device=self.device).total


def estimate_need(model: Any, run: RunConfig) -> Need | None:
    """What training `model` takes, by its sizes; None where they are not known."""
    shapes: dict[str, tuple[int, ...]] = {}
    seen: set[int] = set()
    for name, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            # What is quantized is packed: its layer knows the shape.
            is_layer = own == "weight" and hasattr(module, "in_features")
            shape = (module.out_features, module.in_features) if is_layer else parameter.shape
            shapes[f"{name}.{own}"] = tuple(shape)
    config = model.config.to_dict()
    dtype = str(model.dtype).removeprefix("torch.")
    facts = facts_of(type(model).__name__, config | {"dtype": dtype}, shapes, dtype)
    shape = shape_of(facts, config)
    if shape is None:
        return None
    without_padding = (ROW_ATTENTION, "flash_attention_2")
    attention = model.config._attn_implementation
    unpadded = run.training_method.without_padding and attention in without_padding
    kind = run.training.device.partition(":")[0]
    return Need(shape, run, kind if kind in ("cuda", "mps") else "cpu", unpadded)


def free_bytes(device: str, processes: int = 1) -> int:
    """Memory that this process may take in all: what is free now, and what it holds already; with
    the CPU its share of the machine's."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0]) + int(torch.cuda.memory_reserved())
    return int(psutil.virtual_memory().available // processes + psutil.Process().memory_info().rss)


def choose_batch(
    config: RunConfig, need: Need | None, lengths: Sequence[int], *, device: str, free: int
) -> list[Choice]:
    """Batch size and gradient checkpointing, those of the two that are on auto.

    `lengths` are the rows' lengths in tokens; the longest decide. All activations are kept where
    a batch of four rows (or the one that was set) fits; else they are computed twice. Of a model
    whose sizes are not known (`need` is None) one row at a time is taken.
    """
    training = config.training
    longest = sorted(lengths, reverse=True)

    def total(rows: int, checkpointing: bool) -> int:
        return need.total(longest, rows, checkpointing) if need else 0

    if need is None:
        wanted = training.per_device_train_batch_size
        rows = 1 if wanted == "auto" else int(wanted)
        checkpointing = training.gradient_checkpointing in (True, "auto")
        estimate = _("the model's sizes are not known")
    else:
        room = int(free * USABLE)
        rows, checkpointing = choose_rows(
            config, total, device=device, room=room, rows=len(longest)
        )
        needed = total(rows, checkpointing)
        estimate = _(
            "about {needed:.1f} GB of {free:.1f} GB free",
            needed=needed / 1e9,
            free=free / 1e9,
        )
    found = []
    if training.gradient_checkpointing == "auto":
        if need is None:
            reason = estimate
        elif checkpointing:
            reason = _("the activations would not fit: {estimate}", estimate=estimate)
        else:
            reason = _("the activations fit: {estimate}", estimate=estimate)
        found.append(Choice("training.gradient_checkpointing", checkpointing, reason))
    if training.per_device_train_batch_size == "auto":
        found.append(Choice(_BATCH, rows, estimate))
    return found
