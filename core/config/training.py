"""The training itself. Names are those of transformers' TrainingArguments and TRL's SFTConfig."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator

from core.config.fields import Section, knob
from core.config.optimizers import OptimizerName, names_with
from core.config.schedules import SCHEDULES, ScheduleName
from core.methods import named

# Where a batch is padded.
PADDED: dict[str, list[Any]] = {"method": named(sorts_by_length=True)}
PACKING: dict[str, list[Any]] = {"method": named(packs=True)}


def _optim(trait: str) -> dict[str, list[Any]]:
    """`when` of a field that only the optimizers with a trait use."""
    return {"training.optim": names_with(trait)}


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
    """Longer rows are cut here; plain text (cpt, mlm) goes on in the next row instead. Longer needs
    more memory and time."""

    packing: bool = knob(False, "Pack short rows together", when=PACKING)
    """Fills each batch up to the longest row. Faster on short rows, with fewer and larger steps."""

    packing_strategy: Literal["bfd", "wrapped"] = knob(
        "bfd", "How rows are packed", when={**PACKING, "training.packing": [True]}
    )
    """Bfd (best fit) keeps each row whole and apart from the others. Wrapped wastes no token, but
    cuts rows where one is full and lets the model read on from one row into the next."""

    sft_loss_type: Literal["nll", "dft"] = knob("nll", "Loss of SFT", when={"method": ["sft"]})
    """Nll learns all tokens alike. Dft (dynamic fine-tuning) learns less from those that the model
    finds unlikely, which often generalises better; the eval loss stays the nll."""

    lr_scheduler_type: ScheduleName = knob(
        "cosine", "Schedule of the learning rate", group="Schedule"
    )
    """How the rate falls. Cosine and linear end near zero, which settles the model."""

    lr_scheduler_kwargs: dict[str, Any] = knob(
        {},
        "Arguments of the schedule",
        group="Schedule",
        when={"training.lr_scheduler_type": [x.name for x in SCHEDULES.values() if x.arguments]},
    )
    """By name, such as min_lr_rate: 0.1 for cosine_with_min_lr or num_decay_steps: 20 for
    warmup_stable_decay."""

    warmup_steps: float = knob(0.05, "Warm-up", group="Schedule", ge=0)
    """Steps over which the rate rises; below 1 it is a share of all steps. Avoids a bad start."""

    optim: OptimizerName = knob("adamw_torch_fused", "Optimizer", group="Optimizer")
    """How the weights are changed. AdamW is right nearly always; kinds with 8 bits need a quarter
    of its memory, Adafactor less still. GaLore, APOLLO and LOMO train whole models in little."""

    optim_args: dict[str, Any] = knob(
        {}, "Arguments of the optimizer", group="Optimizer", when=_optim("arguments")
    )
    """By name, such as momentum: 0.9 for sgd or rank: 64 for GaLore."""

    optim_target_modules: Literal["all-linear"] | list[str] = knob(
        "all-linear", "Layers to project", group="Optimizer", when=_optim("low_rank")
    )
    """The linear layers whose gradients GaLore or APOLLO projects: all, or parts of their names,
    such as attn and mlp. The others are trained by plain AdamW."""

    weight_decay: float = knob(
        0.0, "Weight decay", group="Optimizer", when=_optim("weight_decay"), ge=0, le=1
    )
    """Pulls the weights towards zero: overfits less, learns less."""

    adam_beta1: float = knob(
        0.9, "Adam beta 1", group="Optimizer", when=_optim("betas"), ge=0, lt=1
    )
    """How long AdamW remembers the direction. Higher is smoother and slower to turn."""

    adam_beta2: float = knob(
        0.999, "Adam beta 2", group="Optimizer", when=_optim("betas"), ge=0, lt=1
    )
    """How long AdamW remembers the size of gradients. 0.95 reacts faster in short runs."""

    adam_epsilon: float = knob(
        1e-8, "Adam epsilon", group="Optimizer", when=_optim("epsilon"), gt=0, le=1
    )
    """Keeps AdamW from dividing by zero. Larger calms very small gradients."""

    max_grad_norm: float = knob(
        1.0, "Clip gradients at", group="Optimizer", when=_optim("clips"), ge=0
    )
    """A gradient longer than this is shortened, so that one odd row does no harm. 0 never clips."""

    @field_validator("devices", mode="before")
    @classmethod
    def _as_text(cls, given: Any) -> Any:
        """YAML has 2 and [0, 1] for it too."""
        if isinstance(given, list | tuple):
            return ",".join(str(item) for item in given)
        return str(given) if isinstance(given, int) and not isinstance(given, bool) else given

    @field_validator("optim_args", mode="before")
    @classmethod
    def _read_as_transformers_writes(cls, given: Any) -> Any:
        """`rank=64, scale=0.5` is what TrainingArguments takes; a mapping says the same."""
        if not isinstance(given, str):
            return given
        pairs = [part.partition("=") for part in given.split(",") if part.strip()]
        return {name.strip(): yaml.safe_load(value) for name, _, value in pairs}

    precision: Literal["auto", "fp32", "fp16", "bf16"] = knob("auto", "Precision", group="Machine")
    """bf16 is fast and steady where the device has it; fp32 is exact and slow. Auto knows."""

    gradient_checkpointing: bool | Literal["auto"] = knob(
        "auto", "Gradient checkpointing", group="Machine"
    )
    """Computes part of each step twice to save memory: about a third slower. Auto uses it only
    when the memory is short."""

    on_out_of_memory: Literal["stop", "halve"] = knob(
        "stop", "When the memory runs out", group="Machine"
    )
    """Stop ends the run. Halve goes on from the last checkpoint with half the rows at once and
    twice the accumulation: each step learns from as many rows as before and takes longer."""

    device: str = knob(
        "auto", "Device", group="Machine", pattern=r"^(auto|cpu|mps|(cuda|xpu|npu)(:\d+)?)$"
    )
    """Such as cpu, cuda:0 or mps. Auto takes the first free accelerator, else the CPU."""

    devices: str = knob(
        "1", "How many devices", group="Machine", pattern=r"^(all|[1-9]\d{0,3}|\d+(,\d+)+)$"
    )
    """Train together, each on its share of every step's rows: a number, all, or cards by their
    numbers, such as 0,1. With the device cpu it is a number of processes that share the cores."""

    ray_address: str = knob(
        "",
        "Ray cluster",
        group="Machine",
        pattern=r"^(auto|(\[[0-9a-fA-F:.]+\]|[^\s/:\[\]]+):\d{1,5})?$",
        max_length=255,
    )
    """Where its head answers, such as 10.0.0.5:6379: the run waits for room there and trains on its
    nodes, which all have the workspace under the same path. Empty: on this machine."""

    ray_num_cpus: int = knob(1, "Cores on a node of the cluster", group="Machine", ge=1, le=1024)
    """How many the run takes there for itself. Beside a card one or two are enough; training on a
    CPU is faster with more."""

    ray_num_nodes: int = knob(1, "Nodes of the cluster", group="Machine", ge=1, le=1024)
    """So many machines of the cluster share the run, each with the devices and cores that are asked
    for. After each step they tell each other what they learned: the network has to be quick."""

    strategy: Literal["auto", "ddp", "fsdp", "zero1", "zero2", "zero3"] = knob(
        "auto", "How several devices share the model", group="Machine"
    )
    """With ddp each holds all of it, and auto is ddp. Fsdp and zero3 split the model, its gradients
    and what the optimizer remembers; zero2 the last two, zero1 the last. Zero is DeepSpeed's."""

    offload: bool = knob(
        False,
        "Keep the split parts in the machine's memory",
        group="Machine",
        when={"training.strategy": ["fsdp", "zero2", "zero3"]},
    )
    """The cards fetch them when they need them: slower, for models that do not fit otherwise."""

    deepspeed: str = knob(
        "",
        "Your own DeepSpeed settings",
        group="Machine",
        when={"training.strategy": ["zero1", "zero2", "zero3"]},
        max_length=4096,
    )
    """A file of JSON as DeepSpeed takes it, in place of ours. What it says of the stage of ZeRO and
    of offloading holds; batch sizes and precision that stand there on auto are this run's."""

    seed: int = knob(42, "Seed", group="Randomness", ge=0, le=4294967295)
    """The same seed, rows and settings give the same run."""

    data_seed: int | None = knob(None, "Seed of the row order", group="Randomness", ge=0)
    """Another order with the same initial weights. Empty follows the seed."""

    train_sampling_strategy: Literal["group_by_length", "random"] = knob(
        "group_by_length", "Order of the rows", group="Randomness", when=PADDED
    )
    """Each batch is padded to its longest row. With rows of like length in one batch little is
    wasted; a random order mixes them freely and takes longer."""

    neftune_noise_alpha: float | None = knob(
        None, "NEFTune noise", group="Randomness", ge=0, le=100
    )
    """Noise on the embeddings; 5 often gives fuller answers in chat. Empty adds none."""

    extra: dict[str, Any] = knob({}, "Further TRL settings", group="Further")
    """Any other field of the method's class in TRL (such as SFTConfig) by its own name, checked
    against that class."""
