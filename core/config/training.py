"""The training itself. Names are those of transformers' TrainingArguments and TRL's SFTConfig."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from core.config.fields import Section, knob


class TrainingSection(Section):
    """How the model learns."""

    learning_rate: float = knob(2e-4, "Learning rate", level="basic", gt=0, le=1)
    """Higher learns faster and forgets more; too high and the loss jumps. 1e-4 to 5e-4 suit LoRA,
    1e-5 to 5e-5 full fine-tuning."""

    num_train_epochs: float = knob(3.0, "Epochs", level="basic", gt=0, le=1000)
    """Times through all rows. More learns the rows better and, past a point, by heart."""

    max_steps: int = knob(-1, "Stop after", unit="steps", ge=-1)
    """Ends the run after so many optimizer steps, whatever the epochs say. -1 goes by epochs."""

    # The bounds stand on the number alone: pydantic would hold them against the word auto too.
    per_device_train_batch_size: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] = knob(
        "auto", "Rows at once (batch size)", level="basic"
    )
    """Larger is steadier and needs more memory. Auto takes what fits."""

    gradient_accumulation_steps: int = knob(1, "Gradient accumulation", ge=1, le=4096)
    """Adds up so many batches before each step: the effect of a large batch without its memory."""

    max_length: int = knob(512, "Longest row", level="basic", unit="tokens", ge=8, le=1048576)
    """Longer rows are cut here. Longer needs more memory and time."""

    packing: bool = knob(False, "Pack short rows together")
    """Fills each batch up to the longest row. Faster on short rows, with fewer and larger steps."""

    lr_scheduler_type: Literal[
        "linear",
        "cosine",
        "constant",
        "constant_with_warmup",
        "cosine_with_restarts",
        "cosine_with_min_lr",
        "polynomial",
        "inverse_sqrt",
        "warmup_stable_decay",
        "reduce_lr_on_plateau",
    ] = knob("cosine", "Schedule of the learning rate", group="Schedule")
    """How the rate falls. Cosine and linear end near zero, which settles the model."""

    lr_scheduler_kwargs: dict[str, Any] = knob({}, "Arguments of the schedule", group="Schedule")
    """Such as num_cycles for cosine_with_restarts or min_lr for cosine_with_min_lr."""

    warmup_steps: float = knob(0.05, "Warm-up", group="Schedule", ge=0)
    """Steps over which the rate rises; below 1 it is a share of all steps. Avoids a bad start."""

    optim: Literal[
        "adamw_torch",
        "adamw_torch_fused",
        "adafactor",
        "sgd",
        "adagrad",
        "rmsprop",
        "adamw_8bit",
        "paged_adamw_8bit",
        "paged_adamw_32bit",
        "lion_8bit",
        "lion_32bit",
    ] = knob("adamw_torch_fused", "Optimizer", group="Optimizer")
    """AdamW is right nearly always. The 8-bit kinds need a quarter of its memory; Adafactor needs
    less still."""

    weight_decay: float = knob(0.0, "Weight decay", group="Optimizer", ge=0, le=1)
    """Pulls the weights towards zero: overfits less, learns less."""

    adam_beta1: float = knob(0.9, "Adam beta 1", group="Optimizer", ge=0, lt=1)
    """How long AdamW remembers the direction. Higher is smoother and slower to turn."""

    adam_beta2: float = knob(0.999, "Adam beta 2", group="Optimizer", ge=0, lt=1)
    """How long AdamW remembers the size of gradients. 0.95 reacts faster in short runs."""

    adam_epsilon: float = knob(1e-8, "Adam epsilon", group="Optimizer", gt=0, le=1)
    """Keeps AdamW from dividing by zero. Larger calms very small gradients."""

    max_grad_norm: float = knob(1.0, "Clip gradients at", group="Optimizer", ge=0)
    """A gradient longer than this is shortened, so that one odd row does no harm. 0 never clips."""

    precision: Literal["auto", "fp32", "fp16", "bf16"] = knob("auto", "Precision", group="Machine")
    """bf16 is fast and steady where the device has it; fp32 is exact and slow. Auto knows."""

    gradient_checkpointing: bool | Literal["auto"] = knob(
        "auto", "Gradient checkpointing", group="Machine"
    )
    """Computes part of each step twice to save memory: about a third slower. Auto uses it only
    when the memory is short."""

    device: str = knob(
        "auto", "Device", group="Machine", pattern=r"^(auto|cpu|mps|(cuda|xpu|npu)(:\d+)?)$"
    )
    """Such as cpu, cuda:0 or mps. Auto takes the first free accelerator, else the CPU."""

    seed: int = knob(42, "Seed", group="Randomness", ge=0, le=4294967295)
    """The same seed, rows and settings give the same run."""

    data_seed: int | None = knob(None, "Seed of the row order", group="Randomness", ge=0)
    """Another order with the same initial weights. Empty follows the seed."""

    neftune_noise_alpha: float | None = knob(
        None, "NEFTune noise", group="Randomness", ge=0, le=100
    )
    """Noise on the embeddings; 5 often gives fuller answers in chat. Empty adds none."""

    extra: dict[str, Any] = knob({}, "Further TRL settings", group="Further")
    """Any other field of TRL's SFTConfig by its own name, checked against that class."""
