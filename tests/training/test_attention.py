"""Rows that stand one behind the other must give what each gives alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, AutoModelForCausalLM

from core.errors import TrainingError
from core.models.labels import Labels
from core.worker.models.classifier import open_with_head
from core.worker.models.loading import attention_asked_for, open_model
from core.worker.training.attention import (
    KNOWN,
    NAME,
    attend_in_products,
    attend_rows,
    other_attention,
    use_row_attention,
)

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LENGTHS = [7, 1, 12, 5]


def tiny(kind: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SIZES, **changes})
    return AutoModelForCausalLM.from_config(config).eval()


def rows() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, 97, (length,), generator=generator) for length in LENGTHS]


def together(model: Any) -> torch.Tensor:
    ids = torch.cat(rows())[None]
    places = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    output = model(input_ids=ids, position_ids=places, row_lengths=LENGTHS, use_cache=False)
    return output.logits[0]


def alone(model: Any) -> torch.Tensor:
    return torch.cat([model(input_ids=row[None], use_cache=False).logits[0] for row in rows()])


@pytest.mark.parametrize("kind", sorted(KNOWN))
def test_every_known_family_computes_what_padded_attention_does(kind: str) -> None:
    """A run on this family would learn from answers to other rows' questions."""
    model = tiny(kind)
    expected = alone(model)
    assert use_row_attention(model)
    torch.testing.assert_close(together(model), expected, rtol=1e-4, atol=1e-5)


def test_a_sliding_window_is_kept_within_each_row() -> None:
    """Mistral would see further back in training than it does when it answers."""
    model = tiny("mistral", sliding_window=4)
    expected = alone(model)
    assert use_row_attention(model)
    found = together(model)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    wide = tiny("mistral", sliding_window=None)
    assert not torch.allclose(alone(wide), found, atol=1e-3), "the window does nothing here"


def test_gradients_are_those_of_padded_attention() -> None:
    """The weights would move elsewhere than with the library's own attention."""
    model = tiny("llama")
    alone(model).square().mean().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    use_row_attention(model)
    together(model).square().mean().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-7)


def test_plain_products_attend_and_learn_as_torch_does() -> None:
    """Two heads of the key, each for three of the query's."""
    generator = torch.Generator().manual_seed(2)
    given = [torch.randn(1, heads, 11, 8, generator=generator) for heads in (6, 2, 2)]
    towards = torch.randn(1, 6, 11, 8, generator=generator)
    found = []
    for own in (False, True):
        parts = [one.clone().requires_grad_() for one in given]
        done = (
            attend_in_products(*parts, 0.3)
            if own
            else scaled_dot_product_attention(*parts, is_causal=True, scale=0.3, enable_gqa=True)
        )
        done.backward(towards)
        found.append([done.detach(), *(one.grad for one in parts)])
    for ours, torchs in zip(*found, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-4, atol=1e-6)


def test_rows_in_16_bits_are_attended_as_in_32() -> None:
    """Whichever way this machine's processor is quick in."""
    generator = torch.Generator().manual_seed(3)
    query, key, value = (torch.randn(1, heads, 25, 8, generator=generator) for heads in (4, 2, 2))
    exact, _ = attend_rows(torch.nn.Identity(), query, key, value, None, row_lengths=LENGTHS)
    narrow = (one.bfloat16() for one in (query, key, value))
    found, _ = attend_rows(torch.nn.Identity(), *narrow, None, row_lengths=LENGTHS)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, rtol=0.05, atol=0.05)


def test_an_unknown_family_is_tried_before_it_is_trusted() -> None:
    """A model that mixes neighbours in its own way would learn from mixed rows."""
    fits = tiny("olmo")
    assert "olmo" not in KNOWN
    assert use_row_attention(fits)
    mixes = tiny("olmo")
    mixes.model.layers[0].register_forward_hook(
        lambda module, given, output: output + output.mean(dim=1, keepdim=True)
    )
    before = mixes.config._attn_implementation
    assert not use_row_attention(mixes)
    assert mixes.config._attn_implementation == before


def test_capped_attention_is_left_to_the_library() -> None:
    """Gemma 2 without its cap on attention scores is another model."""
    model = tiny("gemma2", attn_logit_softcapping=50.0)
    assert not use_row_attention(model)


def test_generating_uses_the_library_s_attention_and_training_goes_on_as_before() -> None:
    """Sample answers of a padded batch would be wrong, or training would begin to pad."""
    model = tiny("llama")
    ids = torch.tensor([[5, 6, 7]])
    expected = model.generate(ids, max_new_tokens=5, do_sample=False)
    use_row_attention(model)
    with other_attention(model):
        assert torch.equal(model.generate(ids, max_new_tokens=5, do_sample=False), expected)
    assert model.config._attn_implementation == NAME


def test_a_model_that_drops_the_lengths_is_an_error_not_a_guess() -> None:
    """All rows of a batch would be read as one."""
    part = torch.zeros(1, 2, 3, 4)
    with pytest.raises(TrainingError, match="attn_implementation"):
        attend_rows(torch.nn.Identity(), part, part, part, None)


@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation"])
@pytest.mark.parametrize("asked", ["eager", "flash_attention_2", "somebody/kernel"])
def test_a_models_config_does_not_choose_its_attention(
    tmp_path: Path, key: str, asked: str
) -> None:
    """A stranger's file would slow a run down, keep it from starting, or fetch a kernel's code."""
    tiny("llama").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: asked}))
    assert attention_asked_for(tmp_path) == asked
    labels = Labels(("a", "b", "c"), multi=False)
    for model in (
        open_model(tmp_path, device="cpu", dtype=torch.float32),
        open_with_head(tmp_path, labels, device="cpu", dtype=torch.float32),
    ):
        assert model.config._attn_implementation == "sdpa"
    assert model.config.num_labels == 3
