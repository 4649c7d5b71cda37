"""Loads a base that is a stack: another base with adapters merged into it. Imports torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.models.location import ensure_model
from core.models.origin import read_stack, workspace_of


def open_stacked(
    path: str | Path,
    open_one: Callable[[str | Path], Any],
    add_adapter: Callable[[Any, Path], Any],
) -> Any:
    """The model in `path` as `open_one` opens it; of a stack the base, with the adapters merged
    into it in their order. Raises ModelError, also when the base is no longer to be had."""
    stack = read_stack(path)
    if stack is None:
        return open_one(path)
    beneath: str | Path = Path(path) / stack.model
    if not Path(beneath).is_dir():
        beneath = ensure_model(stack.model, workspace_of(path))
    model = open_one(beneath)
    trained = {name: one.requires_grad for name, one in model.named_parameters()}
    for adapter in stack.adapters:
        model = add_adapter(model, adapter).merge_and_unload(safe_merge=True)
    for name, one in model.named_parameters():  # PEFT froze them all
        one.requires_grad_(trained.get(name, True))
    return model
