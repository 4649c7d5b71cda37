"""Which settings of an adapter do not go together, and why."""

from __future__ import annotations

import re
from collections.abc import Iterator

from core.config import RunConfig
from core.config.adapter import FROM_BASE, TUNERS
from core.errors import Problem
from core.language import N_, _

# Why virtual tokens do not go with a method, by what it makes.
_NO_VIRTUAL_TOKENS = {
    "classifier": N_("a label is read at a place of the text that they move"),
    "scorer": N_("a reward is read at a place of the text that they move"),
    "filler": N_("an encoder is not asked with them"),
    "writer": N_("its trainer does not know that they stand before the text"),
}
# Optimizers that sort the weights themselves, so that LoRA+ cannot give them two rates.
_OWN_GROUPS = ("galore", "apollo", "lomo", "adalomo", "muon", "dion")


def adapter_rules(config: RunConfig) -> Iterator[Problem]:
    """Every broken rule of `adapter`."""
    adapter = config.adapter
    if adapter.quantization != "none" and not adapter.is_adapter:
        yield Problem(
            "adapter.quantization",
            _(
                "{quantization} with adapter.method {method}: quantized weights cannot be "
                "trained themselves. Train LoRA, or set quantization to none.",
                quantization=adapter.quantization,
                method=adapter.method,
            ),
            ("adapter.method",),
        )
    if adapter.method in TUNERS:
        yield from _module_rules(config)
        yield from _quantized_rules(config)
    if adapter.method in ("lora", "loha", "lokr"):
        yield from _pattern_rules(config)
    if adapter.method == "lora":
        yield from _beginning_rules(config)
        yield from _two_rates_rules(config)
    elif adapter.method == "adalora":
        yield from _rank_rules(config)
    elif adapter.method == "freeze":
        yield from _freeze_rules(config)
    elif adapter.is_prompt:
        yield from _prompt_rules(config)


def _module_rules(config: RunConfig) -> Iterator[Problem]:
    adapter = config.adapter
    if isinstance(adapter.target_modules, list) and not adapter.target_modules:
        yield Problem(
            "adapter.target_modules",
            _(
                "empty with adapter.method {method}: there would be nothing to train. Name "
                "modules, or use all-linear.",
                method=adapter.method,
            ),
            ("adapter.method",),
        )
    chooses = adapter.method not in ("ia3", "adalora") and adapter.layers_to_transform
    if chooses and isinstance(adapter.target_modules, str):
        yield Problem(
            "adapter.layers_to_transform",
            _(
                "layers with adapter.target_modules all-linear: PEFT wants the modules named, "
                "such as q_proj and v_proj."
            ),
            ("adapter.target_modules",),
        )


def _pattern_rules(config: RunConfig) -> Iterator[Problem]:
    adapter = config.adapter
    for name, patterns in (
        ("rank_pattern", adapter.rank_pattern),
        ("alpha_pattern", adapter.alpha_pattern),
    ):
        for pattern, value in patterns.items():
            try:
                re.compile(pattern)
            except (re.error, RecursionError, OverflowError) as error:
                why = _(
                    "{pattern} is no name and no regular expression: {error}.",
                    pattern=pattern,
                    error=str(error),
                )
                yield Problem(f"adapter.{name}", why)
            if value < 1:
                yield Problem(
                    f"adapter.{name}",
                    _("{value} for {pattern} is not 1 or more.", value=value, pattern=pattern),
                )


def _quantized_rules(config: RunConfig) -> Iterator[Problem]:
    """Kinds that PEFT cannot put on a base of few bits."""
    adapter = config.adapter
    if adapter.method in ("loha", "lokr") and adapter.quantization in ("nf4", "fp4"):
        yield Problem(
            "adapter.quantization",
            _(
                "{quantization} with adapter.method {method}: PEFT takes the shape of its "
                "products from weights that are packed here. Use int8 or none, or train LoRA.",
                quantization=adapter.quantization,
                method=adapter.method,
            ),
            ("adapter.method",),
        )
    if adapter.method == "lora" and adapter.use_dora and adapter.quantization == "int8":
        yield Problem(
            "adapter.use_dora",
            _(
                "DoRA with adapter.quantization int8: it measures the weights before "
                "bitsandbytes has given out their scales. Use nf4 or none."
            ),
            ("adapter.quantization",),
        )


def _beginning_rules(config: RunConfig) -> Iterator[Problem]:
    """Initial weights that ask something of the base, the device or the rows."""
    adapter = config.adapter
    begin = adapter.init_lora_weights
    if begin == "eva" and config.training_method.generates:
        yield Problem(
            "adapter.init_lora_weights",
            _(
                "eva with method {method}: it looks at finished rows, and here the model writes "
                "its own. Use default.",
                method=config.method,
            ),
            ("method",),
        )
    if begin in FROM_BASE:
        yield from _taken_from_base_rules(config)
    if begin == "loftq" and config.training.device in ("cpu", "mps"):
        yield Problem(
            "adapter.init_lora_weights",
            _(
                "loftq with training.device {device}: PEFT computes it on a GPU alone. Use "
                "pissa, or train on a GPU.",
                device=config.training.device,
            ),
            ("training.device",),
        )


def _taken_from_base_rules(config: RunConfig) -> Iterator[Problem]:
    adapter = config.adapter
    begin = adapter.init_lora_weights
    if adapter.use_dora:
        yield Problem(
            "adapter.init_lora_weights",
            _("{begin} with adapter.use_dora: choose one of the two.", begin=begin),
            ("adapter.use_dora",),
        )
    if adapter.quantization != "none":
        yield Problem(
            "adapter.init_lora_weights",
            _(
                "{begin} with adapter.quantization {quantization}: it changes the base weights, "
                "which are quantized. Use default.",
                begin=begin,
                quantization=adapter.quantization,
            ),
            ("adapter.quantization",),
        )
    if adapter.use_rslora and (adapter.rank_pattern or adapter.alpha_pattern):
        yield Problem(
            "adapter.use_rslora",
            _(
                "rank-stabilised LoRA with adapter.init_lora_weights {begin} and ranks or alphas "
                "of single modules: PEFT cannot write such an adapter for the base as it is. "
                "Give up one of them.",
                begin=begin,
            ),
            ("adapter.init_lora_weights", "adapter.rank_pattern", "adapter.alpha_pattern"),
        )
    if adapter.bias != "none":
        yield Problem(
            "adapter.bias",
            _(
                "{bias} with adapter.init_lora_weights {begin}: PEFT cannot write such an "
                "adapter for the base as it is. Set it to none.",
                bias=adapter.bias,
                begin=begin,
            ),
            ("adapter.init_lora_weights",),
        )
    if config.model.from_run and config.model.start_from == "continue":
        yield Problem(
            "adapter.init_lora_weights",
            _(
                "{begin} with model.start_from continue: it takes a part out of the base, on "
                "which the adapter to go on with stands whole. Use default.",
                begin=begin,
            ),
            ("model.start_from",),
        )


def _two_rates_rules(config: RunConfig) -> Iterator[Problem]:
    adapter, optim = config.adapter, str(config.training.optim)
    if adapter.loraplus_lr_ratio is not None and optim.startswith(_OWN_GROUPS):
        yield Problem(
            "adapter.loraplus_lr_ratio",
            _(
                "LoRA+ with training.optim {optim}, which sorts the weights in its own way. Take "
                "an AdamW, or leave the ratio empty.",
                optim=optim,
            ),
            ("training.optim",),
        )


def _rank_rules(config: RunConfig) -> Iterator[Problem]:
    adapter, training = config.adapter, config.training
    if adapter.target_r >= adapter.init_r:
        yield Problem(
            "adapter.target_r",
            _(
                "{target_r} is not below adapter.init_r ({init_r}): no rank would be taken away.",
                target_r=adapter.target_r,
                init_r=adapter.init_r,
            ),
            ("adapter.init_r",),
        )
    steps = adapter.tinit + adapter.tfinal
    if 0 < training.max_steps <= steps:
        yield Problem(
            "adapter.tinit",
            _(
                "tinit and tfinal take {steps} steps of training.max_steps ({max_steps}): none "
                "is left in which ranks fall.",
                steps=steps,
                max_steps=training.max_steps,
            ),
            ("adapter.tfinal", "training.max_steps"),
        )


def _freeze_rules(config: RunConfig) -> Iterator[Problem]:
    adapter = config.adapter
    inside = adapter.freeze_trainable_layers != 0 and adapter.freeze_trainable_modules
    if not inside and not adapter.freeze_extra_modules:
        yield Problem(
            "adapter.freeze_trainable_layers",
            _(
                "no layer, or no module of it, and no adapter.freeze_extra_modules: there would "
                "be nothing to train. Train the last 2 layers, or name modules."
            ),
            ("adapter.freeze_trainable_modules", "adapter.freeze_extra_modules"),
        )


def _prompt_rules(config: RunConfig) -> Iterator[Problem]:
    adapter, training = config.adapter, config.training
    kind: str = adapter.method
    method = config.training_method
    if not method.takes_virtual_tokens:
        why = _NO_VIRTUAL_TOKENS[method.makes]
        yield Problem(
            "adapter.method",
            _(
                "{kind} with method {method}: virtual tokens do not go with it, for {why}. Train "
                "LoRA.",
                kind=kind,
                method=config.method,
                why=why,
            ),
            ("method",),
        )
    if method.packs and training.packing:
        yield Problem(
            "training.packing",
            _(
                "packing with adapter.method {kind}: virtual tokens stand once before each row, "
                "not before each text in it. Turn packing off.",
                kind=kind,
            ),
            ("adapter.method",),
        )
    if kind == "prefix_tuning" and training.gradient_checkpointing is True:
        yield Problem(
            "training.gradient_checkpointing",
            _(
                "on with adapter.method prefix_tuning: what the prefix puts into the cache "
                "cannot be computed twice. Turn it off, or set it to auto."
            ),
            ("adapter.method",),
        )
    if (
        kind == "prompt_tuning"
        and adapter.prompt_tuning_init == "TEXT"
        and not adapter.prompt_tuning_init_text.strip()
    ):
        yield Problem(
            "adapter.prompt_tuning_init_text",
            _(
                "empty with adapter.prompt_tuning_init TEXT. Write an instruction, or begin with "
                "RANDOM."
            ),
            ("adapter.prompt_tuning_init",),
        )
