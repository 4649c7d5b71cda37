"""A model in the type in which it is stored, computed and merged in 32 bits: each weight is widened
while it is needed, so that a model takes its own size and that of its largest weight."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from core.models.describe import describe_model
from core.models.origin import read_stack
from core.models.trained import TrainedModel, adapter_settings

_NARROW = (torch.float16, torch.bfloat16)


class In32Bits(TorchFunctionMode):
    """While it lasts, every operation takes 16-bit tensors as 32-bit ones, and those that ask are
    told so. Weights are widened for one operation each."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__name__", "") == "__get__":  # such as weight.shape, weight.T
            return _wide(func(*args))
        return func(*tree_map(_wide, args), **tree_map(_wide, kwargs or {}))


def _wide(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype in _NARROW else value
    return torch.float32 if value in _NARROW else value


def stored_type(path: str | Path) -> str:
    """The type of most weights of the model in a folder; float32 of what is no folder."""
    dtype = describe_model(path).dtype if Path(path).is_dir() else ""
    return dtype if dtype in ("float16", "bfloat16") else "float32"


def can_stay_narrow(models: Sequence[TrainedModel], base_path: str) -> bool:
    """Whether all that is done with these models can be done weight by weight. Else they are
    widened as they are opened, and merged by PEFT as a whole: adapters of another kind than LoRA,
    that begin with a part of the base or replace some of it, models with a head, and bases that are
    merged as they are opened."""
    return (
        read_stack(base_path) is None
        and all(one.config.training_method.makes == "writer" for one in models)
        and all(_is_plain(one) for one in models if one.is_adapter)
    )


def _is_plain(trained: TrainedModel) -> bool:
    settings = adapter_settings(trained.folder)
    begin = str(settings.get("init_lora_weights", True)).lower()
    return (
        trained.peft_type == "LORA"
        and begin in ("true", "gaussian", "eva", "orthogonal")
        and settings.get("bias", "none") == "none"
        and not settings.get("modules_to_save")
        and not settings.get("target_parameters")
    )


def merge(model: Any, dtype: torch.dtype) -> Any:
    """The adapter made part of the base's weights, in 32 bits and then in `dtype`: weight by weight
    where these are narrow. Raises ValueError when PEFT cannot merge it."""
    if any(one.dtype in _NARROW for one in model.parameters()):
        layers = [one for one in model.modules() if isinstance(one, BaseTunerLayer)]
        weights = [list(layer.get_base_layer().parameters(recurse=False)) for layer in layers]
        used = Counter(id(one) for own in weights for one in own)
        for layer, own in zip(layers, weights, strict=True):
            places = [one.data for one in own]
            for one in own:
                one.data = one.data.float()
            layer.merge(safe_merge=True)
            for one, place in zip(own, places, strict=True):
                if used[id(one)] == 1:
                    # Back to its own place: beside it, all weights would be there twice in the end.
                    one.data = place.copy_(one.data) if place.dtype == dtype else one.data.to(dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All adapters are already merged")
        return model.merge_and_unload(safe_merge=True)
