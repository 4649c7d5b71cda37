"""Attention over rows that stand one behind the other, without padding and without a mask.

A batch becomes one long row. Each of its rows attends to itself alone: nothing is computed for
padding, no dense mask is built, and packed documents never see each other. Works on any device
that has torch's own attention.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from core.config import RunConfig
from core.errors import TrainingError
from core.language import _
from core.models.hardware import probe

if TYPE_CHECKING:  # which imports this module again
    from core.worker.training.reporter import Reporter

NAME = "rows"
"""The name under which transformers knows this attention."""

# Of more tokens the squares do not stay near the processor.
_MOST_IN_PRODUCTS = 640

# Families that the tests compare with padded attention; any other is probed when it is loaded.
KNOWN = frozenset(
    "gemma gpt2 granite llama mistral olmo2 phi3 qwen2 qwen3 smollm3 starcoder2".split()
)


def attend_rows(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    row_lengths: list[int] | None = None,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each row.

    query: (1, heads, tokens, size); key and value the same with as many or fewer heads;
    `row_lengths` add up to `tokens`. Returns (1, tokens, heads, size).
    """
    if row_lengths is None:
        raise TrainingError(
            _("The model did not hand the rows' lengths on to its attention."),
            _("Set model.attn_implementation to sdpa."),
        )
    kind, before = query.device.type, query.dtype
    in_products = kind == "cpu" and before == torch.bfloat16 and not dropout and _multiplies_bf16()
    rows = zip(*(part.split(row_lengths, dim=2) for part in (query, key, value)), strict=True)
    done = []
    with torch.autocast(kind, enabled=False):
        for q, k, v in rows:
            is_cut = _is_cut(q.shape[2], sliding_window)
            if in_products and not is_cut and q.shape[2] <= _MOST_IN_PRODUCTS:
                scale = q.shape[3] ** -0.5 if scaling is None else scaling
                done.append(attend_in_products(q, k, v, scale).transpose(1, 2))
                continue
            if kind == "cpu":
                # torch's backward in bf16 takes half as long again as in 32 bits on a CPU.
                q, k, v = q.float(), k.float(), v.float()
            attended = F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=_window(q.shape[2], sliding_window, q.device),
                is_causal=not is_cut,
                dropout_p=dropout,
                scale=scaling,
                enable_gqa=q.shape[1] != k.shape[1],
            )
            done.append(attended.transpose(1, 2).to(before))
    return torch.cat(done, dim=1), None


def attend_in_products(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    """Causal attention of one row, (1, heads, tokens, size), by plain matrix products, as
    transformers' eager one: on a CPU that multiplies in bf16 they are two to three times as fast as
    torch's own attention, whose sums are in 32 bits. Nothing of (tokens, tokens) is kept for the
    gradients. key and value may have fewer heads, each for several of the query's."""
    heads, tokens, size = query.shape[1:]
    shared = (key.shape[1], heads // key.shape[1] * tokens, size)
    done = _Products.apply(query.reshape(shared), key[0], value[0], scale)
    return done.view(1, heads, tokens, size)


class _Products(torch.autograd.Function):
    """`attend_in_products` on (heads of key, tokens of all their queries, size)."""

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any, scale: float) -> Any:
        ctx.save_for_backward(query, key, value)
        ctx.scale = scale
        return torch.bmm(_shares(query, key, scale), value)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        query, key, value = ctx.saved_tensors
        shares = _shares(query, key, ctx.scale)
        of_shares = torch.bmm(grad, value.transpose(1, 2))
        of_scores = torch._softmax_backward_data(of_shares, shares, -1, shares.dtype)
        return (
            torch.bmm(of_scores, key).mul_(ctx.scale),
            torch.bmm(of_scores.transpose(1, 2), query).mul_(ctx.scale),
            torch.bmm(shares.transpose(1, 2), grad),
            None,
        )


def _shares(query: torch.Tensor, key: torch.Tensor, scale: float) -> torch.Tensor:
    """What each token takes of those up to it: (heads of key, tokens of all queries, tokens)."""
    tokens = key.shape[1]
    unseen = torch.full((tokens, tokens), -torch.inf, dtype=query.dtype, device=query.device)
    unseen = unseen.triu(1).repeat(query.shape[1] // tokens, 1).expand(len(query), -1, -1)
    return torch.baddbmm(unseen, query, key.transpose(1, 2), alpha=scale).softmax(-1)


@lru_cache
def _multiplies_bf16() -> bool:
    flags = probe().cpu_flags
    return flags.avx512_bf16 or flags.amx_bf16


def _is_cut(length: int, window: int | None) -> bool:
    return window is not None and length > window


def _window(length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """(length, length), true where a token sees another; None when it sees all before it."""
    if window is None or not _is_cut(length, window):
        return None
    places = torch.arange(length, device=device)
    behind = places[:, None] - places[None, :]
    return (behind >= 0) & (behind < window)


def _no_mask(*_: Any, **__: Any) -> None:
    """`attend_rows` needs none."""


AttentionInterface.register(NAME, attend_rows)
AttentionMaskInterface.register(NAME, _no_mask)


def choose_attention(model: Any, config: RunConfig, reporter: Reporter) -> bool:
    """Sets how attention is computed; whether rows may stand behind each other unpadded."""
    wanted = config.model.attn_implementation
    if config.adapter.is_prompt:
        kind = "sdpa" if wanted == "auto" else wanted
        model.set_attn_implementation(kind)
        reporter.note("model.attn_implementation", kind, _("virtual tokens stand before each row"))
        return False
    if wanted != "auto":
        model.set_attn_implementation(wanted)
        return wanted == "flash_attention_2"
    if use_row_attention(model):
        reporter.note("model.attn_implementation", "auto", _("no padding is computed"))
        return True
    kind = model.config._attn_implementation
    reporter.note("model.attn_implementation", kind, _("this model needs its rows padded"))
    return False


def use_row_attention(model: Any) -> bool:
    """Switches the model to this attention, and says whether it fits; else nothing changes.

    It does not fit models whose attention has caps, sinks or biases, nor those whose layers carry
    something other than attention from token to token.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if (
        not (model._supports_attention_backend and model._supports_sdpa)
        or getattr(config, "attn_logit_softcapping", None) is not None
        or not kinds <= {"full_attention", "sliding_attention"}
    ):
        return False
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    if config.model_type in KNOWN or _keeps_rows_apart(model, before):
        return True
    model.set_attn_implementation(before)
    return False


@torch.no_grad()
def _keeps_rows_apart(model: Any, plain: str) -> bool:
    """Whether two short rows give the same hidden states in one long row as each alone."""
    rows = [torch.arange(5, 12), torch.arange(20, 25)]
    was_training = model.training
    model.eval()
    try:
        ids = torch.cat(rows)[None].to(model.device)
        places = torch.cat([torch.arange(len(row)) for row in rows])[None].to(model.device)
        together = model.base_model(
            input_ids=ids,
            position_ids=places,
            row_lengths=[len(row) for row in rows],
            use_cache=False,
        ).last_hidden_state[0]
        with other_attention(model, plain):
            alone = torch.cat(
                [
                    model.base_model(
                        input_ids=row[None].to(model.device), use_cache=False
                    ).last_hidden_state[0]
                    for row in rows
                ]
            )
    except (TypeError, ValueError, RuntimeError, TrainingError):
        return False  # a forward that does not take these arguments
    finally:
        model.train(was_training)
    difference = (together - alone).float().norm() / alone.float().norm()
    return bool(difference < (1e-4 if alone.dtype == torch.float32 else 0.03))


@contextmanager
def other_attention(model: Any, name: str = "sdpa") -> Iterator[None]:
    """The model with transformers' own attention, as generating needs it."""
    before = model.config._attn_implementation
    if before == NAME:
        model.set_attn_implementation(name)
    try:
        yield
    finally:
        if before == NAME:
            model.set_attn_implementation(before)
