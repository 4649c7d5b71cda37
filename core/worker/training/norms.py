"""RMS norms with as few passes over memory as a CPU needs.

transformers writes the norm as six operations, whose gradients take longer than a matrix product of
the same layer. Here forward and backward are a few operations in place, and only the input is kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def with_quick_norms(model: nn.Module) -> None:
    """Lets the RMS norms of a model on a CPU compute so; no weight or name changes. Norms of
    another formula, as Gemma's, stay."""
    quick: dict[type, type] = {}
    for module in model.modules():
        kind = type(module)
        if isinstance(module, _QuickNorm):
            continue
        if kind not in quick and kind.__name__.endswith("RMSNorm") and _is_plain(module):
            quick[kind] = type(kind.__name__, (_QuickNorm, kind), {})
        if kind in quick:
            module.__class__ = quick[kind]


@torch.no_grad()
def _is_plain(norm: nn.Module) -> bool:
    """Whether a norm is weight * x / sqrt(mean(x^2) + eps)."""
    weight = getattr(norm, "weight", None)
    if not isinstance(weight, nn.Parameter) or weight.ndim != 1 or _eps(norm) is None:
        return False
    x = torch.linspace(-1, 1, 2 * len(weight), dtype=weight.dtype).view(2, -1)
    wide = x.float() ** 2
    plain = weight * (x.float() * torch.rsqrt(wide.mean(-1, keepdim=True) + _eps(norm))).to(x.dtype)
    try:
        return bool(torch.equal(norm(x), plain))
    except (TypeError, RuntimeError):  # one that takes other things
        return False


def _eps(norm: Any) -> float | None:
    found = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    return found if isinstance(found, float) else None


class _QuickNorm(nn.Module):
    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        weight = self.weight
        assert isinstance(weight, torch.Tensor)
        if torch.is_grad_enabled() and weight.dtype == hidden_states.dtype:
            normed: torch.Tensor = RmsNorm.apply(hidden_states, weight, _eps(self))
            return normed
        normed = super().forward(hidden_states)
        return normed


class RmsNorm(torch.autograd.Function):
    """weight * x / sqrt(mean(x^2) + eps) over the last dimension of x: (..., width), computed in 32
    bits; the result has the type of x and weight, which are of one."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        wide = x.to(torch.float32, copy=True)
        squares = torch.linalg.vecdot(wide, wide).unsqueeze(-1)
        scale = squares.div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return wide.mul_(scale).to(x.dtype) * weight

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[Any, ...]:
        x, weight, scale = ctx.saved_tensors
        unit = x.to(torch.float32, copy=True).mul_(scale)
        of_weight = of_x = None
        if ctx.needs_input_grad[1]:
            of_weight = (slope * unit).flatten(0, -2).sum(0).to(weight.dtype)
        if ctx.needs_input_grad[0]:
            wide = slope.to(torch.float32, copy=True).mul_(weight)
            mean = torch.linalg.vecdot(wide, unit).div_(x.shape[-1]).unsqueeze(-1)
            of_x = wide.sub_(unit.mul_(mean)).mul_(scale).to(x.dtype)
        return of_x, of_weight, None
