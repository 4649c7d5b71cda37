"""How a run begins with what another one made. Imports torch: only workers import this."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict

from core.config import RunConfig
from core.errors import ModelError
from core.methods import METHODS
from core.models.classifier import open_with_head
from core.models.describe import describe_model
from core.models.fit import adapter_misfit
from core.models.inference import free_memory, open_model, with_adapter
from core.models.labels import labels_of
from core.models.lay_origin import lay_origin
from core.models.location import ensure_model
from core.models.masked import open_masked
from core.models.origin import own_adapter, own_base, read_origin, read_stack
from core.models.stack import open_stacked
from core.training.reporter import Reporter
from core.workspace import RunFolder, Workspace

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def starting_base(
    run: RunFolder, workspace: Workspace, config: RunConfig, reporter: Reporter
) -> str | Path:
    """What the run's base is loaded from: fetched, or made of what another run left.

    Raises Stopped or a TunesmithError.
    """
    lay_origin(run, config, workspace)
    origin, folder = read_origin(run), own_base(run)
    if origin is not None:
        words = f"{origin.name} at {origin.checkpoint}"
        reporter.note("model.from_run", origin.run, f"{origin.how}: begins with {words}")
    if folder is None:
        return ensure_model(config.model.model_name_or_path, workspace, reporter.tell)
    stack = read_stack(folder)
    if stack is not None and stack.whole:
        reporter.doing("Merging the model to start from")
        _write_whole(folder, stack.method)
    return folder


def take_adapter(model: Any, run: RunFolder) -> None:
    """Gives the run's new adapter the weights of the one that it goes on with, if it does.

    Raises ModelError when the two are not alike.
    """
    folder = own_adapter(run)
    if folder is None or not isinstance(model, PeftModel):
        return
    misfit = adapter_misfit(model, folder)
    if misfit:
        raise ModelError(
            f"The adapter of the run to go on with does not fit this run: {misfit}",
            "Give adapter.* the settings of that run, or set model.start_from to merge.",
        )
    set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))


def _write_whole(folder: Path, method: str) -> None:
    """Writes a stack out as one model in its place, rounded only once, to the base's own type."""
    def open_one(path: str | Path) -> Any:
        labels = labels_of(method, folder)
        if labels is not None:
            return open_with_head(path, labels, device="cpu", dtype=torch.float32)
        if METHODS[method].makes == "filler":
            return open_masked(path, device="cpu", dtype=torch.float32)
        return open_model(path, device="cpu", dtype=torch.float32)

    dtype = _DTYPES.get(describe_model(folder).dtype, torch.float32)
    model = open_stacked(folder, open_one, with_adapter).to(dtype)
    making = folder.with_name(".base.making")
    shutil.rmtree(making, ignore_errors=True)
    model.save_pretrained(str(making))
    del model
    free_memory()
    for path in folder.glob("*"):  # the tokenizer
        if path.is_file() and not (making / path.name).exists() and path.name != "stack.json":
            shutil.copyfile(path, making / path.name)
    old = folder.with_name(".base.old")
    folder.rename(old)
    making.rename(folder)
    shutil.rmtree(old)
