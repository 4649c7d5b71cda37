"""What the backward pass needs of a batch: the tensors that a layer's forward pass leaves behind.

The lists were read off torch's own saved tensors, layer by layer, for Llama's and BERT's layers:
with an adapter and in full, in 32 bits and under autocast, with each kind of attention.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.config import RunConfig
from core.estimate.batch import Batch
from core.estimate.shape import ModelShape

_QUERY_KEY_VALUE = ("q_proj", "k_proj", "v_proj", "qkv_proj", "query", "key", "value", "c_attn")
_GATE_UP = ("gate_proj", "up_proj", "gate_up_proj", "fc1", "c_fc", "Wi")


@dataclass(frozen=True)
class Way:
    """How a run computes. `compute` is the size of a number in bytes (2 or 4); `own_weights` says
    that weights of the model itself are trained, which are held in 32 bits."""

    compute: int
    device: str
    own_weights: bool
    adapters: int
    rank: int
    attention: str
    dropout: bool
    adapter_dropout: bool
    dora: bool
    targets: tuple[str, ...] | None

    @property
    def casts(self) -> bool:
        """Whether autocast makes 16-bit copies of 32-bit weights."""
        return self.own_weights and self.compute == 2

    def has(self, *names: str) -> bool:
        """Whether a module of these names is trained or has an adapter."""
        return self.own_weights or self.targets is None or bool(set(names) & set(self.targets))


def way_of(config: RunConfig, shape: ModelShape, batch: Batch, device: str) -> Way:
    """How `config`, with nothing on auto, is computed on a kind of device (cpu, cuda, mps)."""
    adapter = config.adapter
    wanted = config.model.attn_implementation
    attention = "padded" if batch.padded else "rows"
    if wanted == "eager":
        attention = "eager"
    # TRL switches dropout off where two answers are compared.
    compares = config.training_method.compares
    targets = adapter.target_modules
    return Way(
        compute=4 if config.training.precision == "fp32" else 2,
        device=device,
        own_weights=not adapter.is_adapter,
        adapters=_adapters(shape, targets) if adapter.is_adapter and not adapter.is_prompt else 0,
        rank=adapter.init_r if adapter.method == "adalora" else adapter.r,
        attention=attention,
        dropout=shape.attention_dropout and not compares,
        adapter_dropout=adapter.method in ("lora", "adalora")
        and adapter.lora_dropout > 0
        and not compares,
        dora=adapter.use_dora,
        targets=tuple(targets) if isinstance(targets, list) else None,
    )


def _adapters(shape: ModelShape, targets: str | list[str]) -> int:
    """Modules of a layer that have an adapter."""
    if isinstance(targets, str):
        return len([n for n in shape.facts.linear_modules if n not in ("pooler", "dense")]) + (
            3 if shape.kind == "encoder" and "dense" in shape.facts.linear_modules else 0
        )
    return len(targets)


def kept_of_layer(shape: ModelShape, way: Way, batch: Batch) -> list[int]:
    """Bytes of each tensor that one layer leaves for its backward pass."""
    parts = _encoder(shape, way, batch) if shape.kind == "encoder" else _decoder(shape, way, batch)
    found = [round(batch.tokens * size) for size in parts]
    if way.adapters:
        found += [batch.tokens * way.rank * way.compute] * way.adapters
        width = (4 * shape.hidden + 2 * shape.inner) / 6 * way.compute
        found += [round(batch.tokens * width)] * way.adapters * (2 * way.adapter_dropout + way.dora)
    return [size for size in found if size > 0]


def _decoder(shape: ModelShape, way: Way, batch: Batch) -> list[float]:
    """Bytes a token of each tensor: Llama's norms, attention and gated feed-forward part."""
    hidden, inner, query, size = shape.hidden, shape.inner, shape.query, way.compute
    # A norm computes in 32 bits and keeps what it was given, and to train its weight its result.
    found: list[float] = [hidden * 4] * (4 if way.own_weights else 2)
    if way.casts:  # each linear layer has its input cast for itself
        inputs = [hidden * 2] * (5 if shape.gated else 4)
    else:
        inputs = [hidden * size] * (way.has(*_QUERY_KEY_VALUE) + way.has(*_GATE_UP))
    found += [*inputs, query * size]
    found += [inner * size] * (4 if shape.gated else 2)
    return found + _attention(shape, way, batch)


def _attention(shape: ModelShape, way: Way, batch: Batch) -> list[float]:
    query, keys, size = shape.query, shape.key_value, way.compute
    if way.attention == "eager":
        # The shares of all pairs of tokens, in 32 bits and in the precision.
        pairs = shape.heads * batch.width
        return [query * size] * 3 + [pairs * 4.0] + ([pairs * 2.0] if size == 2 else [])
    if way.attention == "rows":
        # On a CPU ours computes in 32 bits.
        size = 4 if way.device == "cpu" else size
        return [query * size, query * size, keys * size, keys * size]
    if way.device == "cpu":
        return [query * size] * 7 + [float(batch.width * size)]
    return [query * size] * 4


def _encoder(shape: ModelShape, way: Way, batch: Batch) -> list[float]:
    """Bytes a token of each tensor: BERT's norms, attention, feed-forward part and dropouts."""
    hidden, inner, size = shape.hidden, shape.inner, way.compute
    found: list[float] = [hidden * (4 if way.own_weights else size)] * 2
    found += [hidden * size] * (5 if size == 2 else 3)
    found += [inner * size] * (4 if shape.gated else 2)
    if way.dropout:
        found += [hidden * size] * 2
    pairs = float(shape.heads * batch.width * 4)
    if way.attention == "eager" or (way.dropout and way.device == "cpu"):
        # With dropout a CPU has no fused attention: the shares, which were dropped, the rest.
        return found + [hidden * 4.0] * 3 + [pairs] * 3
    return found + [hidden * size] * (7 if way.device == "cpu" else 4)


def kept_between_layers(shape: ModelShape, way: Way, batch: Batch) -> int:
    """Bytes of a layer's input: all that checkpointing keeps of it."""
    return batch.tokens * shape.hidden * (4 if way.own_weights else way.compute)
