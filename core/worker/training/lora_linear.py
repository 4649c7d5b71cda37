"""LoRA's linear layers with as few passes over memory as a CPU needs.

PEFT adds an adapter's share as three operations over a layer's whole output (multiply, scale, add),
and its backward pass does so again over the input. Here the products add to what is there.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear
from torch import nn


def with_quick_lora(model: nn.Module) -> None:
    """Lets the LoRA layers of a model on a CPU compute so; no weight or name changes."""
    for module in model.modules():
        if type(module) is Linear and type(module.get_base_layer()) is nn.Linear:
            module.__class__ = QuickLinear


class QuickLinear(Linear):
    """PEFT's layer where it is trained as plain LoRA with one adapter; else as PEFT has it."""

    def forward(self, x: torch.Tensor, *given: Any, **options: Any) -> torch.Tensor:
        kind, base = x.device.type, self.get_base_layer()
        is_mixed = torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if is_mixed else x.dtype
        if not self._is_plain() or given or options or base.weight.dtype != dtype:
            return super().forward(x, *given, **options)
        (name,) = self.active_adapters
        down, up = self.lora_A[name].weight.to(dtype), self.lora_B[name].weight.to(dtype)
        rows = x.to(dtype).reshape(-1, x.shape[-1])
        with torch.autocast(kind, enabled=False):
            out = Adapted.apply(rows, base.weight, base.bias, down, up, self.scaling[name])
        return out.view(*x.shape[:-1], -1)

    def _is_plain(self) -> bool:
        names, base = self.active_adapters, self.get_base_layer()
        return (
            torch.is_grad_enabled()
            and not (self.disable_adapters or self.merged or base.weight.requires_grad)
            and len(names) == 1
            and names[0] in self.lora_A
            and names[0] not in self.lora_variant
            and self.lora_B[names[0]].bias is None
            and isinstance(self.lora_dropout[names[0]], nn.Identity)
        )


class Adapted(torch.autograd.Function):
    """x W' + bias + scale (x A') B', for x: (tokens, inputs) and a W that is not trained."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        low = x @ down.t()
        ctx.save_for_backward(x, low, weight, down, up)
        ctx.scale = scale
        return F.linear(x, weight, bias).addmm_(low, up.t(), alpha=scale)

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[Any, ...]:
        x, low, weight, down, up = ctx.saved_tensors
        low_slope = (slope @ up).mul_(ctx.scale)
        x_slope = (slope @ weight).addmm_(low_slope, down) if ctx.needs_input_grad[0] else None
        # Wide times slim is slower than its transpose.
        up_slope = (low.t() @ slope).mul_(ctx.scale).t()
        return x_slope, None, None, low_slope.t() @ x, up_slope, None
