"""Which models write, which fill gaps, and by what method each can learn. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import ModelError
from core.models.kinds import kind_in, kind_of, kind_problem, need_kind
from core.rules import parse_config
from core.rules.base_model import model_problems
from core.workspace import Workspace


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "decoder"),
        ({"model_type": "gpt2"}, "decoder"),
        ({"model_type": "bert", "architectures": ["BertModel"]}, "encoder"),
        ({"model_type": "modernbert", "architectures": ["ModernBertForMaskedLM"]}, "encoder"),
        ({"model_type": "bert", "architectures": ["BertLMHeadModel"]}, "decoder"),
        ({"model_type": "roberta", "is_decoder": True}, "decoder"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "other"),
        ({"model_type": "unheard-of"}, "other"),
    ],
)
def test_a_model_is_known_by_its_config(config: dict[str, Any], kind: str) -> None:
    """A person would be refused a model that fits, or let one through that does not."""
    assert kind_of(config) == kind


def test_the_wrong_kind_is_refused_at_its_field_before_the_start(tmp_path: Path) -> None:
    """The run would fail after the model was fetched, in words of a library."""
    workspace = Workspace.open(tmp_path)
    for name, config in (
        ("reads", {"model_type": "bert", "architectures": ["BertForMaskedLM"]}),
        ("writes", {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}),
    ):
        (workspace.models / name).mkdir(parents=True)
        (workspace.models / name / "config.json").write_text(json.dumps(config))
        (workspace.models / name / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")
    told = {}
    for method in ("sft", "cpt", "dpo", "mlm", "classification"):
        for name in ("reads", "writes"):
            run = parse_config({"method": method, "model.model_name_or_path": name})
            told[method, name] = model_problems(workspace, run)
    refused = {place for place, problems in told.items() if problems}
    assert refused == {("sft", "reads"), ("cpt", "reads"), ("dpo", "reads"), ("mlm", "writes")}
    problem = told["sft", "reads"][0]
    assert problem.field == "model.model_name_or_path"
    assert "classification or mlm" in problem.message


def test_what_cannot_be_read_is_left_to_whoever_opens_it(tmp_path: Path) -> None:
    """A model without a config would be called an encoder."""
    assert kind_in(tmp_path) is None
    run = parse_config({"method": "cpt"})
    assert kind_problem(None, run) is None
    with pytest.raises(ModelError, match="is an encoder"):
        need_kind({"model_type": "bert"}, run)
