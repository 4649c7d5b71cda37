"""Whether saved weights are those of a model, by the names and shapes in the files' headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open

from core.models.trained import adapter_settings

_TOLD = 3
_EMBEDDING = re.compile(r"(embed\w*|wte|lm_head|embeddings)(\.base_layer)?\.weight$")


def adapter_misfit(model: PeftModel, folder: Path, name: str = "default") -> str | None:
    """Why the adapter in `folder` is not one for this model's adapter `name`; None if it is.

    Raises ModelError when its settings cannot be read.
    """
    saved, own = adapter_settings(folder), model.peft_config[name]
    kind = str(getattr(own.peft_type, "value", own.peft_type))
    if saved.get("peft_type") != kind:
        return f"it is of the kind {saved.get('peft_type')}, not {kind}."
    for field in ("r", "lora_alpha", "bias", "use_dora", "use_rslora"):
        here = getattr(own, field, None)
        if field in saved and here is not None and saved[field] != here:
            return f"its {field} is {saved[field]}, not {here}."
    shapes = {
        key: tuple(value.shape)
        for key, value in get_peft_model_state_dict(
            model, adapter_name=name, save_embedding_layers=False
        ).items()
    }
    return _misfit(header_shapes(folder, "adapter_model"), shapes)


def weights_misfit(model: Any, folder: Path) -> str | None:
    """Why the whole model in `folder` is not `model`; None if it is."""
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    # Weights that are tied are saved once.
    return _misfit(header_shapes(folder, "model"), shapes, may_lack=True)


def header_shapes(folder: Path, name: str) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in the files `name*.safetensors`."""
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob(f"{name}*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    return found


def _misfit(
    saved: Mapping[str, tuple[int, ...]],
    own: Mapping[str, tuple[int, ...]],
    *,
    may_lack: bool = False,
) -> str | None:
    other = [
        f"{key} is {_shape(saved[key])}, not {_shape(own[key])}"
        for key in saved
        if key in own and saved[key] != own[key]
    ]
    if other:
        return f"{_some(other)}."
    # Embeddings that were saved along with an adapter on them are the base's own.
    unknown = [key for key in saved if key not in own and not _EMBEDDING.search(key)]
    if unknown:
        return f"this model has no {_some(unknown)}."
    missing = [] if may_lack else [key for key in own if key not in saved]
    return f"it lacks {_some(missing)}." if missing else None


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _some(texts: list[str]) -> str:
    more = len(texts) - _TOLD
    return ", ".join(texts[:_TOLD]) + (f" and {more} more" if more > 0 else "")
