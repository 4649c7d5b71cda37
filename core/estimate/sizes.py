"""The sizes that decide how much memory a training takes: of the model, and of the largest batch,
how many sequences, how long, padded or not."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from core.config import RunConfig
from core.language import _
from core.models.describe import ModelFacts, describe_model
from core.models.kinds import kind_of

# Looked up by a token's number or place, never multiplied, and never quantized.
_LOOKUP = re.compile(r"embed|(^|\.)(wte|wpe|shared|relative_attention_bias)(\.|$)")
# What turns hidden states into the scores of all tokens.
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|cls\.predictions\.decoder|decoder)\.weight$")
_EXPERT = re.compile(r"\.experts\.")
# core.worker.training.row_trainer: how many tokens of a batch a CPU computes at once, by the size
# of a number in bytes. What is kept of so many takes the same memory; and a CPU that is quick with
# 16 bits needs more of them to be busy.
TOKENS_AT_ONCE = {4: 768, 2: 1536}
_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1}
# Families whose activations were looked at, tensor by tensor.
_DECODERS = frozenset(
    "llama mistral qwen2 qwen3 smollm3 olmo2 phi3 granite gemma starcoder2".split()
)
_ENCODERS = frozenset("bert roberta xlm-roberta electra camembert".split())


@dataclass(frozen=True)
class ModelShape:
    """A model's sizes; `file_bytes` of its weights on disk, counts of parameters by their place.

    `head` is 0 where the output layer is the embedding itself. `largest` is the largest weight
    that is multiplied. `doubt` says for what reason an estimate may be far off; empty for families
    that were measured.
    """

    facts: ModelFacts
    kind: Literal["decoder", "encoder"]
    hidden: int
    inner: int
    layers: int
    heads: int
    key_value: int
    query: int
    vocabulary: int
    gated: bool
    embedding: int
    head: int
    linear: int
    other: int
    largest: int
    file_bytes: int
    attention_dropout: bool
    doubt: str

    @property
    def parameters(self) -> int:
        return self.embedding + self.head + self.linear + self.other


def read_shape(folder: Path) -> ModelShape | None:
    """The sizes of the model in a folder; None where its files do not tell them.

    Raises ModelError where it holds no model.
    """
    facts = describe_model(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return shape_of(facts, config)


def shape_of(facts: ModelFacts, config: Mapping[str, Any]) -> ModelShape | None:
    """The sizes by a model's facts and its config.json."""
    text = config.get("text_config") or config

    def number(*names: str) -> int:
        found = (text.get(name) for name in names)
        return next((value for value in found if isinstance(value, int)), 0)

    hidden, layers = facts.hidden_size or 0, facts.num_layers or 0
    heads = number("num_attention_heads", "n_head", "n_heads")
    if not (facts.shapes and hidden and layers and heads):
        return None
    size = number("head_dim") or hidden // heads
    counts = _counted(facts)
    family = str(config.get("model_type", ""))
    names = facts.module_names
    return ModelShape(
        facts=facts,
        kind="encoder" if kind_of(config) == "encoder" else "decoder",
        hidden=hidden,
        inner=number("intermediate_size", "n_inner", "ffn_dim", "hidden_dim") or 4 * hidden,
        layers=layers,
        heads=heads,
        key_value=(number("num_key_value_heads") or heads) * size,
        query=heads * size,
        vocabulary=facts.vocab_size or 0,
        gated=bool(names & {"gate_proj", "gate_up_proj", "Wi", "w3"}),
        embedding=counts["embedding"],
        head=counts["head"],
        linear=counts["linear"],
        other=counts["other"],
        largest=counts["largest"],
        file_bytes=(facts.parameters or 0) * _BYTES.get(facts.dtype, 4),
        attention_dropout=any(
            text.get(name)
            for name in ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")
        ),
        doubt=_doubt(family, facts),
    )


def _counted(facts: ModelFacts) -> dict[str, int]:
    """Parameters by their place, and the largest weight that is multiplied."""
    counts = dict.fromkeys(("embedding", "head", "linear", "other", "largest"), 0)
    for name, shape in facts.shapes.items():
        size = math.prod(shape)
        if _HEAD.search(name):
            counts["head"] += size
        elif _LOOKUP.search(name):
            counts["embedding"] += size
        elif len(shape) == 2:
            counts["linear"] += size
            counts["largest"] = max(counts["largest"], size)
        else:
            counts["other"] += size
    return counts


def _doubt(family: str, facts: ModelFacts) -> str:
    if any(_EXPERT.search(name) for name in facts.shapes):
        return _("a mixture of experts: what it keeps of a batch depends on the tokens")
    if family in _DECODERS | _ENCODERS:
        return ""
    return _(
        "{family} has not been measured: counted as a model of its kind",
        family=family or facts.architecture,
    )


@dataclass(frozen=True)
class Batch:
    """`tokens` are computed in `sequences`, each `width` wide at most; `padded` says that all are
    filled up to it. `is_assumed`: the rows' lengths are not known, so all are taken to be as long
    as max_length."""

    sequences: int
    tokens: int
    width: int
    padded: bool
    is_assumed: bool = False


def largest_batch(
    config: RunConfig,
    rows: int,
    lengths: Sequence[int] | None = None,
    *,
    no_padding: bool | None = None,
) -> Batch:
    """The largest batch of `rows` rows. `lengths` has the tokens of the longest rows' sequences (of
    a pair the longer one); without them each is taken to be as long as it may be.

    `no_padding` says whether rows stand behind each other; None goes by the method.
    """
    most = longest_sequence(config)
    sides = 2 if config.training_method.is_paired else 1
    if no_padding is None:
        attends_rows = config.model.attn_implementation in ("auto", "flash_attention_2")
        no_padding = config.training_method.without_padding and attends_rows
    if config.training.packing or config.training_method.fills_blocks:
        return Batch(rows, rows * most, most, padded=False, is_assumed=not lengths)
    if not lengths:
        return Batch(rows * sides, rows * sides * most, most, not no_padding, is_assumed=True)
    known = sorted((min(n, most) for n in lengths), reverse=True)[:rows]
    known += [known[0]] * (rows - len(known))
    tokens = sum(known) if no_padding else known[0] * rows
    return Batch(rows * sides, tokens * sides, known[0], not no_padding)


def longest_sequence(config: RunConfig) -> int:
    """Tokens that a sequence can have: an answer written in training comes behind its prompt."""
    written = config.training_method.generates
    return config.training.max_length + (
        config.reinforcement.max_completion_length if written else 0
    )
