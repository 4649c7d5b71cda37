"""LoRA's layers on a CPU must compute, and learn, what PEFT's own do."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from core.worker.training.lora_linear import Adapted, QuickLinear, with_quick_lora
from tests.training.test_attention import tiny

IDS = torch.arange(3, 43).reshape(4, 10)


def adapted(kind: str = "llama", dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    """A tiny model whose adapter has learned something already."""
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", **settings)
    model = get_peft_model(tiny(kind).to(dtype), lora).train()
    torch.manual_seed(2)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape) * 0.1
            parameter.data += float("magnitude" in name)
    return model


def learned(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    loss = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    return loss, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def quick_and_plain(model: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, int]:
    """What both learn, and how often ours was computed in one step."""
    calls: list[int] = []
    before = Adapted.apply
    monkeypatch.setattr(Adapted, "apply", lambda *given: (calls.append(1), before(*given))[1])
    quick = copy.deepcopy(model)
    with_quick_lora(quick)
    return learned(quick), learned(model), len(calls)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])  # without and with a bias
def test_loss_and_gradients_are_those_of_peft(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every LoRA run on a CPU would follow a wrong slope."""
    quick, plain, calls = quick_and_plain(adapted(kind), monkeypatch)
    assert calls == 2 * 7
    torch.testing.assert_close(quick, plain, rtol=1e-4, atol=1e-6)


def test_under_autocast_it_is_close_and_its_gradients_stay_in_32_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bf16 run would round its small steps away."""
    model = adapted(dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        (loss, quick), (expected, plain), calls = quick_and_plain(model, monkeypatch)
    assert calls == 2 * 7
    torch.testing.assert_close(loss, expected, rtol=1e-2, atol=1e-2)
    for name, grad in quick.items():
        assert grad.dtype == torch.float32
        assert (grad - plain[name]).norm() < 0.05 * plain[name].norm()


@pytest.mark.parametrize(
    "settings", [{"use_dora": True}, {"lora_bias": True}, {"lora_dropout": 0.5}]
)
def test_what_is_more_than_lora_is_left_to_peft(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DoRA's lengths, a bias or dropout would be left out without a word."""
    model = adapted(**settings)
    _, _, calls = quick_and_plain(model, monkeypatch)
    assert calls == 0


def test_an_adapter_that_is_off_or_merged_is_not_added() -> None:
    """Answers of the base beside those of the model would be the model's, or twice adapted."""
    model = adapted()
    with_quick_lora(model)
    assert sum(isinstance(module, QuickLinear) for module in model.modules()) == 2 * 7
    with_adapter = model(input_ids=IDS).logits
    with model.disable_adapter():
        base = model(input_ids=IDS).logits
    assert (with_adapter - base).abs().max() > 0.01
    torch.testing.assert_close(base, tiny("llama")(input_ids=IDS).logits)
    merged = model.merge_and_unload()
    torch.testing.assert_close(merged(input_ids=IDS).logits, with_adapter, rtol=1e-4, atol=1e-5)
