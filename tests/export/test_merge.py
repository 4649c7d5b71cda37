"""A merge weight by weight must be what PEFT merges in 32 bits, and hold one model as stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from core.jobs.task import read_result
from core.models.trained import NewTokens
from core.worker.export.compare import Writers
from core.worker.export.merge import In32Bits
from core.worker.export.run import run_export
from core.worker.models.loading import grow
from core.workspace import RunFolder
from tests.tiny_model import TinyWorld, tiny_adapter, tiny_model, tiny_world

NEW = NewTokens({"<new>": 400}, {"<new>": [5, 9]}, 408, 401)


@pytest.fixture(autouse=True)
def cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_DEVICE", "cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return tiny_world(tmp_path_factory.mktemp("m") / "ws")


def stored(world: TinyWorld, **changes: Any) -> None:
    tiny_model(**changes).to(torch.bfloat16).save_pretrained(world.base)


def in_32_bits(world: TinyWorld) -> Any:
    return AutoModelForCausalLM.from_pretrained(world.base, dtype=torch.float32)


def by_peft(base: Any, adapter: Path) -> dict[str, Any]:
    model = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload(safe_merge=True)
    return dict(model.state_dict())


def export(world: TinyWorld, run: RunFolder, dtype: str) -> dict[str, Any]:
    task = world.task(run, "export", dtype, {"format": "merged", "dtype": dtype})
    assert run_export(task, world.root) == "finished"
    return load_file(task / (read_result(task) or {})["path"] / "model.safetensors")


CASES: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "biases": {"bias": "lora_only"},
    "saved": {"modules_to_save": ["lm_head"]},
    "embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "tokens": {"trainable_token_indices": {"embed_tokens": [400]}},
}

APART = ("saved", "embeddings")  # else their change would be the output layer's, too


@pytest.mark.parametrize(
    ("case", "dtype"),
    [*((case, "auto") for case in CASES), ("lora", "float32"), ("tokens", "float32")],
)
def test_it_is_pefts_own_merge_to_the_last_bit(
    world: TinyWorld, case: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(world, attention_bias=case == "biases", tie_word_embeddings=case not in APART)
    run = world.run(f"{case}-{dtype}")
    base = in_32_bits(world)
    if case == "tokens":
        grow(base, NEW)
    model = tiny_adapter(base, **CASES[case])
    with torch.no_grad():
        for name, one in model.named_parameters():
            if any(part in name for part in ("modules_to_save", "bias", "magnitude", "embedding")):
                one.add_(torch.randn_like(one) * 0.1)
            if "trainable_tokens" in name:
                one.normal_()
    model.save_pretrained(run.adapter, save_embedding_layers=False)
    if case == "tokens":
        NEW.save(run.adapter)
    sizes: list[int] = []
    real = Writers.scores

    def weigh(self: Any, model: Any, rows: Any) -> Any:
        sizes.append(sum(one.nbytes for one in model.parameters()))
        return real(self, model, rows)

    monkeypatch.setattr(Writers, "scores", weigh)
    before = (world.base / "model.safetensors").read_bytes()
    found = export(world, run, dtype)
    assert (world.base / "model.safetensors").read_bytes() == before
    again = in_32_bits(world)
    if case == "tokens":
        grow(again, NEW)
    wanted = by_peft(again, run.adapter)
    kind = torch.float32 if dtype == "float32" else torch.bfloat16
    assert "lm_head.weight" in found or wanted["lm_head.weight"].data_ptr() == (
        wanted["model.embed_tokens.weight"].data_ptr()
    )
    for name, one in found.items():
        if case == "tokens" and name == "model.embed_tokens.weight":
            one, wanted[name] = one[:401], wanted[name][:401]  # of no token: drawn at random
        assert torch.equal(one, wanted[name].to(kind)), name
    if case not in ("pissa", "biases", "saved"):  # the base is held as it is stored
        assert sizes[0] == sum(one.numel() for one in found.values()) * 2


def test_an_adapter_on_a_narrow_base_is_checked_and_its_speed_measured(world: TinyWorld) -> None:
    stored(world)
    run = world.run("beside")
    model = tiny_adapter(in_32_bits(world), use_dora=True, target_modules=["q_proj", "down_proj"])
    model.save_pretrained(run.adapter)
    task = world.task(run, "export", "beside", {"format": "adapter"})
    assert run_export(task, world.root) == "finished"
    part = (read_result(task) or {})["parts"][0]
    assert part["tokens_per_second"] > 0 and part["precision"] == "float32"


def test_narrow_weights_are_computed_as_wide_ones(world: TinyWorld) -> None:
    stored(world)
    ids = torch.tensor([[1, 9, 30, 42, 77]])
    narrow = AutoModelForCausalLM.from_pretrained(world.base, dtype=torch.bfloat16).eval()
    with torch.inference_mode():
        wanted = in_32_bits(world).eval()(ids).logits
        assert not torch.allclose(narrow(ids).logits.float(), wanted, atol=1e-3)
        with In32Bits():
            found = narrow(ids).logits
    assert torch.equal(found, wanted)
    assert {one.dtype for one in narrow.parameters()} == {torch.bfloat16}
