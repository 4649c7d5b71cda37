"""The check itself must be able to fail, for each fault that it is there to find."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from core.errors import ExportError
from core.worker.export.check import (
    check_ends,
    check_exported,
    check_perplexity,
    check_prompts,
    check_trained,
    distance,
    learned_share,
    next_token_logits,
)
from tests.tiny_model import tiny_adapter, tiny_model

ROWS = [[1, 9, 30, 42, 77], [1, 5, 6]]


@pytest.fixture(scope="module")
def base() -> Any:
    torch.set_num_threads(1)
    return next_token_logits(tiny_model(), ROWS)


@pytest.fixture(scope="module")
def trained() -> Any:
    return next_token_logits(tiny_adapter(tiny_model()), ROWS)


def noisy(logits: Any, size: float) -> Any:
    noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    centred = logits - logits.mean(-1, keepdim=True)
    return logits + noise * size * centred.pow(2).mean().sqrt()


def test_logits_are_those_of_each_row(base: Any) -> None:
    with torch.no_grad():
        by_hand = torch.cat([tiny_model()(torch.tensor([row])).logits[0] for row in ROWS])
    assert torch.allclose(base, by_hand, atol=1e-5)


def test_distance_by_hand() -> None:
    reference = torch.tensor([[1.0, -1.0], [3.0, 1.0]])  # centred: +-1, +-1; its size is 1
    assert distance(reference, reference) == 0
    assert distance(reference + 5, reference) == 0  # the same probabilities
    assert distance(2 * reference, reference) == pytest.approx(1.0)
    other = torch.tensor([[1.5, -1.5], [3.0, 1.0]])  # differs by 0.5 at half of the places
    assert distance(other, reference) == pytest.approx((0.25 / 2) ** 0.5)


def test_rounding_passes_and_the_detail_says_how_far(base: Any, trained: Any) -> None:
    checks = check_exported(noisy(trained, 0.01), trained, base, "bfloat16")
    assert all(check.ok for check in checks)
    assert "logits 1 % apart, where bfloat16 allows 5 %" in checks[0].detail
    assert checks[1].detail == "100 % of the way from the base to the trained model"
    assert checks[2].detail.startswith("at each of the ")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_base_never_passes(base: Any, trained: Any, dtype: torch.dtype) -> None:
    with pytest.raises(ExportError, match="equals its base: it carries 0 % of what was"):
        check_exported(base, trained, base, dtype)


def test_the_base_never_passes_for_a_short_training_either(base: Any, trained: Any) -> None:
    """Its distance alone would be within what rounding may do."""
    little = base + 0.01 * (trained - base)
    assert distance(base, little) < 0.05
    with pytest.raises(ExportError, match="equals its base"):
        check_exported(base, little, base, "bfloat16")
    rounded = little + 0.02 * torch.randn(base.shape, generator=torch.Generator().manual_seed(1))
    assert learned_share(rounded, little, base) == pytest.approx(1, abs=0.2)


def test_half_of_what_was_learned_is_not_enough(base: Any, trained: Any) -> None:
    assert learned_share((base + trained) / 2, trained, base) == pytest.approx(0.5)
    with pytest.raises(ExportError, match="is not the trained one: it carries 50 %"):
        check_exported((base + trained) / 2, trained, base, "float32")


def test_more_than_rounding_fails(base: Any, trained: Any) -> None:
    with pytest.raises(ExportError, match="does not answer as the trained one"):
        check_exported(noisy(trained, 0.1), trained, base, "bfloat16")
    with pytest.raises(ExportError, match="where float32 allows 0.1 %"):
        check_exported(noisy(trained, 0.01), trained, base, "float32")


def test_another_next_token_fails_even_when_the_mean_is_near(base: Any, trained: Any) -> None:
    """One broken position among many hardly shows in an average."""
    many = trained.repeat(2000, 1)
    broken = many.clone()
    broken[0, trained[0].argmin()] = trained[0].max() + 50
    assert distance(broken, many) < 0.05
    with pytest.raises(ExportError, match="would write another word at 1 of"):
        check_exported(broken, many, base.repeat(2000, 1), "bfloat16")


def test_a_model_that_is_not_finite_fails(base: Any, trained: Any) -> None:
    with pytest.raises(ExportError):
        check_exported(torch.full_like(trained, torch.nan), trained, base, "float32")
    with pytest.raises(ExportError):
        check_trained(base, torch.full_like(trained, torch.nan))


def test_training_that_changed_nothing_fails(base: Any, trained: Any) -> None:
    assert check_trained(base, trained).ok
    with pytest.raises(ExportError, match="nothing to export"):
        check_trained(base, base.clone())


def test_a_model_that_is_less_sure_is_refused_where_its_precision_does_not_explain_it() -> None:
    told = check_perplexity(2.2, 2.0, "Q4_K_M")
    assert told.ok and told.detail == ("2.2, where the trained model has 2 and Q4_K_M allows 2.6")
    with pytest.raises(ExportError, match="lost too much: its perplexity is 2.2"):
        check_perplexity(2.2, 2.0, "float32")
    with pytest.raises(ExportError, match="Take a larger kind: f32, bf16, f16"):
        check_perplexity(float("nan"), 2.0, "q8_0")


def test_a_prompt_that_becomes_other_tokens_is_refused() -> None:
    """The model would be asked in another way than it was taught."""
    assert check_prompts([[1, 2, 3], [4]], [[1, 2, 3], [4]]).detail == "2 of them, 4 tokens"
    with pytest.raises(ExportError, match="from token 3 on"):
        check_prompts([[1, 2, 3]], [[1, 2, 9]])
    with pytest.raises(ExportError, match="from token 3 on"):
        check_prompts([[1, 2]], [[1, 2, 3]])


def test_a_model_that_never_stops_is_refused() -> None:
    assert check_ends([True, True]).ok and not check_ends([True, False]).ok
    with pytest.raises(ExportError, match="does not stop at the end"):
        check_ends([False, False])
