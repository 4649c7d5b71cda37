"""The share of a classifier that is trained must be told with its head, as the run will have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import AutoConfig, AutoModelForSequenceClassification

from core.models.describe import describe_model, head_parameters, left_behind, with_head
from core.rules import parse_config

LABELS = 5
SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "dim": 32,
    "intermediate_size": 64,
    "hidden_dim": 64,
    "num_hidden_layers": 2,
    "n_layers": 2,
    "num_attention_heads": 2,
    "n_heads": 2,
    "embedding_size": 32,
    "pad_token_id": 0,
}


@pytest.mark.parametrize(
    "name",
    [
        "BertForMaskedLM",
        "BertModel",
        "RobertaForMaskedLM",
        "DistilBertForMaskedLM",
        "DebertaV2ForMaskedLM",
        "ModernBertForMaskedLM",
        "LlamaForCausalLM",
    ],
)
def test_the_head_is_as_large_as_that_of_the_library(name: str, tmp_path: Path) -> None:
    kind = getattr(transformers, name)
    known = {key: size for key, size in SIZES.items() if hasattr(kind.config_class(), key)}
    kind(kind.config_class(**known, tie_word_embeddings=True)).save_pretrained(tmp_path)
    facts = describe_model(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path, num_labels=LABELS)
    whole = AutoModelForSequenceClassification.from_config(config).num_parameters()
    head = head_parameters(facts, LABELS)
    assert head is not None and facts.parameters is not None
    assert facts.parameters - left_behind(facts) + head == whole


def test_an_adapter_s_share_counts_the_head(tmp_path: Path) -> None:
    config = transformers.BertConfig(**{**SIZES, "architectures": None})
    transformers.BertModel(config).save_pretrained(tmp_path)
    facts = describe_model(tmp_path)
    settings = {"method": "classification", "adapter.r": 4, "adapter.target_modules": ["query"]}
    assert facts.parameters is not None
    whole, trained = with_head(facts, parse_config(settings), LABELS)
    assert whole == facts.parameters, "the head is saved with the adapter"
    assert trained == 2 * 4 * (32 + 32) + LABELS * 33
    full = {"method": "classification", "adapter.method": "none"}
    changed = facts.parameters + LABELS * 33
    assert with_head(facts, parse_config(full), LABELS) == (changed, changed)
    assert with_head(facts, parse_config({"adapter.method": "none"}), LABELS)[0] == facts.parameters


def test_a_family_that_is_not_known_is_not_guessed(tmp_path: Path) -> None:
    transformers.BertConfig(**SIZES, architectures=["NewKindForMaskedLM"]).save_pretrained(tmp_path)
    assert head_parameters(describe_model(tmp_path), LABELS) is None
