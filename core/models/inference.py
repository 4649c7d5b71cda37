"""Models for asking, not for training: on which device, in which type, with which adapter.

Imports torch: only workers use it.
"""

from __future__ import annotations

import gc
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig

from core.config import RunConfig
from core.errors import ModelError
from core.models.fit import adapter_misfit
from core.models.hardware import CpuFlags, auto_precision
from core.models.kinds import Kind, kind_of
from core.models.load import DTYPES, load_base
from core.models.location import ensure_model
from core.models.new_tokens import read_new_tokens
from core.models.stack import open_stacked
from core.models.trained import TrainedModel
from core.models.vocabulary import grow
from core.tokens.chat_templates import use_runs_own
from core.workspace import Workspace


def pick_device() -> str:
    """The device that the job was given, else the GPU with most free memory, else the CPU."""
    given = os.environ.get("TUNESMITH_DEVICE")
    if given:
        return given
    if torch.cuda.is_available():
        free = [torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())]
        return f"cuda:{free.index(max(free))}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def pick_dtype(precision: str, device: str) -> torch.dtype:
    """The type of the weights for a run's precision. `auto` is bf16 where the device has it."""
    if precision == "auto" or (precision == "fp16" and device == "cpu"):
        precision, _ = precision_on(device)
    return DTYPES[precision]


def precision_on(device: str) -> tuple[str, str]:
    """(precision, reason) that `auto` becomes on a device, by what torch says of it."""
    kind = device.partition(":")[0]
    capability = None
    if kind == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        capability = float(f"{major}.{minor}")
    flags = CpuFlags(torch.cpu._is_avx512_bf16_supported(), torch.cpu._is_amx_tile_supported())
    return auto_precision(kind, capability, flags)


def resolve_base(name: str, workspace: Workspace) -> str:
    """The folder or Hub id to load for a base model's name. Fetches a starter model."""
    return str(ensure_model(name, workspace))


def open_kind(path: str | Path) -> Kind | None:
    """What the model in a folder or of a Hub id is; None where its config cannot be read, which
    whoever opens it says."""
    try:
        config, _ = PreTrainedConfig.get_config_dict(path)
    except (OSError, ValueError):
        return None
    return kind_of(config)


def open_tokenizer(path: str | Path, revision: str = "main") -> Any:
    """The tokenizer of a model, or the one saved with an adapter. Raises ModelError.

    One without a padding token pads with its end token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise _unloadable(f"tokenizer of {Path(path).name}", error) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def open_model(path: str | Path, *, device: str, dtype: torch.dtype, revision: str = "main") -> Any:
    """A causal language model ready to answer. Raises ModelError when it cannot be loaded."""

    def open_one(folder: str | Path) -> Any:
        try:
            return AutoModelForCausalLM.from_pretrained(
                folder,
                revision=revision,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise _unloadable(f"model {Path(path).name}", error) from error

    return open_stacked(path, open_one, with_adapter).to(device).eval()


def open_base(config: RunConfig, path: str, *, device: str, dtype: torch.dtype) -> Any:
    """The base of a run as the run had it: quantized when the run's was."""
    if config.adapter.quantization == "none":
        return open_model(path, device=device, dtype=dtype, revision=config.model.model_revision)
    precision = next(name for name, known in DTYPES.items() if known == dtype)
    return load_base(config, path, device=device, precision=precision).eval()


def open_before(trained: TrainedModel, base_path: str, *, device: str, dtype: torch.dtype) -> Any:
    """The model as it was when the run began: its base, with the adapter that it trained further
    if it did."""
    model = open_base(trained.config, base_path, device=device, dtype=dtype)
    if trained.begun:
        return with_adapter(model, trained.begun)
    if trained.new_tokens is not None:
        grow(model, trained.new_tokens)
    return model


def with_adapter(model: Any, adapter: Path, name: str = "default") -> Any:
    """`model` with an adapter from a run's folder on it, in the model's own type. It grows first
    where the adapter brings new tokens."""
    tokens = read_new_tokens(adapter)
    if tokens is not None and not isinstance(model, PeftModel):
        grow(model, tokens)
    try:
        if isinstance(model, PeftModel):
            model.load_adapter(str(adapter), adapter_name=name, autocast_adapter_dtype=False)
        else:
            model = PeftModel.from_pretrained(
                model, str(adapter), adapter_name=name, autocast_adapter_dtype=False
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"The adapter {adapter.name} does not fit its base: {str(error).splitlines()[0]}",
            "Was the base model changed since the run? Choose another checkpoint or run.",
        ) from error
    misfit = adapter_misfit(model, adapter, name)
    if misfit:  # PEFT passes over weights that have no place in the model
        raise ModelError(
            f"The adapter {adapter.name} does not fit its base: {misfit}",
            "Was the base model changed since the run? Choose another checkpoint or run.",
        )
    return model.eval()


def open_trained(
    trained: TrainedModel, base_path: str, *, device: str, dtype: torch.dtype
) -> tuple[Any, Any]:
    """(model, tokenizer) of a run's checkpoint: base with adapter, or the whole model.

    Raises ModelError, also for a run whose model gives labels or scores.
    """
    method = trained.config.training_method
    if method.has_head:
        raise ModelError(
            f"{trained.run.root.name} was trained to give {method.outputs}: it writes no text.",
            "Choose a run or a model that writes.",
        )
    tokenizer = tokenizer_of(trained, base_path)
    if trained.adapter is None:
        return open_model(trained.folder, device=device, dtype=dtype), tokenizer
    model = open_base(trained.config, base_path, device=device, dtype=dtype)
    return with_adapter(model, trained.adapter), tokenizer


def tokenizer_of(trained: TrainedModel, base_path: str) -> Any:
    """The tokenizer that was saved with the weights, else the base's; either with the chat
    template that the run was trained with."""
    if trained.has_tokenizer:
        return open_tokenizer(trained.folder)
    tokenizer = open_tokenizer(base_path, trained.config.model.model_revision)
    return use_runs_own(tokenizer, trained.run.root)


def without_adapter(model: Any) -> AbstractContextManager[Any]:
    """While it lasts, the model answers as its base."""
    if isinstance(model, PeftModel):
        context: AbstractContextManager[Any] = model.disable_adapter()
        return context
    return nullcontext()


def free_memory() -> None:
    """Gives back what the models that were just let go held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _unloadable(what: str, error: Exception) -> ModelError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return ModelError(
        f"The {what} cannot be loaded: {reason}.",
        "Fetch or choose it again; models that bring code of their own are not run.",
    )
