"""Which weights learn when most of a model is frozen: those of some layers, or of named modules.

Torch-free but for `freeze`, which works on whatever has named parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from core.config.adapter import AdapterSection
from core.errors import ModelError

_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)\.")


def trained_names(adapter: AdapterSection, names: Iterable[str]) -> set[str]:
    """Those of a model's parameters, by their full names, that learn with method freeze."""
    known = list(names)
    of_layer = {name: int(found[1]) for name in known if (found := _LAYER.search(name))}
    count = max(of_layer.values(), default=-1) + 1
    wanted = adapter.freeze_trainable_layers
    layers = set(range(max(0, count - wanted), count) if wanted >= 0 else range(-wanted))
    inside = adapter.freeze_trainable_modules
    return {
        name
        for name in known
        if (
            of_layer[name] in layers and ("all" in inside or _is_in(name, inside))
            if name in of_layer
            else _is_in(name, adapter.freeze_extra_modules)
        )
    }


def freeze(model: Any, adapter: AdapterSection, also: Iterable[str] = ()) -> None:
    """Lets only the chosen parameters of `model` learn, with those of the modules `also`.

    Raises ModelError when that leaves none.
    """
    # A tied output layer has a name of its own for the weights of the input's.
    named = list(model.named_parameters(remove_duplicate=False))
    chosen = trained_names(adapter, (name for name, _ in named))
    chosen |= {name for name, _ in named if _is_in(name, also)}
    learning = {id(parameter) for name, parameter in named if name in chosen}
    if not learning:
        raise ModelError(
            "Nothing of the model would learn: no parameter is in the chosen layers and modules.",
            "Set adapter.freeze_trainable_layers, or name modules of this model in "
            "adapter.freeze_trainable_modules or freeze_extra_modules.",
        )
    for _, parameter in named:
        parameter.requires_grad_(id(parameter) in learning)


def _is_in(name: str, modules: Iterable[str]) -> bool:
    return any(f".{module}." in f".{name}" for module in modules)
