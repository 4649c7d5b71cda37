"""Several adapters of one base made into one, by PEFT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer

from core.errors import ExportError
from core.export.combine import Combination
from core.language import _
from core.models.trained import TrainedModel
from core.worker.models.loading import with_adapter

_WHOLE = "combined"


def combine(
    model: Any,
    every: Sequence[TrainedModel],
    combination: Combination,
    folder: Path,
    scores: Callable[[Any], Any],
) -> tuple[Any, Path, Any]:
    """(the base again, the folder of the combined adapter, the scores of the exact sum: of the base
    with all adapters at once, each by its weight).

    `model` is the base, `every` the models whose adapters are combined, the run's own first. What
    dare leaves out by chance follows from the run's seed.
    """
    names = [f"share{place:03}" for place in range(len(every))]
    for name, one in zip(names, every, strict=True):
        model = with_adapter(model, one.folder, name, exact=True)
        # How much it is scaled is in the layers by now. The combined adapter takes its settings
        # from the first and has all scaling in its weights: with this it would be scaled again.
        model.peft_config[name].use_rslora = False
    way = combination.way
    torch.manual_seed(every[0].config.training.seed)
    try:
        model.add_weighted_adapter(
            names,
            combination.weights,
            _WHOLE,
            combination_type=way.combination_type,
            density=way.density if combination.prunes else None,
            svd_full_matrices=False,
        )
    except ValueError as error:
        raise ExportError(
            _("The adapters cannot be combined: {error}", error=str(error)),
            _("Combine runs whose adapters have the same settings."),
        ) from error
    model.save_pretrained(folder, selected_adapters=[_WHOLE])
    for layer in (module for module in model.modules() if isinstance(module, LoraLayer)):
        for name, weight in zip(names, combination.weights, strict=True):
            if name in layer.scaling:
                layer.scaling[name] *= weight
    model.base_model.set_adapter(names)
    exact = scores(model)
    return model.unload(), folder / _WHOLE, exact
