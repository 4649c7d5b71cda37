"""Our loss and its gradients must be those of plain cross entropy over all scores."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from core.worker.training.row_trainer import Head, head_of, summed_loss
from tests.training.test_attention import tiny

TOKENS, WIDTH, VOCABULARY = 40, 16, 50
SEVERAL_PIECES = 16 * VOCABULARY  # scores at once


def plain(hidden: torch.Tensor, targets: torch.Tensor, head: Head) -> torch.Tensor:
    scores = hidden @ head.weight.t()
    if head.bias is not None:
        scores = scores + head.bias
    scores = scores * head.scale
    if head.softcap is not None:
        scores = head.softcap * torch.tanh(scores / head.softcap)
    return F.cross_entropy(scores, targets, reduction="sum")


def inputs(*, bias: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    torch.manual_seed(0)
    hidden = torch.randn(TOKENS, WIDTH, requires_grad=True)
    weight = torch.randn(VOCABULARY, WIDTH, requires_grad=True)
    extra = torch.randn(VOCABULARY, requires_grad=True) if bias else None
    return hidden, torch.randint(0, VOCABULARY, (TOKENS,)), weight, extra


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("bias", [False, True])
def test_loss_and_gradients_are_those_of_cross_entropy(
    bias: bool, scale: float, softcap: float | None
) -> None:
    """Every run on a CPU would follow a wrong slope."""
    hidden, targets, weight, extra = inputs(bias=bias)
    head = Head(weight, extra, scale, softcap)
    sources = [hidden, weight, *([extra] if extra is not None else [])]
    expected = plain(hidden, targets, head)
    slopes = torch.autograd.grad(expected / 7, sources)
    found, correct = summed_loss(hidden, targets, head, scores_at_once=SEVERAL_PIECES)
    torch.testing.assert_close(found, expected)
    for mine, theirs in zip(torch.autograd.grad(found / 7, sources), slopes, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert correct == (plain_scores(hidden, head).argmax(-1) == targets).sum()


def test_a_dynamic_loss_weighs_each_token_by_its_probability() -> None:
    hidden, targets, weight, _ = inputs(bias=False)
    losses = F.cross_entropy(hidden @ weight.t(), targets, reduction="none")
    expected = (losses * losses.neg().exp().detach()).sum()
    slopes = torch.autograd.grad(expected, [hidden, weight])
    found, _ = summed_loss(
        hidden, targets, Head(weight), dynamic=True, scores_at_once=SEVERAL_PIECES
    )
    torch.testing.assert_close(found, expected)
    for mine, theirs in zip(torch.autograd.grad(found, [hidden, weight]), slopes, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def plain_scores(hidden: torch.Tensor, head: Head) -> torch.Tensor:
    scores = hidden @ head.weight.t()
    return scores if head.bias is None else scores + head.bias


def test_a_batch_without_loss_tokens_counts_nothing() -> None:
    """An unlucky batch would end the run with a division by zero."""
    hidden, targets, weight, _ = inputs(bias=False)
    summed, correct = summed_loss(hidden[:0], targets[:0], Head(weight))
    assert (summed.item(), correct.item()) == (0.0, 0)
    summed.backward()
    assert not weight.grad.any()


def test_evaluating_takes_no_gradients() -> None:
    """An evaluation would take the memory and time of training."""
    hidden, targets, weight, _ = inputs(bias=False)
    with torch.no_grad():
        summed, _ = summed_loss(hidden, targets, Head(weight))
    assert not summed.requires_grad
    torch.testing.assert_close(summed, plain(hidden, targets, Head(weight)).detach())


def test_scores_in_bf16_keep_the_loss_close() -> None:
    """The fast path would drift away from the exact one."""
    hidden, targets, weight, _ = inputs(bias=False)
    exact = plain(hidden, targets, Head(weight)).item()
    with torch.autocast("cpu", torch.bfloat16):
        summed, _ = summed_loss(hidden, targets, Head(weight))
    assert summed.item() == pytest.approx(exact, rel=1e-2)
    summed.backward()
    assert hidden.grad.dtype == weight.grad.dtype == torch.float32


def test_each_family_s_own_scaling_of_scores_is_known() -> None:
    """Granite or Cohere would be trained on scores that are too large or too small."""
    granite = head_of(tiny("granite", logits_scaling=4.0))
    cohere = head_of(tiny("cohere", logit_scale=0.25))
    gemma = head_of(tiny("gemma2", final_logit_softcapping=30.0))
    assert granite is not None and granite.scale == 0.25
    assert cohere is not None and cohere.scale == 0.25
    assert gemma is not None and gemma.softcap == 30.0
