"""AdaLoRA's ranks while it learns: judged at each step, taken away where they help least."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from core.errors import TrainingError

_FILE = "adalora_importance.safetensors"


class AllocateRanks(TrainerCallback):
    """Lets PEFT judge the ranks after each step, as AdaLoRA asks for (Zhang et al. 2023).

    A rank that was taken away stays in the model as zeros until the end, so that each checkpoint
    has the same shapes and can be gone on from; the finished adapter is written without them.

    The adapter's directions are kept at right angles by a term of the gradient, which is added
    here: PEFT would add it to the model's own loss, which most trainers never ask for, and which
    would be shown as the task's.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._layers = model.base_model
        self._settings = model.peft_config["default"]
        self._pattern: dict[str, list[bool]] | None = None
        plain = self._layers.model
        self._layers.forward = lambda *given, **options: plain(*given, **options)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        settings = self._settings
        settings.total_step = state.max_steps
        if settings.tinit + settings.tfinal >= state.max_steps:
            raise TrainingError(
                f"AdaLoRA has no step to take ranks away in: the run has {state.max_steps}, of "
                f"which {settings.tinit} come before (tinit) and {settings.tfinal} after (tfinal).",
                "Lower adapter.tinit and adapter.tfinal, or train longer.",
            )
        if state.global_step:
            self._go_on(Path(args.output_dir) / f"checkpoint-{state.global_step}")
            if state.global_step > settings.total_step - settings.tfinal:
                self._pattern = self._left()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        weight = self._settings.orth_reg_weight
        if not weight:
            return
        with torch.enable_grad():
            lost = [
                _from_right_angles(part, "lora_A" in name)
                for name, part in self._parts()
                if "lora_E" not in name and part.requires_grad
            ]
            (weight * torch.stack(lost).mean()).backward()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._settings.rank_pattern = self._pattern
        self._layers.update_and_allocate(state.global_step + 1)
        self._pattern, self._settings.rank_pattern = self._settings.rank_pattern, None

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        place = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        judged = self._layers.rankallocator
        kept = {
            f"{kind}.{name}": value
            for kind in ("ipt", "exp_avg_ipt", "exp_avg_unc")
            for name, value in getattr(judged, kind).items()
        }
        if kept and place.is_dir():
            save_file(kept, place / _FILE)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._settings.rank_pattern = self._left()

    def _go_on(self, checkpoint: Path) -> None:
        """Takes up the importance of each weight where the checkpoint left it."""
        if not (checkpoint / _FILE).is_file():
            return
        judged = self._layers.rankallocator
        device = next(part for _, part in self._parts()).device
        for key, value in load_file(checkpoint / _FILE).items():
            kind, _, name = key.partition(".")
            getattr(judged, kind)[name] = value.to(device)

    def _left(self) -> dict[str, list[bool]]:
        """Which ranks each layer still has, as PEFT writes them down."""
        return {
            name: (part.detach() != 0).view(-1).tolist()
            for name, part in self._layers.model.named_parameters()
            if "lora_E.default" in name
        }

    def _parts(self) -> list[tuple[str, Any]]:
        return [
            (name, part) for name, part in self._layers.model.named_parameters() if "lora_" in name
        ]


def _from_right_angles(part: torch.Tensor, is_first: bool) -> torch.Tensor:
    """How far the directions of a matrix are from standing at right angles, each of length 1."""
    products = part @ part.T if is_first else part.T @ part
    return torch.linalg.matrix_norm(products - torch.eye(len(products), device=part.device))
