"""From a folder or Hub name to a model in memory. Imports torch: only workers import this.

Weights come from safetensors alone and no code of a model's repository is run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from core.config import RunConfig
from core.errors import ModelError

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def load_tokenizer(path: str | Path, revision: str = "main") -> Any:
    """The tokenizer of a model or of a trained adapter, padding on the right.

    One without a padding token pads with its end token. Raises ModelError when there is none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The tokenizer of {path} cannot be loaded: {_first_line(error)}",
            "Choose a model that has its tokenizer beside it.",
        ) from error
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def load_base(
    config: RunConfig, model_path: str | Path, *, device: str, precision: str, **options: Any
) -> Any:
    """The model that a run trains, on `device` ("cpu", "cuda", "cuda:1", "mps").

    A frozen base is held in the run's precision ("fp32", "fp16", "bf16") or quantized. A model
    trained in full is held in 32 bits, so that small steps are not lost; autocast does the rest.
    `options` go to `from_pretrained`. Raises ModelError.
    """
    dtype = DTYPES["fp32" if config.adapter.method == "none" else precision]
    quantization = quantization_config(config, precision)
    if quantization is not None:
        options["quantization_config"] = quantization
    return _load(model_path, device, dtype, config.model.model_revision, options)


def quantization_config(config: RunConfig, precision: str) -> Any | None:
    """How bitsandbytes holds the base in fewer bits; None when it stays as it is."""
    adapter = config.adapter
    if adapter.quantization == "none":
        return None
    if adapter.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    compute = adapter.bnb_4bit_compute_dtype
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=adapter.quantization,
        bnb_4bit_use_double_quant=adapter.bnb_4bit_use_double_quant,
        bnb_4bit_compute_dtype=DTYPES[precision] if compute == "auto" else getattr(torch, compute),
    )


def load_for_inference(
    base_path: str | Path,
    adapter: str | Path | None = None,
    *,
    device: str = "cpu",
    dtype: Any = "auto",
    revision: str = "main",
) -> tuple[Any, Any]:
    """(model, tokenizer) ready to answer, with the adapter on the base when one is given.

    The tokenizer is the adapter's own if it has one. `dtype` is torch's, its name, or "auto":
    bf16 where the device is quick in it, else 32 bits. Raises ModelError.
    """
    if dtype == "auto":
        dtype = torch.bfloat16 if quick_in_bf16(device) else torch.float32
    elif isinstance(dtype, str):
        dtype = DTYPES.get(dtype) or getattr(torch, dtype)
    model = _load(base_path, device, dtype, revision, {})
    own = adapter if adapter and (Path(adapter) / "tokenizer_config.json").is_file() else None
    tokenizer = load_tokenizer(own) if own else load_tokenizer(base_path, revision)
    if adapter is not None:
        try:
            # The adapter in the base's own type: no casts on the way of each token.
            model = PeftModel.from_pretrained(model, str(adapter), autocast_adapter_dtype=False)
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"The adapter in {Path(adapter).name} does not fit {base_path}: "
                f"{_first_line(error)}",
                "Use the base model that it was trained from.",
            ) from error
    return model.eval(), tokenizer


def quick_in_bf16(device: str) -> bool:
    """Whether the device multiplies bf16 faster than 32-bit numbers."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def _load(
    path: str | Path, device: str, dtype: Any, revision: str, options: dict[str, Any]
) -> Any:
    # On the CPU the weights are there once they are read; elsewhere they go straight to the device.
    place = {} if device == "cpu" and "quantization_config" not in options else {"": device}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path,
            revision=revision,
            dtype=dtype,
            device_map=place or None,
            trust_remote_code=False,
            use_safetensors=True,
            **options,
        )
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(
            f"The model {path} cannot be loaded: {_first_line(error)}",
            "It must be a causal language model with its weights as safetensors.",
        ) from error
    if model.config.is_encoder_decoder:
        raise ModelError(
            f"{path} is an encoder-decoder model, not a causal language model.",
            "Choose one that writes on from a text, such as SmolLM2-135M-Instruct.",
        )
    return model


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".") + "."
