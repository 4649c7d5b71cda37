"""What `auto` becomes in a run, each with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from core.config import RunConfig
from core.models.inference import pick_device

# Rows at once that auto does not exceed: more only smooths, at the price of fewer steps.
_MOST_ROWS = {"cpu": 8, "mps": 8, "cuda": 16}
# The share of the free memory that weights, optimizer and activations may take by the estimate.
_USABLE = 0.75
_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
DTYPE_NAMES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Choice:
    """What was chosen for a setting on `auto` (a dotted path), and why."""

    field: str
    value: Any
    reason: str

    def __str__(self) -> str:
        return f"{self.field.rpartition('.')[2]}: {self.value} ({self.reason})"


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
        kind, reason = "cpu", "no GPU can be used here"
    elif kind == "cuda":
        reason = torch.cuda.get_device_name(0)
    elif wanted == "auto":
        reason = "no accelerator was found" if kind == "cpu" else "the accelerator that is there"
    else:
        reason = "as set"
    return Choice("training.device", kind, reason)


def choose_precision(config: RunConfig, device: str) -> list[Choice]:
    """The fastest precision that the device computes in without loss of steadiness, and with it
    the type in which the unpacked weights of a 4-bit base are multiplied."""
    if device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            value, reason = "bf16", "this GPU computes in bf16"
        else:
            value, reason = "fp16", "this GPU is older than bf16"
    elif device == "cpu" and _cpu_bf16():
        value, reason = "bf16", f"this CPU has {_cpu_bf16()}"
    elif device == "cpu":
        value, reason = "fp32", "this CPU has no bf16 instructions"
    else:
        value, reason = "fp32", f"the safe choice on {device}"
    found = [Choice("training.precision", value, reason)]
    if config.adapter.quantization in ("nf4", "fp4"):
        wanted = config.training.precision
        name = DTYPE_NAMES[value if wanted == "auto" else wanted]
        found.append(Choice("adapter.bnb_4bit_compute_dtype", name, "follows the precision"))
    return found


def _cpu_bf16() -> str:
    """The instructions with which this CPU multiplies bf16; empty when it has none."""
    if torch.cpu._is_amx_tile_supported():
        return "AMX"
    return "AVX-512 BF16" if torch.cpu._is_avx512_bf16_supported() else ""


@dataclass(frozen=True)
class Need:
    """An estimate of what a run takes, in bytes: `fixed` whatever the batch, the rest a token.

    `a_token` is with every activation kept, `a_token_checkpointed` with the layers' inputs only.
    """

    fixed: int
    a_token: int
    a_token_checkpointed: int

    def total(self, tokens: int, checkpointing: bool) -> int:
        """Bytes for a batch of so many tokens."""
        return self.fixed + tokens * (self.a_token_checkpointed if checkpointing else self.a_token)


def estimate_need(model: Any, run: RunConfig) -> Need:
    """What training `model` takes, by its sizes.

    Counted per layer and token: 18 vectors of the hidden size and 5 of the feed-forward one, in
    the precision; measured on SmolLM2 135M it was 17 and 5. AdamW holds 8 bytes for each trained
    weight, its gradient and its 32-bit copy 8 more.
    """
    config, size = model.config.get_text_config(), _BYTES[run.training.precision]
    is_lora = run.adapter.method == "lora"
    hidden, layers = config.hidden_size, config.num_hidden_layers
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    # An adapter is about a hundredth of its base; the exact number needs PEFT around the model.
    trained = model.num_parameters() * (0.02 if is_lora else 1.0)
    layer = (18 * hidden + 5 * inner) * size
    return Need(
        fixed=int(weights + trained * (16 if is_lora else 12)),
        a_token=layers * layer,
        a_token_checkpointed=layers * hidden * size + layer,
    )


def free_bytes(device: str) -> int:
    """Memory that is free on the device now; with the CPU the machine's."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)


def choose_batch(
    config: RunConfig, need: Need, lengths: Sequence[int], *, device: str, free: int
) -> list[Choice]:
    """Batch size and gradient checkpointing, those of the two that are on auto.

    `lengths` are the rows' lengths in tokens; the longest decide. All activations are kept where
    a batch of four rows (or the one that was set) fits; else they are computed twice.
    """
    training = config.training
    longest = sorted(lengths, reverse=True)
    room = int(free * _USABLE)
    most = min(_MOST_ROWS.get(device, 8), max(1, len(longest)))

    def fits(rows: int, checkpointing: bool) -> bool:
        return need.total(_tokens(longest, rows), checkpointing) <= room

    def largest(checkpointing: bool) -> int:
        rows = most
        while rows > 1 and not fits(rows, checkpointing):
            rows //= 2
        return rows

    wanted = training.per_device_train_batch_size
    checkpointing = training.gradient_checkpointing
    if checkpointing == "auto":
        enough = min(4, most) if wanted == "auto" else int(wanted)
        checkpointing = not fits(enough, False)
    rows = largest(bool(checkpointing)) if wanted == "auto" else int(wanted)
    bytes_needed = need.total(_tokens(longest, rows), bool(checkpointing))
    estimate = f"about {bytes_needed / 1e9:.1f} GB of {free / 1e9:.1f} GB free"
    found = []
    if training.gradient_checkpointing == "auto":
        why = "the activations would not fit" if checkpointing else "the activations fit"
        reason = f"{why}: {estimate}"
        found.append(Choice("training.gradient_checkpointing", checkpointing, reason))
    if wanted == "auto":
        found.append(Choice("training.per_device_train_batch_size", rows, estimate))
    return found


def _tokens(longest: Sequence[int], rows: int) -> int:
    """Tokens in a batch of the longest rows, which stand first."""
    if not longest:
        return 0
    known = list(longest[:rows])
    return sum(known) + (rows - len(known)) * known[0]
