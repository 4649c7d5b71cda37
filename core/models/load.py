"""The model that a run trains, in memory. Imports torch: only workers import this.

Weights come from safetensors alone and no code of a model's repository is run.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from core.config import RunConfig
from core.errors import ModelError
from core.models.frozen import freeze
from core.models.kinds import need_kind
from core.models.stack import open_stacked

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def load_base(config: RunConfig, model_path: str | Path, *, device: str, precision: str) -> Any:
    """The causal language model of a run on `device` ("cpu", "cuda", "cuda:1", "mps").

    A frozen base is held in the run's precision ("fp32", "fp16", "bf16") or quantized. A model
    trained in full is held in 32 bits, so that small steps are not lost; autocast does the rest.
    Raises ModelError.
    """
    from core.models.inference import with_adapter  # which needs this module

    def load_one(path: str | Path) -> Any:
        return _load(config, path, device=device, precision=precision)

    return open_stacked(model_path, load_one, with_adapter)


def _load(config: RunConfig, model_path: str | Path, *, device: str, precision: str) -> Any:
    quantization = quantization_config(config, precision)
    # Plain weights are on the CPU once they are read; all others go straight to their place.
    place = None if device == "cpu" and quantization is None else {"": device}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            model_path,
            revision=config.model.model_revision,
            dtype=DTYPES[precision if config.adapter.is_adapter else "fp32"],
            device_map=place,
            quantization_config=quantization,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ModelError(
            f"The model {model_path} cannot be loaded: {reason}.",
            "It must be a causal language model with its weights as safetensors.",
        ) from error
    if model.config.is_encoder_decoder:
        raise ModelError(
            f"{model_path} is an encoder-decoder model, not a causal language model.",
            "Choose one that writes on from a text, such as SmolLM2-135M-Instruct.",
        )
    need_kind(model.config.to_dict(), config)
    if config.adapter.method == "freeze":
        freeze(model, config.adapter)
    return keep_unpacked(model)


def keep_unpacked(model: Any) -> Any:
    """The model, whose 4-bit layers stay as they are when they are evaluated on a CPU.

    bitsandbytes would repack them at the first evaluation for a product without a gradient, and
    from then on nothing below such a layer would learn.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def quantization_config(config: RunConfig, precision: str) -> Any | None:
    """How bitsandbytes holds the base in fewer bits; None when it stays as it is."""
    adapter = config.adapter
    if adapter.quantization == "none":
        return None
    if adapter.quantization == "int8":
        # It says at each layer of each step that it computes in fp16.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True)
    compute = adapter.bnb_4bit_compute_dtype
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=adapter.quantization,
        bnb_4bit_use_double_quant=adapter.bnb_4bit_use_double_quant,
        bnb_4bit_compute_dtype=DTYPES[precision] if compute == "auto" else getattr(torch, compute),
    )
