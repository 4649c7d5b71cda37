"""Cross entropy straight from hidden states, a piece at a time, for devices without Triton.

The scores of all tokens over the whole vocabulary are never held: each piece is scored, its loss
and its gradient are taken at once, and the scores are dropped. Only tokens that carry loss come
here. TRL has its own kernel for CUDA; elsewhere it computes in 32 bits at every position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

# Scores held at once: 12 million in 32 bits are 50 MB.
_SCORES_AT_ONCE = 12_000_000


@dataclass(frozen=True)
class Head:
    """What turns a hidden state into scores: scores = cap(scale * (hidden @ weight.T + bias)).

    weight: (vocabulary, width). `softcap` bounds scores s to softcap * tanh(s / softcap).
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None


def head_of(model: Any) -> Head | None:
    """The head of a causal language model; None when it is more than a matrix."""
    layer = model.get_output_embeddings()
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, torch.Tensor) or not weight.is_floating_point():
        return None
    config = model.config.get_text_config()
    return Head(
        weight,
        getattr(layer, "bias", None),
        _scale(config),
        getattr(config, "final_logit_softcapping", None),
    )


def _scale(config: Any) -> float:
    """What a family multiplies its scores by, under its own name; as in TRL's fused head."""
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        if getattr(config, name, None) is not None:
            return float(getattr(config, name))
    scaling = getattr(config, "logits_scaling", None)
    if scaling is None:
        return 1.0
    return float(scaling) if config.model_type == "hyperclovax" else 1.0 / float(scaling)


def summed_loss(
    hidden: torch.Tensor, targets: torch.Tensor, head: Head, *, dynamic: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """(sum of -ln p(target) over the tokens, how many targets scored highest).

    `dynamic` weighs each token's loss by its probability, through which no gradient flows (dynamic
    fine-tuning, arXiv 2508.05629).
    hidden: (tokens, width), targets: (tokens,). Scores are multiplied in autocast's type when it
    is on, else in hidden's; the loss is taken in 32 bits.
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    wants = torch.is_grad_enabled()
    with torch.autocast(kind, enabled=False):
        loss, correct = _SummedLoss.apply(
            hidden, head.weight, head.bias, targets, head, dtype, wants, dynamic
        )
    return loss, correct


class _SummedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        head: Head,
        dtype: torch.dtype,
        wants: bool,
        dynamic: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        needs = [wants and need for need in ctx.needs_input_grad[:3]]
        grads = [
            torch.zeros(source.shape, dtype=torch.float32, device=source.device) if need else None
            for source, need in zip((hidden, weight, bias), needs, strict=True)
        ]
        matrix = weight.to(dtype)
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        correct = torch.zeros((), dtype=torch.long, device=hidden.device)
        step = max(16, _SCORES_AT_ONCE // weight.shape[0])
        for start in range(0, len(targets), step):
            part = slice(start, start + step)
            states = hidden[part].to(dtype)
            raw = (states @ matrix.t()).float()
            if bias is not None:
                raw += bias
            part_loss, hits, slope = _entropy(raw, targets[part], head, any(needs), dynamic)
            loss += part_loss
            correct += hits
            if slope is None:
                continue
            slope = slope.to(dtype)
            if grads[0] is not None:
                grads[0][part] = slope @ matrix
            if grads[1] is not None:
                grads[1] += slope.t() @ states
            if grads[2] is not None:
                grads[2] += slope.float().sum(0)
        ctx.save_for_backward(*grads)
        ctx.dtypes = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor, _: Any) -> tuple[Any, ...]:
        given = [
            None if grad is None else (grad * slope).to(dtype)
            for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return (*given, None, None, None, None, None)


def _entropy(
    scores: torch.Tensor, targets: torch.Tensor, head: Head, with_slope: bool, dynamic: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """(summed loss, hits, d loss / d (hidden @ weight.T + bias)); `scores` is used up."""
    places = targets[:, None]
    scores = scores.mul_(head.scale) if head.scale != 1.0 else scores
    bend = None
    if head.softcap is not None:
        bend = torch.tanh(scores.div_(head.softcap))
        scores = bend * head.softcap
    hits = (scores.argmax(-1) == targets).sum()
    norms = scores.logsumexp(-1, keepdim=True)
    losses = norms - scores.gather(-1, places)
    weights = losses.neg().exp() if dynamic else None
    loss = losses.sum() if weights is None else (losses * weights).sum()
    if not with_slope:
        return loss, hits, None
    slope = scores.sub_(norms).exp_()  # the probabilities
    slope.scatter_add_(-1, places, slope.new_full((1, 1), -1.0).expand(len(targets), 1))
    if weights is not None:
        slope *= weights
    if bend is not None:
        slope *= 1 - bend.square_()
    return loss, hits, slope.mul_(head.scale) if head.scale != 1.0 else slope
