"""The adapter of a run by PEFT's own names. Imports torch: only workers import this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peft import (
    AdaLoraConfig,
    EvaConfig,
    IA3Config,
    LoftQConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PeftConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    VeraConfig,
)

from core.config import RunConfig
from core.config.adapter import AdapterSection
from core.errors import TrainingError
from core.models.adapter_size import FEEDFORWARD


def peft_config(config: RunConfig, task_type: str = "CAUSAL_LM") -> PeftConfig | None:
    """The adapter of a run; None when weights of the model itself are trained."""
    adapter = config.adapter
    if not adapter.is_adapter:
        return None
    if adapter.method == "lora" and adapter.init_lora_weights == "loftq":
        _need_gpu(config)
    given = _OF_KIND[adapter.method](adapter)
    given.task_type = task_type
    return given


def _need_gpu(config: RunConfig) -> None:
    if config.training.device in ("cpu", "mps"):  # what was on auto is known by now
        raise TrainingError(
            "LoftQ is computed on a GPU alone, and this run trains without one.",
            "Set adapter.init_lora_weights to pissa, or train on a GPU.",
        )


def _lora(adapter: AdapterSection) -> LoraConfig:
    starts: Any = adapter.init_lora_weights
    return LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.lora_alpha,
        lora_dropout=adapter.lora_dropout,
        bias=adapter.bias,
        use_dora=adapter.use_dora,
        use_rslora=adapter.use_rslora,
        init_lora_weights=True if starts == "default" else starts,
        eva_config=EvaConfig(rho=adapter.eva_rho) if starts == "eva" else None,
        loftq_config=LoftQConfig(loftq_bits=adapter.loftq_bits, loftq_iter=adapter.loftq_iter)
        if starts == "loftq"
        else {},
        **_patterns(adapter),
        **_modules(adapter),
        **_layers(adapter),
    )


def _adalora(adapter: AdapterSection) -> AdaLoraConfig:
    """How many steps there are is known when the training begins: see AllocateRanks."""
    return AdaLoraConfig(
        init_r=adapter.init_r,
        target_r=adapter.target_r,
        tinit=adapter.tinit,
        tfinal=adapter.tfinal,
        deltaT=adapter.deltaT,
        orth_reg_weight=adapter.orth_reg_weight,
        lora_alpha=adapter.lora_alpha,
        lora_dropout=adapter.lora_dropout,
        bias=adapter.bias,
        total_step=adapter.tinit + adapter.tfinal + 1,
        **_modules(adapter),
    )


def _loha(adapter: AdapterSection) -> LoHaConfig:
    return LoHaConfig(**_lycoris(adapter))


def _lokr(adapter: AdapterSection) -> LoKrConfig:
    return LoKrConfig(
        decompose_both=adapter.decompose_both,
        decompose_factor=adapter.decompose_factor,
        **_lycoris(adapter),
    )


def _vera(adapter: AdapterSection) -> VeraConfig:
    modules = _modules(adapter)
    modules.pop("exclude_modules")  # it knows none
    return VeraConfig(
        r=adapter.r,
        vera_dropout=adapter.vera_dropout,
        d_initial=adapter.d_initial,
        **modules,
        **_layers(adapter),
    )


def _oft(adapter: AdapterSection) -> OFTConfig:
    return OFTConfig(
        r=0,  # the size of a block decides
        oft_block_size=adapter.oft_block_size,
        use_cayley_neumann=adapter.use_cayley_neumann,
        module_dropout=adapter.module_dropout,
        **_modules(adapter),
        **_layers(adapter),
    )


def _ia3(adapter: AdapterSection) -> IA3Config:
    modules = _modules(adapter)
    given = IA3Config(feedforward_modules=adapter.feedforward_modules or FEEDFORWARD, **modules)
    return given


def _prompt_tuning(adapter: AdapterSection) -> PromptTuningConfig:
    """A text to begin with is put in later (`core.training.adapter_start`), by the run's own
    tokenizer: PEFT would keep the path of one on this machine."""
    begin = adapter.prompt_tuning_init
    return PromptTuningConfig(
        num_virtual_tokens=adapter.num_virtual_tokens,
        prompt_tuning_init="RANDOM" if begin == "TEXT" else begin,
    )


def _prefix_tuning(adapter: AdapterSection) -> PrefixTuningConfig:
    return PrefixTuningConfig(
        num_virtual_tokens=adapter.num_virtual_tokens,
        prefix_projection=adapter.prefix_projection,
        encoder_hidden_size=adapter.encoder_hidden_size,
    )


_OF_KIND: dict[str, Callable[[AdapterSection], PeftConfig]] = {
    "lora": _lora,
    "adalora": _adalora,
    "loha": _loha,
    "lokr": _lokr,
    "vera": _vera,
    "oft": _oft,
    "ia3": _ia3,
    "prompt_tuning": _prompt_tuning,
    "prefix_tuning": _prefix_tuning,
}


def _modules(adapter: AdapterSection) -> dict[str, Any]:
    return {
        "target_modules": adapter.target_modules,
        "exclude_modules": adapter.exclude_modules or None,
        "modules_to_save": adapter.modules_to_save or None,
    }


def _layers(adapter: AdapterSection) -> dict[str, Any]:
    return {"layers_to_transform": adapter.layers_to_transform or None}


def _patterns(adapter: AdapterSection) -> dict[str, Any]:
    return {
        "rank_pattern": dict(adapter.rank_pattern),
        "alpha_pattern": dict(adapter.alpha_pattern),
    }


def _lycoris(adapter: AdapterSection) -> dict[str, Any]:
    return {
        "r": adapter.r,
        "alpha": adapter.lora_alpha,
        "rank_dropout": adapter.rank_dropout,
        "module_dropout": adapter.module_dropout,
        **_patterns(adapter),
        **_modules(adapter),
        **_layers(adapter),
    }
