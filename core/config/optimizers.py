"""Every optimizer that the installed transformers lists: what it is, takes and needs.

A test holds this list against transformers' own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from core.config.arguments import Argument
from core.language import N_, Said, _

WHOLE, REAL, SWITCH = Argument(int, minimum=1), Argument(float), Argument(bool)
SHARE = Argument(float, minimum=0, maximum=1)
MOMENTUM = Argument(float, minimum=0, below=1)
SMALL = Argument(float, minimum=0)
POSITIVE = Argument(float, above=0)
DTYPE = Argument(str, choices=("float32", "bfloat16", "float16"))

_SIDES = ("std", "reverse_std", "right", "left")
GALORE_ARGUMENTS = {
    "rank": WHOLE,
    "update_proj_gap": WHOLE,
    "scale": POSITIVE,
    "proj_type": Argument(str, choices=(*_SIDES, "full")),
}
APOLLO_ARGUMENTS = {
    "rank": WHOLE,
    "proj": Argument(str, choices=("random", "svd")),
    "scale_type": Argument(str, choices=("channel", "tensor")),
    "update_proj_gap": WHOLE,
    "scale": POSITIVE,
    "proj_type": Argument(str, choices=_SIDES),
}
ADEMAMIX_ARGUMENTS = {
    "beta3": MOMENTUM,
    "alpha": SMALL,
    "t_alpha": WHOLE,
    "t_beta3": WHOLE,
}
SCHEDULE_FREE_ARGUMENTS = {"weight_lr_power": REAL, "r": REAL}
TORCHAO_ARGUMENTS = {"block_size": WHOLE, "bf16_stochastic_round": SWITCH}
BNB_RMSPROP_ARGUMENTS = {
    "alpha": Argument(float, above=0, below=1),
    "eps": POSITIVE,
    "momentum": MOMENTUM,
}

# Where bitsandbytes has kernels for states of 8 bits.
_EIGHT_BIT = ("cuda", "xpu", "cpu")


@dataclass(frozen=True)
class Optimizer:
    """One optimizer of transformers' list.

    `extra` names what core.setup.extras installs for it, `module` a package that Tunesmith cannot
    install. `devices` are the kinds of devices it runs on (empty: all), `instead` what to take
    elsewhere. `betas` and `epsilon` tell whether AdamW's fields reach it. `low_rank` projects the
    gradients of chosen layers (optim_target_modules). `at_once` changes the weights during the
    backward pass, before all gradients are there. `full_only` makes sense only without an adapter.
    """

    name: str
    group: Said = Said()
    sentence: Said = Said()
    arguments: dict[str, Argument] = field(default_factory=dict)
    extra: str = ""
    module: str = ""
    devices: tuple[str, ...] = ()
    instead: str = "adamw_torch_fused"
    betas: bool = False
    epsilon: bool = False
    weight_decay: bool = True
    low_rank: bool = False
    at_once: bool = False
    full_only: bool = False
    schedule_free: bool = False
    compiles: bool = False

    @property
    def clips(self) -> bool:
        """Whether gradients can be clipped: all have to be there before the weights change."""
        return not self.at_once

    @property
    def label(self) -> str:
        """How a list names it: `AdamW: adamw_torch_fused`."""
        return _("{group}: {name}", group=self.group, name=self.name)


def _adamw(name: str, sentence: str, group: str = "AdamW", **more: object) -> Optimizer:
    base = Optimizer(name, group, sentence, betas=True, epsilon=True)
    return replace(base, **more)  # type: ignore[arg-type]


def _few_bits(name: str, sentence: str, **more: object) -> Optimizer:
    return _adamw(name, sentence, N_("AdamW in few bits"), **more)


def _galore(name: str, sentence: str, **more: object) -> Optimizer:
    base = Optimizer(
        name,
        "GaLore",
        sentence,
        GALORE_ARGUMENTS,
        extra="galore",
        weight_decay=False,
        low_rank=True,
        full_only=True,
        instead="galore_adamw",
    )
    return replace(base, **more)  # type: ignore[arg-type]


_ADAMW = (
    _adamw(
        "adamw_torch_fused",
        N_("AdamW in one quick step for all weights. Right nearly always."),
    ),
    _adamw(
        "adamw_torch", N_("The same AdamW, weight by weight: slower, and exact to compare with.")
    ),
    _adamw(
        "stable_adamw",
        N_("AdamW that shortens steps which are too large by itself; gradients need no clipping."),
        extra="optimi",
        arguments={"max_lr": POSITIVE, "kahan_sum": SWITCH, "decouple_lr": SWITCH},
    ),
    Optimizer(
        "grokadamw",
        "AdamW",
        N_(
            "AdamW that strengthens slowly changing gradients, for models that learn by heart "
            "first and understand late. Keeps one state more."
        ),
        {
            "alpha_init": SHARE,
            "lamb": SMALL,
            "gamma": SHARE,
            "grokking_signal_decay_rate": SMALL,
            "gradient_clipping": SMALL,
        },
        extra="grokadamw",
    ),
    _adamw(
        "adamw_anyprecision",
        N_(
            "AdamW with its states in bf16, from torchdistx, which has no builds for today's torch."
        ),
        arguments={
            "use_kahan_summation": SWITCH,
            "momentum_dtype": DTYPE,
            "variance_dtype": DTYPE,
            "compensation_buffer_dtype": DTYPE,
        },
        module="torchdistx",
    ),
    _adamw("adamw_torch_xla", N_("AdamW for TPUs, from torch_xla."), module="torch_xla"),
    _adamw(
        "adamw_torch_npu_fused", N_("AdamW for Ascend NPUs, from torch_npu."), module="torch_npu"
    ),
)
_FEW_BITS = (
    _few_bits(
        "adamw_8bit",
        N_("AdamW with its states in 8 bits, a quarter of the memory, from bitsandbytes."),
        devices=_EIGHT_BIT,
    ),
    _few_bits("adamw_bnb_8bit", N_("Another name of adamw_8bit."), devices=_EIGHT_BIT),
    _few_bits(
        "paged_adamw_8bit",
        N_(
            "AdamW in 8 bits whose states move out of a GPU that is short of memory; what QLoRA "
            "used."
        ),
        devices=_EIGHT_BIT,
    ),
    _few_bits(
        "paged_adamw_32bit",
        N_("AdamW at full accuracy whose states move out of a GPU that is short of memory."),
    ),
    _few_bits(
        "adamw_torch_8bit",
        N_(
            "AdamW with states of 8 bits from torchao. It compiles itself first, which takes a "
            "minute."
        ),
        arguments=TORCHAO_ARGUMENTS,
        extra="torchao",
        compiles=True,
        instead="adamw_8bit",
    ),
    _few_bits(
        "adamw_torch_4bit",
        N_("AdamW with states of 4 bits from torchao: the least memory of an AdamW, and coarser."),
        arguments=TORCHAO_ARGUMENTS,
        extra="torchao",
        compiles=True,
        instead="adamw_8bit",
    ),
)


_MIX_AND_LION = (
    (
        "ademamix",
        N_("AdEMAMix: AdamW with a second, long memory of the direction; suits long runs."),
        "ademamix_8bit",
        N_(
            "AdEMAMix: AdamW with a second, long memory of the direction; suits long runs; "
            "states in 8 bits."
        ),
    ),
    (
        "paged_ademamix_32bit",
        N_("AdEMAMix whose states move out of a GPU that is short of memory."),
        "paged_ademamix_8bit",
        N_("AdEMAMix whose states move out of a GPU that is short of memory; states in 8 bits."),
    ),
    (
        "lion_32bit",
        N_("Lion: steps of one size by the sign of the momentum; take a third of AdamW's rate."),
        "lion_8bit",
        N_(
            "Lion: steps of one size by the sign of the momentum; take a third of AdamW's rate; "
            "states in 8 bits."
        ),
    ),
    (
        "paged_lion_32bit",
        N_("Lion whose states move out of a GPU that is short of memory."),
        "paged_lion_8bit",
        N_("Lion whose states move out of a GPU that is short of memory; states in 8 bits."),
    ),
)


def _bitsandbytes() -> tuple[Optimizer, ...]:
    """AdEMAMix and Lion: each in 32 and 8 bits, and paged."""
    found = []
    for name, sentence, narrow, in_8_bits in _MIX_AND_LION:
        if "lion" in name:
            wide = Optimizer(name, "Lion", sentence, betas=True, instead=name)
        else:
            wide = _adamw(name, sentence, "AdEMAMix", arguments=ADEMAMIX_ARGUMENTS, instead=name)
        found += [wide, replace(wide, name=narrow, sentence=in_8_bits, devices=_EIGHT_BIT)]
    return tuple(found)


_LESS_MEMORY = (
    Optimizer(
        "adafactor",
        "Adafactor",
        N_(
            "Keeps row and column sums instead of a state for each weight: nearly no memory of its "
            "own. The learning rate is the one you set."
        ),
    ),
    _galore(
        "galore_adamw",
        N_(
            "Full training by AdamW on gradients that are projected to a low rank: the optimizer's "
            "memory of a small adapter."
        ),
        instead="adamw_torch_fused",
    ),
    _galore("galore_adamw_8bit", N_("GaLore with AdamW's states in 8 bits."), devices=("cuda",)),
    _galore("galore_adafactor", N_("GaLore with Adafactor, which keeps still less.")),
    _galore(
        "galore_adamw_layerwise",
        N_("GaLore that changes each layer as soon as its gradient is there and keeps no others."),
        at_once=True,
    ),
    _galore(
        "galore_adamw_8bit_layerwise",
        N_("GaLore in 8 bits, layer by layer."),
        devices=("cuda",),
        at_once=True,
        instead="galore_adamw_layerwise",
    ),
    _galore(
        "galore_adafactor_layerwise", N_("GaLore with Adafactor, layer by layer."), at_once=True
    ),
    Optimizer(
        "apollo_adamw",
        "APOLLO",
        N_(
            "Full training with AdamW's steps guessed from a few random projections: nearly the "
            "memory of SGD. With rank 1, scale 128 and scale_type tensor it is APOLLO-Mini."
        ),
        APOLLO_ARGUMENTS,
        extra="apollo",
        betas=True,
        epsilon=True,
        weight_decay=False,
        low_rank=True,
        full_only=True,
    ),
    Optimizer(
        "apollo_adamw_layerwise",
        "APOLLO",
        N_("APOLLO that changes each layer as soon as its gradient is there and keeps no others."),
        APOLLO_ARGUMENTS,
        extra="apollo",
        betas=True,
        epsilon=True,
        weight_decay=False,
        low_rank=True,
        at_once=True,
        full_only=True,
    ),
    Optimizer(
        "lomo",
        "LOMO",
        N_(
            "Full training by SGD that changes the weights during the backward pass: no gradients "
            "and no states are kept."
        ),
        extra="lomo",
        at_once=True,
        full_only=True,
    ),
    Optimizer(
        "adalomo",
        "LOMO",
        N_(
            "LOMO with Adafactor's adaptive steps: learns like AdamW, with hardly more memory than "
            "the weights."
        ),
        extra="lomo",
        devices=("cuda",),
        at_once=True,
        full_only=True,
        instead="lomo",
    ),
)
_SCHEDULE_FREE = (
    _adamw(
        "schedule_free_adamw",
        N_(
            "AdamW that averages its weights instead of lowering the rate: needs no planned end. "
            "It warms up by itself."
        ),
        N_("Schedule-free"),
        arguments=SCHEDULE_FREE_ARGUMENTS,
        extra="schedulefree",
        schedule_free=True,
    ),
    _adamw(
        "schedule_free_radam",
        N_("Schedule-free RAdam, which needs no warm-up either."),
        N_("Schedule-free"),
        arguments=SCHEDULE_FREE_ARGUMENTS,
        extra="schedulefree",
        schedule_free=True,
    ),
    Optimizer(
        "schedule_free_sgd",
        N_("Schedule-free"),
        N_("Schedule-free SGD; needs a far higher rate than AdamW, such as 1."),
        SCHEDULE_FREE_ARGUMENTS,
        extra="schedulefree",
        schedule_free=True,
    ),
)
_PLAIN = (
    Optimizer(
        "sgd",
        N_("Plain"),
        N_("A step along the gradient. No states without momentum, and slow on language models."),
        {"momentum": MOMENTUM, "dampening": SHARE, "nesterov": SWITCH},
    ),
    Optimizer(
        "adagrad",
        N_("Plain"),
        N_("Smaller and smaller steps for weights that changed often."),
        {"lr_decay": SMALL, "eps": SMALL},
    ),
    Optimizer(
        "rmsprop",
        N_("Plain"),
        N_("Steps divided by the recent size of the gradients; AdamW without its momentum."),
        {
            "momentum": MOMENTUM,
            "alpha": Argument(float, minimum=0, below=1),
            "eps": SMALL,
            "centered": SWITCH,
        },
    ),
    Optimizer(
        "rmsprop_bnb",
        N_("Plain"),
        N_("RMSprop from bitsandbytes, in 32 bits."),
        BNB_RMSPROP_ARGUMENTS,
    ),
    Optimizer(
        "rmsprop_bnb_32bit", N_("Plain"), N_("Another name of rmsprop_bnb."), BNB_RMSPROP_ARGUMENTS
    ),
    Optimizer(
        "rmsprop_bnb_8bit",
        N_("Plain"),
        N_("RMSprop with its state in 8 bits, from bitsandbytes."),
        BNB_RMSPROP_ARGUMENTS,
        devices=_EIGHT_BIT,
        instead="rmsprop",
    ),
)

OPTIMIZERS: dict[str, Optimizer] = {
    optimizer.name: optimizer
    for optimizer in (
        *_ADAMW,
        *_FEW_BITS,
        *_LESS_MEMORY,
        *_SCHEDULE_FREE,
        *_bitsandbytes(),
        *_PLAIN,
    )
}
if TYPE_CHECKING:
    OptimizerName: TypeAlias = str
else:
    OptimizerName = Literal[tuple(OPTIMIZERS)]


def names_with(trait: str) -> list[str]:
    """The optimizers for which a trait holds, such as betas: what `when` of a field takes."""
    return [name for name, optimizer in OPTIMIZERS.items() if getattr(optimizer, trait)]
