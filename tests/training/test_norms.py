"""Norms on a CPU must compute, and learn, what transformers' own do."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from core.worker.training.norms import RmsNorm, with_quick_norms
from tests.training.test_attention import tiny
from tests.training.test_lora_linear import IDS, learned


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One for each norm that ours computed."""
    found: list[int] = []
    before = RmsNorm.apply
    monkeypatch.setattr(RmsNorm, "apply", lambda *given: (found.append(1), before(*given))[1])
    return found


def varied(kind: str, dtype: torch.dtype = torch.float32) -> Any:
    """A tiny model whose norms are no longer all ones."""
    model = tiny(kind).to(dtype).train()
    torch.manual_seed(2)
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.data += 0.2 * torch.randn(weight.shape)
    return model


@pytest.mark.parametrize(("kind", "norms"), [("llama", 5), ("qwen3", 9), ("gemma", 0)])
def test_loss_and_gradients_are_those_of_transformers(
    kind: str, norms: int, calls: list[int]
) -> None:
    """Every run on a CPU would follow a wrong slope. Gemma adds one to its weights: left alone."""
    plain = varied(kind)
    quick = copy.deepcopy(plain)
    with_quick_norms(quick)
    with_quick_norms(quick)  # a second trainer on the same model
    assert list(quick.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(learned(quick), learned(plain), rtol=1e-4, atol=1e-6)
    assert len(calls) == norms


def test_in_bf16_the_slopes_are_as_near_to_those_of_32_bits_as_transformers_own() -> None:
    exact, plain = varied("llama"), varied("llama", torch.bfloat16)
    quick = copy.deepcopy(plain)
    with_quick_norms(quick)

    def far(model: Any) -> float:
        slopes, truth = learned(model)[1], learned(copy.deepcopy(exact))[1]
        return sum(float((slopes[name].float() - truth[name]).norm()) for name in truth)

    assert far(quick) < 1.1 * far(plain)


def test_nothing_is_kept_where_nothing_is_learned(calls: list[int]) -> None:
    model = varied("llama")
    with_quick_norms(model)
    with torch.no_grad():
        model(input_ids=IDS)
    assert not calls
